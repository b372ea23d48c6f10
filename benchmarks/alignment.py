"""Preference tuning: pairs per CPU second, with TRL's DPOTrainer beside.

    python benchmarks/alignment.py [--width 128 --layers 2 --prompt 1 ...] [--profile] [--out FILE]

Both train the same low-rank adapter by DPO on the same pairs, in float32 and without checkpointing, from reference
log-probabilities that are there already, by the same optimiser and schedule. TRL runs twice: on its own batches, in
random order, and on ours, whose rows are of like length; there its loss must be ours at every step. A round trains
some steps from the start, on other pairs than the rounds before; candidates take turns in random order. CPU seconds are
those of the whole process.
"""

import copy
import importlib.metadata
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import typer
from datasets import Dataset, disable_progress_bars
from peft import PeftModel
from scipy.stats import bootstrap
from scoring import OURS, cpu_seconds, markdown, operators
from torch.utils.data import SequentialSampler
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging
from trl import DPOConfig, DPOTrainer

from common.documents import BLOCK
from common.models import new_language_model, parameter_count
from common.preference.adapters import Lora, attach
from common.preference.examples import encode_examples
from common.preference.finetuning import Objective, tuning_batches
from common.preference.references import reference_log_probs
from common.preference.tuning import Tuning
from common.tokenizer import train_tokenizer
from common.training import adamw, train

VOCABULARY, CONTEXT = 2048, 512
LORA = Lora(r=8, lora_alpha=16)
TOLERANCE = 1e-3  # of a step's loss
SAME, OWN = "TRL, our batches", "TRL, its batches"
WHY = """## Where the difference comes from

TRL sends a prompt through the model twice, once before each response, and takes logits at every position of every row.
Ours sends it once: both responses stand behind it in one row, where neither sees the other, and logits are taken where
a response's token is predicted. The longer the prompt, the more that saves. Rows of like length stand together, so
little is padded; given our batches TRL has that too, which its own sampling does not offer for pairs. What is left are
matrix products of the tokens that remain. Reference log-probabilities are outside of all times: TRL computes them when
a trainer is made, ours are kept for all runs that share model and data.
"""

Pairs = tuple[list[str], list[tuple[str, str]]]
Run = Callable[[], list[float]]


def dialogues(count: int, words: int, prompt: int, seed: int = 0) -> Pairs:
    """Made-up prompts with two responses each of about so many words; a prompt has `prompt` times as many."""
    rng = np.random.default_rng(seed)
    syllables = [first + vowel for first in "bdfgklmnprstvz" for vowel in "aeiou"]
    known = ["".join(rng.choice(syllables, rng.integers(1, 5))) for _ in range(2000)]

    def text(times: int) -> str:
        return " ".join(rng.choice(known, 2 + min(100, int(times * rng.lognormal(np.log(words), 0.6)))))

    return [text(prompt) for _ in range(count)], [(text(1), text(1)) for _ in range(count)]


def setting(width: int, layers: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A Llama with random weights, and a tokenizer with a chat template."""
    shape = {"hidden": width, "layers": layers, "heads": max(1, width // 64), "context": CONTEXT}
    model = new_language_model("llama", vocab_size=VOCABULARY, tied=False, embedding_std=0.3, seed=0, **shape).eval()
    prompts, responses = dialogues(300, 40, 1, seed=1)
    texts = [" ".join((prompt, *both)) for prompt, both in zip(prompts, responses, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        train_tokenizer(texts, VOCABULARY, Path(folder) / "tokenizer", chat=True)
        return model, AutoTokenizer.from_pretrained(Path(folder) / "tokenizer")


class InOrder(DPOTrainer):
    """TRL's trainer with its rows in the order in which they are given."""

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> SequentialSampler:
        return SequentialSampler(train_dataset)


class Candidates:
    """The same fine-tuning by ours and by TRL; each pass starts from the same adapter and trains on the next pairs."""

    def __init__(self, width: int, layers: int, texts: Pairs, tuning: Tuning):
        self.base, self.tokenizer = setting(width, layers)
        self.tuning, self.texts = tuning, texts
        self.examples = encode_examples(self.tokenizer, *texts, CONTEXT)
        self.reference = reference_log_probs(self.base, self.examples)
        self.batches = tuning_batches(self.base, self.examples, tuning, 0, 0, self.reference)

    def order(self) -> list[int]:
        """The numbers of the pairs of all our batches, up to the end of a block."""
        known = {tuple(row): number for number, row in enumerate(self.reference.astype(np.float32).tolist())}
        return [known[tuple(row)] for step in range(BLOCK) for row in self.batches(step)["reference"].tolist()]

    def adapted(self) -> tuple[PeftModel, dict[str, torch.Tensor]]:
        model = attach(copy.deepcopy(self.base), LORA, 0)
        return model, {name: weight.clone() for name, weight in model.state_dict().items() if "lora_" in name}

    def ours(self) -> Run:
        model, start = self.adapted()
        passed = 0

        def run() -> list[float]:
            nonlocal passed
            model.load_state_dict(start, strict=False)
            losses: list[torch.Tensor] = []
            objective, first = Objective(self.tuning.loss(), 0.0), passed * self.tuning.steps
            passed += 1

            def loss(model, batch):
                losses.append(objective(model, batch))
                return losses[-1]

            train(
                model,
                loss,
                lambda step: self.batches(first + step),
                self.tuning.plan(),
                optimizer=adamw(model, weight_decay=0.0, betas=self.tuning.betas),
                evaluate=objective.seen,
            )
            return [value.item() for value in losses]

        return run

    def trl(self, order: list[int], folder: str) -> Run:
        prompts, responses = self.texts
        rows = [
            {
                "prompt": [{"role": "user", "content": prompts[number]}],
                "chosen": [{"role": "assistant", "content": responses[number][0]}],
                "rejected": [{"role": "assistant", "content": responses[number][1]}],
            }
            for number in order
        ]
        model, start = self.adapted()
        options = DPOConfig(
            output_dir=folder,
            beta=self.tuning.beta,
            precompute_ref_log_probs=True,
            bf16=False,
            gradient_checkpointing=False,
            per_device_train_batch_size=self.tuning.batch_size,
            max_steps=self.tuning.steps,
            max_grad_norm=self.tuning.max_grad_norm,
            max_length=CONTEXT,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        made = InOrder(
            model=model, args=options, train_dataset=Dataset.from_list(rows), processing_class=self.tokenizer
        )
        made.remove_callback(PrinterCallback)
        whole, plan, count = made.train_dataset, self.tuning.plan(), self.tuning.steps * self.tuning.batch_size
        passed = 0

        def run() -> list[float]:
            nonlocal passed
            model.load_state_dict(start, strict=False)
            made.train_dataset = whole.select(range(passed * count, (passed + 1) * count))
            passed += 1
            made.optimizer = adamw(model, weight_decay=0.0, betas=self.tuning.betas)
            for group in made.optimizer.param_groups:
                group["lr"] = plan.learning_rate
            made.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                made.optimizer, lambda step: plan.rate(step) / plan.learning_rate
            )
            made.train()
            return [row["loss"] for row in made.state.log_history if "loss" in row]

        return run


def check_equal(ours: list[float], peer: list[float]) -> float:
    """Largest difference between the losses of a step; `RuntimeError` above `TOLERANCE`."""
    if len(ours) != len(peer):
        raise RuntimeError(f"TRL made {len(peer)} steps, ours {len(ours)}: not the same work")
    worst = float(np.abs(np.subtract(ours, peer)).max())
    if not worst <= TOLERANCE:
        raise RuntimeError(f"TRL's loss differs from ours by {worst:.2g}: not the same work")
    return worst


def speeds(times: pd.DataFrame, pairs: int) -> pd.DataFrame:
    """Pairs per CPU second over all rounds, each of so many; how many times ours is faster, with its 95% interval.

    The interval is by bootstrap over rounds: they have different pairs, so that only their sum is the same work.
    """
    found = {}
    for name in times:
        data = (times[name].to_numpy(), times[OURS].to_numpy())

        def ratio(peer, ours, axis=-1):
            return peer.sum(axis) / ours.sum(axis)

        interval = bootstrap(data, ratio, paired=True, method="percentile", rng=0).confidence_interval
        found[name] = [pairs * len(times) / times[name].sum(), ratio(*data), interval.low, interval.high]
    columns = ["pairs per CPU second", "ours is faster by", "low", "high"]
    return pd.DataFrame.from_dict(found, orient="index", columns=columns)


def section(width: int, layers: int, prompt: int, words: int, tuning: Tuning, rounds: int, profile: bool) -> str:
    """What the report says of one model and one length of prompts."""
    texts = dialogues(BLOCK * tuning.batch_size, words, prompt)
    made = Candidates(width, layers, texts, tuning)
    losses: dict[str, list[float]] = {OURS: [], SAME: [], OWN: []}
    with tempfile.TemporaryDirectory() as folder:
        shuffled = np.random.default_rng(0).permutation(len(texts[0])).tolist()
        runs = {OURS: made.ours(), SAME: made.trl(made.order(), folder), OWN: made.trl(shuffled, folder)}

        def noted(name: str) -> Callable[[], None]:
            return lambda: losses[name].extend(runs[name]())

        times = cpu_seconds({name: noted(name) for name in runs}, rounds)
    worst = check_equal(losses[OURS], losses[SAME])
    read = [len(each.prompt) for each in made.examples]
    answered = [len(ids) for each in made.examples for ids in each.completions]
    parts = [
        f"## {parameter_count(made.base) / 1e6:.2f}M parameters ({layers} layers of {width}), "
        f"prompts of {np.mean(read):.0f} tokens",
        f"{rounds} rounds of {tuning.steps} steps of {tuning.batch_size} pairs, responses of {np.mean(answered):.0f} "
        f"tokens. Largest difference between TRL's loss and ours at any step: {worst:.1g}.",
        markdown(speeds(times, tuning.steps * tuning.batch_size)),
    ]
    if profile:
        parts += ["Where ours spends its time:", markdown(operators(made.ours()))]
    return "\n\n".join(parts)


def main(
    width: Annotated[list[int], typer.Option(help="Of a model.", default_factory=lambda: [320, 320, 128])],
    layers: Annotated[list[int], typer.Option(help="Of the same models.", default_factory=lambda: [5, 5, 2])],
    prompt: Annotated[list[int], typer.Option(help="Times a response's length.", default_factory=lambda: [1, 4, 1])],
    words: Annotated[int, typer.Option(min=1, help="In a response, about.")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="In a round.")] = 4,
    batch_size: Annotated[int, typer.Option(min=1, help="Pairs in a step.")] = 4,
    rounds: Annotated[int, typer.Option(min=2, help="A first one more warms up.")] = 7,
    threads: Annotated[int, typer.Option(min=1, help="Of torch; the tokenizers have one.")] = 1,
    profile: Annotated[bool, typer.Option(help="Show where ours spends its time as well.")] = False,
    out: Annotated[Path | None, typer.Option(help="A file for the report, which is printed otherwise.")] = None,
) -> None:
    """Measure pairs per CPU second of preference tuning, ours and TRL's."""
    if not len(width) == len(layers) == len(prompt):
        raise typer.BadParameter(f"{len(width)} widths, {len(layers)} layers, {len(prompt)} prompts: give as many")
    if (rounds + 1) * steps > BLOCK:
        raise typer.BadParameter(f"{rounds} rounds and one more of {steps} steps, allowed: {BLOCK} steps in all")
    torch.set_num_threads(threads)
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1"}
    disable_progress_bars()
    logging.set_verbosity_error()
    tuning = Tuning(
        method="dpo", beta=0.1, lora=LORA, steps=steps, batch_size=batch_size, learning_rate=1e-3, schedule="cosine"
    )
    heading = (
        "# What preference tuning costs\n\n"
        f"Written by `python benchmarks/alignment.py{' --profile' if profile else ''}` (torch {torch.__version__} on a "
        f"CPU shared with other work, threads: {threads}, trl {importlib.metadata.version('trl')}): DPO of a low-rank "
        f"adapter (r={LORA.r}, all linear layers) on made-up pairs, Llamas with random weights in float32, vocabulary "
        f"{VOCABULARY}. Candidates take turns in random order; ratios are of the sums over rounds, with 95% intervals."
    )
    cases = zip(width, layers, prompt, strict=True)
    text = "\n\n".join([heading, *(section(*case, words, tuning, rounds, profile) for case in cases), WHY])
    if out is None:
        sys.stdout.write(text)
    else:
        out.write_text(text)


if __name__ == "__main__":
    typer.run(main)
