"""Multiple-choice scoring: requests per CPU second, with lm-eval beside.

    python benchmarks/scoring.py [--width 128 --layers 2 ...] [--words 1 ...] [--profile] [--out FILE]

A request is the log-likelihood of one choice after its question, from text to number. All candidates score the same
questions with the same model in one process and take turns in random order, so a slow moment of the machine hits them
alike; a ratio compares passes of the same round. CPU seconds are those of the whole process. With the extra `peers`
installed, lm-eval's HFLM runs beside at several batch sizes, and its scores must be ours.
"""

import importlib.metadata
import importlib.util
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import torch
import typer
from scipy.stats import quantile_test
from torch.profiler import ProfilerActivity
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from common.models import new_language_model, parameter_count
from common.scoring.likelihood import continuation_scores
from common.tokenizer import train_tokenizer

Scores = np.ndarray
Scorer = Callable[[], Scores]

VOCABULARY, CONTEXT, CHOICES = 2048, 256, 4
BATCH_SIZES = (1, 8, 64, "auto")  # of lm-eval
OURS = "ours"
TOLERANCE = 1e-5  # nats
WHY = """## Where the difference comes from

lm-eval sends a question through the model once for each of its choices, and takes logits and their logarithms at every
position. Ours sends it once for all choices, and takes logits where a choice's token is predicted. The longer the
choices are next to their question, the less there is to share. What is left is matrix products of the tokens that
remain and, around a small model, Python and the tokenizer. In `auto` lm-eval searches its batch size in every pass.
"""


def questions(count: int, words: int, seed: int = 0) -> tuple[list[str], list[list[str]]]:
    """Questions about made-up people and places, each with four choices of so many words."""
    rng = np.random.default_rng(seed)
    syllables = [first + vowel for first in "bdfgklmnprstvz" for vowel in "aeiou"]

    def name() -> str:
        return "".join(rng.choice(syllables, rng.integers(2, 5))).title()

    prompts = [f"Question: In which town was {name()} {name()} born?\nAnswer:" for _ in range(count)]
    return prompts, [["".join(f" {name()}" for _ in range(words)) for _ in range(CHOICES)] for _ in prompts]


def setting(width: int, layers: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A Llama with random weights, and a tokenizer trained on other questions of the kind."""
    shape = {"hidden": width, "layers": layers, "heads": max(1, width // 64), "context": CONTEXT}
    model = new_language_model("llama", vocab_size=VOCABULARY, tied=True, embedding_std=0.05, seed=0, **shape).eval()
    texts = [prompt + choice for prompt, several in zip(*questions(2000, 2, seed=1), strict=True) for choice in several]
    with tempfile.TemporaryDirectory() as folder:
        train_tokenizer(texts, VOCABULARY, Path(folder) / "tokenizer")
        return model, AutoTokenizer.from_pretrained(Path(folder) / "tokenizer")


def installed() -> bool:
    """Whether lm-eval can run beside."""
    return importlib.util.find_spec("lm_eval") is not None


def scorers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str], choices: list[list[str]]
) -> dict[str, Scorer]:
    """Ours, and lm-eval at each of its batch sizes if it is installed."""
    found: dict[str, Scorer] = {
        OURS: lambda: continuation_scores(model, tokenizer, prompts, choices)["log_likelihood"].to_numpy()
    }
    if installed():
        found |= {
            f"lm-eval, batch {size}": under_lm_eval(model, tokenizer, prompts, choices, size) for size in BATCH_SIZES
        }
    return found


def under_lm_eval(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    choices: list[list[str]],
    batch_size: int | str,
) -> Scorer:
    """lm-eval's own scoring of all requests, without its reading of tasks and its statistics."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    peer = HFLM(pretrained=model, tokenizer=tokenizer, device="cpu", batch_size=batch_size, max_length=CONTEXT)
    pairs = [(prompt, choice) for prompt, several in zip(prompts, choices, strict=True) for choice in several]

    def score() -> Scores:
        requests = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]
        return np.array([total for total, _ in peer.loglikelihood(requests, disable_tqdm=True)])

    return score


def check_equal(ours: Scores, peers: dict[str, Scores]) -> float:
    """Largest difference between ours and any peer's scores, nats; `RuntimeError` above `TOLERANCE`."""
    worst = 0.0
    for name, scores in peers.items():
        difference = float(np.abs(scores - ours).max())
        if not difference <= TOLERANCE:
            raise RuntimeError(f"{name} differs from ours by {difference:.2g} nats: not the same work")
        worst = max(worst, difference)
    return worst


def cpu_seconds(found: dict[str, Scorer], rounds: int) -> pd.DataFrame:
    """CPU time of every candidate, one row a round; the order within a round is random, and a first round warms up."""
    times = []
    for _ in range(rounds + 1):
        times.append({})
        for name in random.sample(list(found), len(found)):
            start = time.process_time()
            found[name]()
            times[-1][name] = time.process_time() - start
    return pd.DataFrame(times[1:], columns=list(found))


def speeds(times: pd.DataFrame, requests: int) -> pd.DataFrame:
    """Median requests per CPU second; how many times ours is faster in the same round, with its 95% interval."""
    faster = times.div(times[OURS], axis=0)
    intervals = {name: quantile_test(faster[name], p=0.5).confidence_interval(0.95) for name in faster}
    return pd.DataFrame(
        {
            "requests per CPU second": requests / times.median(),
            "ours is faster by": faster.median(),
            "low": {name: interval.low for name, interval in intervals.items()},
            "high": {name: interval.high for name, interval in intervals.items()},
        }
    )


def operators(scorer: Scorer) -> pd.DataFrame:
    """Where a pass spends its time under the profiler, by the clock: ms in each operator itself, and outside of all."""
    scorer()
    with (
        torch.profiler.profile(activities=[ProfilerActivity.CPU]) as profiler,
        torch.profiler.record_function("Python, tokenizer and profiler"),
    ):
        scorer()
    spent = pd.Series({event.key: event.self_cpu_time_total / 1000 for event in profiler.key_averages()})
    return pd.DataFrame({"ms": spent, "%": 100 * spent / spent.sum()}).sort_values("ms", ascending=False).head(11)


def markdown(table: pd.DataFrame) -> str:
    """A table of numbers in Markdown, to three digits."""
    rows = [["", *table.columns], ["---"] * (table.shape[1] + 1)]
    for name, *numbers in table.itertuples():
        rows.append([name, *(f"{number:.3g}" if number < 1000 else f"{number:,.0f}" for number in numbers)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def section(width: int, layers: int, words: int, items: int, rounds: int, profile: bool) -> str:
    """What the report says of one model and one length of choices."""
    prompts, choices = questions(items, words)
    model, tokenizer = setting(width, layers)
    found = scorers(model, tokenizer, prompts, choices)
    scores = {name: scorer() for name, scorer in found.items()}
    worst = check_equal(scores.pop(OURS), scores)
    lengths = [len(ids) for ids in tokenizer(prompts)["input_ids"]]
    tokens = continuation_scores(model, tokenizer, prompts, choices)["tokens"]
    parts = [
        f"## {parameter_count(model) / 1e6:.2f}M parameters ({layers} layers of {width}), words in a choice: {words}",
        f"{items} questions of {np.mean(lengths):.1f} tokens with {CHOICES} choices of {tokens.mean():.1f} tokens. "
        f"Largest difference of a peer's score from ours: {worst:.1g} nats.",
        markdown(speeds(cpu_seconds(found, rounds), items * CHOICES)),
    ]
    if profile:
        parts += ["Where ours spends its time:", markdown(operators(found[OURS]))]
    return "\n\n".join(parts)


def main(
    width: Annotated[list[int], typer.Option(help="Of a model; several models.", default_factory=lambda: [128, 384])],
    layers: Annotated[list[int], typer.Option(help="Of the same models.", default_factory=lambda: [2, 5])],
    words: Annotated[list[int], typer.Option(help="In a choice.", default_factory=lambda: [1, 2])],
    items: Annotated[int, typer.Option(min=1, help="Questions.")] = 50,
    rounds: Annotated[int, typer.Option(min=6, help="Six are the fewest that give a 95% interval.")] = 10,
    threads: Annotated[int, typer.Option(min=1, help="Of torch; the tokenizers have one.")] = 1,
    profile: Annotated[bool, typer.Option(help="Show where ours spends its time as well.")] = False,
    out: Annotated[Path | None, typer.Option(help="A file for the report, which is printed otherwise.")] = None,
) -> None:
    """Measure requests per CPU second of multiple-choice scoring, ours and lm-eval's."""
    if len(width) != len(layers):
        raise typer.BadParameter(f"{len(width)} widths and {len(layers)} numbers of layers: give each model both")
    torch.set_num_threads(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    peer = f"lm-eval {importlib.metadata.version('lm_eval')}" if installed() else "lm-eval is not installed"
    heading = (
        "# What multiple-choice scoring costs\n\n"
        f"Written by `python benchmarks/scoring.py{' --profile' if profile else ''}` (torch {torch.__version__} on a "
        f"CPU shared with other work, threads: {threads}, rounds: {rounds}, {peer}): scores of every choice of made-up "
        "questions, from text to number, by Llamas with random weights in float32. Medians; candidates take turns in "
        "random order within a round, and ratios compare passes of the same round, with 95% intervals."
    )
    cases = [(*sizes, count) for sizes in zip(width, layers, strict=True) for count in words]
    text = "\n\n".join([heading, *(section(*case, items, rounds, profile) for case in cases), WHY])
    if out is None:
        sys.stdout.write(text)
    else:
        out.write_text(text)


if __name__ == "__main__":
    typer.run(main)
