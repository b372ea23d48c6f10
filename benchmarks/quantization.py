"""Time of a training step under quantisation, as a ratio to the plain step.

    python benchmarks/quantization.py [--width 512 ...] [--profile]

A step is one pass forward and backward, without the optimiser. All candidates run in one process and take turns in
random order, so a slow moment of the machine hits them alike; a ratio compares steps of the same round. With the
extra `peers` installed, torchao's QAT layer, which also fake-quantises int8 weights and activations, runs beside;
it knows Linear alone, so in whole models it takes part with `--family llama`.
"""

import copy
import importlib.util
import random
import sys
import time
from collections.abc import Callable
from typing import Annotated

import pandas as pd
import torch
import typer
from scipy.stats import quantile_test
from torch import nn
from torch.profiler import ProfilerActivity
from transformers.pytorch_utils import Conv1D

from common.models import Family, new_language_model
from common.quantization import Quantizer, Recipe, quantize
from common.training import language_loss

Step = Callable[[], None]

LAYERS, CONTEXT, VOCABULARY = 2, 128, 2048  # of a whole model

CHANNEL, TENSOR, TOKEN = (Quantizer(bits=8, granularity=shared) for shared in ("channel", "tensor", "token"))
PLAIN, W8A8, PEER = "plain", "W8A8 channel, token", "torchao W8A8 channel, token"
RECIPES = {
    "empty recipe": Recipe(),
    "W8 channel": Recipe(weights=CHANNEL),
    "W8 tensor": Recipe(weights=TENSOR),
    "W4 channel": Recipe(weights=Quantizer(bits=4, granularity="channel")),
    "A8 token": Recipe(activations=TOKEN),
    "A8 tensor": Recipe(activations=TENSOR),
    W8A8: Recipe(weights=CHANNEL, activations=TOKEN),
    "W8A8 straight-through": Recipe(weights=CHANNEL, activations=TOKEN, backward="straight-through"),
    "G8 token": Recipe(gradients=TOKEN),
    "W8A8G8": Recipe(weights=CHANNEL, activations=TOKEN, gradients=TOKEN),
}


def candidates(plain: nn.Module) -> dict[str, nn.Module]:
    """`plain` and copies of it under each recipe; under torchao too, if that is installed and knows its layers."""
    modules = {PLAIN: plain}
    for name, recipe in RECIPES.items():
        modules[name] = copy.deepcopy(plain)
        quantize(modules[name], recipe)
    if importlib.util.find_spec("torchao") and not any(isinstance(module, Conv1D) for module in plain.modules()):
        modules[PEER] = under_torchao(copy.deepcopy(plain))
    return modules


def under_torchao(module: nn.Module) -> nn.Module:
    """`module` with torchao's fake-quantised layers; activations are asymmetric, as it has no other per token."""
    from torchao.quantization import quantize_
    from torchao.quantization.qat import IntxFakeQuantizeConfig, QATConfig

    activations = IntxFakeQuantizeConfig(torch.int8, "per_token", is_symmetric=False)
    weights = IntxFakeQuantizeConfig(torch.int8, "per_channel", is_symmetric=True)
    holder = nn.Sequential(module)  # in which a layer that stands alone can be replaced
    quantize_(holder, QATConfig(activation_config=activations, weight_config=weights, step="prepare"))
    return holder[0]


def check_torchao(plain: torch.Tensor, ours: torch.Tensor, peer: torch.Tensor) -> None:
    """Raise `RuntimeError` unless torchao moves a layer's output about as far as the same recipe does here."""
    error, expected = (((output - plain).norm() / plain.norm()).item() for output in (peer, ours))
    if not expected / 2 < error < expected * 2:
        raise RuntimeError(f"torchao moves the output by {error:.2g}, {W8A8} by {expected:.2g}: not the same work")


def layer_steps(width: int, tokens: int) -> dict[str, Step]:
    """One Linear, `width` to `width`, that hands a gradient on to its input, as layers inside a network do."""
    torch.manual_seed(0)
    x, grad = torch.randn(tokens, width, requires_grad=True), torch.randn(tokens, width)
    modules = candidates(nn.Linear(width, width))
    if PEER in modules:
        check_torchao(*(modules[name](x).detach() for name in (PLAIN, W8A8, PEER)))

    def step(layer: nn.Module) -> None:
        x.grad = None
        layer.zero_grad()
        layer(x).backward(grad)

    return {name: lambda layer=layer: step(layer) for name, layer in modules.items()}


def model_steps(family: Family, width: int, windows: int) -> dict[str, Step]:
    """A whole language model and its loss on `windows` of one context each."""
    shape = {"hidden": width, "layers": LAYERS, "heads": max(1, width // 64), "context": CONTEXT}
    plain = new_language_model(family, vocab_size=VOCABULARY, tied=False, embedding_std=0.3, seed=0, **shape)
    batch = {"input_ids": torch.randint(VOCABULARY, (windows, CONTEXT))}

    def step(model: nn.Module) -> None:
        model.zero_grad()
        language_loss(model, batch).backward()

    return {name: lambda model=model: step(model) for name, model in candidates(plain).items()}


def seconds(steps: dict[str, Step], rounds: int) -> pd.DataFrame:
    """Time of every step, one row a round; the order within a round is random, and a first round warms up."""
    times = []
    for _ in range(rounds + 1):
        times.append({})
        for name in random.sample(list(steps), len(steps)):
            start = time.perf_counter()
            steps[name]()
            times[-1][name] = time.perf_counter() - start
    return pd.DataFrame(times[1:], columns=list(steps))


def ratios(times: pd.DataFrame) -> pd.DataFrame:
    """Median ratio to the plain step of the same round, with its distribution-free 95% interval."""
    relative = times.div(times[PLAIN], axis=0)
    intervals = {name: quantile_test(relative[name], p=0.5).confidence_interval(0.95) for name in relative}
    return pd.DataFrame(
        {
            "ms": times.median() * 1000,
            "ratio": relative.median(),
            "low": {name: interval.low for name, interval in intervals.items()},
            "high": {name: interval.high for name, interval in intervals.items()},
        }
    )


def operators(steps: dict[str, Step], rounds: int) -> pd.DataFrame:
    """Where a plain and a W8A8 step spend their time: ms in each operator itself, and its share of the step."""
    columns = {}
    for name in (PLAIN, W8A8):
        with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as profiler:
            for _ in range(rounds):
                steps[name]()
        spent = pd.Series({event.key: event.self_cpu_time_total for event in profiler.key_averages()}) / rounds / 1000
        columns |= {f"{name}, ms": spent, f"{name}, %": 100 * spent / spent.sum()}
    return pd.DataFrame(columns).fillna(0).sort_values(f"{W8A8}, ms", ascending=False).head(20)


def main(
    width: Annotated[list[int], typer.Option(help="Of a single layer.", default_factory=lambda: [256, 512, 1024])],
    model_width: Annotated[list[int], typer.Option(help="Of a whole model.", default_factory=lambda: [512])],
    tokens: Annotated[int, typer.Option(min=1, help="That a single layer sees.")] = 1024,
    windows: Annotated[int, typer.Option(min=1, help=f"Of {CONTEXT} tokens, that a whole model sees.")] = 4,
    family: Annotated[Family, typer.Option(help="Of the whole model.")] = "gpt2",
    rounds: Annotated[int, typer.Option(min=6, help="Six are the fewest that give a 95% interval.")] = 60,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    profile: Annotated[bool, typer.Option(help="Show where plain and W8A8 steps spend their time as well.")] = False,
) -> None:
    """Print the time of a step, forward and backward, of each recipe relative to plain."""
    torch.set_num_threads(threads)
    sys.stdout.write(f"torch {torch.__version__}, threads: {threads}, rounds: {rounds}\n")
    if not importlib.util.find_spec("torchao"):
        sys.stdout.write("torchao is left out: it is not installed (extra `peers`)\n")
    shape = f"{LAYERS} layers, {windows} × {CONTEXT} tokens, vocabulary {VOCABULARY}"
    cases = {f"Linear, width {size}, {tokens} tokens": (layer_steps, size, tokens) for size in width}
    cases |= {f"{family}, width {size}, {shape}": (model_steps, family, size, windows) for size in model_width}
    for title, (build, *sizes) in cases.items():
        steps = build(*sizes)
        sys.stdout.write(f"\n{title}\n{ratios(seconds(steps, rounds)).to_string(float_format='%.3f')}\n")
        if profile:
            sys.stdout.write(f"\n{operators(steps, rounds).to_string(float_format='%.3f')}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    typer.run(main)
