"""Trainings of every kind on a pretended GPU (see pretended.py), and where the host waits for it in their steps.

Prints as JSON, by training, the waits that are more in twice as many steps with as many looks at losses.
"""

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from common.architectures import FAMILIES
from common.distributed import shared_loss
from common.documents import Document, document_loss, mixed_batches
from common.growing.design import Pace
from common.growing.examination import trained_on
from common.growing.networks import network_of, new_network
from common.growing.tasks import task_of
from common.hallucination.pretraining import instruct, pretrain
from common.hallucination.texts import EXERCISES
from common.models import new_language_model
from common.preference.examples import Example, with_mismatched
from common.preference.finetuning import finetune
from common.preference.tuning import Tuning
from common.quantization import quantize, quantize_moments
from common.training import Plan, adamw, language_loss, train
from grown import LANGUAGE, PERCEPTRON
from grown import write_tables as digits_and_texts
from pretended import pretended
from tiny import random_model
from waited import WAITS
from worlds import WORLD, made_tokenizer, write_tables

STEPS = 2
RECIPES = (
    "full precision",
    "W8 channel + A8 token asymmetric + G8 tensor + m1 8 group of 8 + m2 8 channel, straight-through",
    "W4 group of 8 asymmetric + A4 group of 8 + G4 token, input branch",
    "m2 8 tensor log",
    "m1 4 channel + m2 8 channel log-stochastic",
)
METHODS = {
    "sft": {}, "dpo": {"beta": 0.5}, "kto": {"beta": 0.5}, "bco": {"beta": 0.5}, "orpo": {"beta": 0.5},
    "simpo": {"beta": 2.0, "simpo_gamma": 0.5}, "poft": {},
}  # fmt: skip
COLUMNS = {"dpo": 2, "kto": 3, "bco": 2, "poft": 1}  # of reference log-probabilities
MORE = {"lora": {"r": 2, "lora_alpha": 4, "lora_dropout": 0.1}, "replay_weight": 0.5, "replay_batch_size": 4}
RNG = np.random.default_rng(0)
DOCUMENTS = {"prose": [Document(RNG.integers(1, 300, RNG.integers(5, 20)), start=3) for _ in range(40)]}, {"prose": 1.0}
PAIRS = [
    Example(tuple(RNG.integers(1, 300, size).tolist()), ((7,) * (1 + size % 3), (9, 8, 9)[: 1 + size % 2]))
    for size in RNG.integers(2, 6, 24)
]


def waits_in_steps(training: Callable[[int], object]) -> list[str]:
    """What a training waits for more often in twice as many steps."""
    found = []
    for steps in (STEPS, 2 * STEPS):
        WAITS.clear()
        with pretended():
            training(steps)
        found.append(WAITS.copy())
    return sorted((found[1] - found[0]).elements())


def language(family):
    size = {"hidden": 16, "layers": 2, "heads": 2, "context": 16, "embedding_std": 0.3, "vocab_size": 64}
    return new_language_model(family, tied=False, seed=0, **size)


def texts(step):
    return {"input_ids": torch.randint(64, (4, 16), generator=torch.Generator().manual_seed(step))}


def quantized(family, recipe, steps, loss=language_loss):
    model = language(family)
    quantize(model, recipe)
    optimizer = adamw(model, weight_decay=0.1)
    quantize_moments(optimizer, model, recipe)
    train(model, loss, texts, Plan(steps, 1e-3, 1, log_every=steps), optimizer=optimizer)


def asking(model, batch):
    """A loss that a step waits for."""
    loss = language_loss(model, batch)
    return loss if loss.item() > 0 else -loss


def tuned(name, method, more, steps):
    tuning = Tuning(method=method, steps=steps, batch_size=4, learning_rate=1e-3, **METHODS[method] | more)
    examples = with_mismatched(PAIRS, 48) if method == "kto" else PAIRS
    reference = np.full((len(PAIRS), COLUMNS[method]), -5.0) if method in COLUMNS else None
    finetune(random_model(name), examples, tuning, 0, reference=reference, replay=DOCUMENTS if more else None)


def read(loss, steps):
    model, batch = random_model("llama"), mixed_batches(*DOCUMENTS, 4, 0, padding=0)
    plan = Plan(steps, 1e-3, 1, log_every=steps)
    with patch("torch.distributed.all_reduce"):
        train(model, loss, batch, plan, optimizer=adamw(model, weight_decay=0.1))


def trainings(folder: Path) -> Iterator[tuple[str, Callable[[int], object]]]:
    for recipe in RECIPES:
        for family in ("gpt2", "llama"):
            yield f"{recipe} of {family}", partial(quantized, family, recipe)
    yield "a loss that asks", partial(quantized, "llama", "full precision", loss=asking)
    for method in METHODS:
        yield method, partial(tuned, "llama", method, {})
    for method in ("sft", "dpo", "orpo"):
        yield f"{method} of an adapter, with replay", partial(tuned, "llama", method, MORE)
    for name in ("llama, eager", "gpt2", "mamba2", "recurrent_gemma, hybrid"):
        yield f"dpo of {name}", partial(tuned, name, "dpo", {})
    yield "documents", partial(read, document_loss)
    yield "documents shared by processes", partial(read, shared_loss(document_loss, 0, 2))
    yield from grown(folder)
    yield from hallucinating(folder)


def grown(folder: Path) -> Iterator[tuple[str, Callable[[int], object]]]:
    files = digits_and_texts(folder)
    # Some epochs: each has an order of its own.
    for name, knobs in {"mnist": PERCEPTRON | {"batch": 40}, "text": LANGUAGE}.items():

        def further(steps: int, name: str = name, knobs: dict = knobs) -> None:
            network = network_of(name, knobs)
            task = task_of(name, network, 8, **files)
            trained_on(new_network(network, task, 0), task, Pace(steps=steps, learning_rate=0.01, warmup=1), 1, 0)

        yield f"grown on {name}", further


def hallucinating(folder: Path) -> Iterator[tuple[str, Callable[[int], object]]]:
    places = map(str, count())
    (folder / "tables").mkdir()
    tables = write_tables(folder / "tables")
    words = made_tokenizer(folder / "words", tables)
    shape = {"hidden": 16, "layers": 2, "heads": 2, "blocks": ["recurrent", "attention"]}

    def given(kinds: tuple[str, ...], steps: int) -> dict:
        (own := folder / next(places)).mkdir()
        schedule = {"shares": dict.fromkeys(kinds, 1.0), "steps": steps, "tokens": 100, "warmup": 1, "weight_decay": 0}
        cell = {"world": WORLD, "schedule": schedule, "learning_rate": 0.01, "seed": 0}
        return cell | tables | {"keep": own, "scratch": own / "scratch"}

    def new(family: str, steps: int) -> Path:
        size = {"family": family, "shape": shape, "parameters": 30_000, "context": 128}
        cell = given(("facts", "stories"), steps)
        pretrain(size, learnt=9.0, tokenizer=words, **cell)
        return cell["keep"]

    for family in FAMILIES:
        yield f"a world's {family}", partial(new, family)
    base = new("llama", 2)
    yield "exercises", lambda steps: instruct("base", context=128, **given(EXERCISES, steps), base=base)


def main() -> None:
    torch.set_num_threads(1)
    with (
        tempfile.TemporaryDirectory() as folder,
        patch("common.preference.tuning.POINTS", 1),
        patch("common.hallucination.pretraining.POINTS", 1),
    ):
        found = {name: waits_in_steps(training) for name, training in trainings(Path(folder))}
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
