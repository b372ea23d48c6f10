"""What studies train at a scale: each model, and how much it sees at once."""

import math
from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from torch import nn
from transformers import AutoModelForCausalLM

from common.architectures import Shape, build
from common.bases.given import Given
from common.bases.locating import config_of
from common.bases.start import given_model
from common.errors import UserError
from common.expansion.sizes import grown_sizes, resized
from common.footprint.counting import ALL_LINEAR, Training
from common.models import new_language_model
from common.notebooks import forked_from
from common.preference.finetuning import COLUMNS
from common.preference.losses import LOSSES
from common.scales import section

Knobs = Mapping[str, Any]


def trainings(study: str, scale: str) -> list[Training]:
    """The language models that a study trains at a scale, each at its largest batch; `UserError` as `kind_of`."""
    return [Training(study, *each) for each in OF_STUDY[kind_of(study)](section(scale, study), scale)]


def kind_of(study: str) -> str:
    """Which of the known studies a study is, or was forked from; `UserError` where it is neither."""
    if study in OF_STUDY:
        return study
    parent = forked_from(study)
    if parent is None:
        raise UserError(f"of {study} it is not known what it trains, known: {', '.join(OF_STUDY)} and their forks")
    return kind_of(parent)


def _plain(shape: Knobs, vocab_size: int) -> Callable[[], nn.Module]:
    size = {name: shape[name] for name in ("family", "hidden", "layers", "heads", "context", "embedding_std")}
    return lambda: new_language_model(**size, tied=shape.get("tied", False), vocab_size=vocab_size, seed=0)


def _start(knobs: Knobs, scale: str) -> tuple[Callable[[], nn.Module], list[tuple]]:
    """A study's base model, and its training: none of a given model that is taken as it is."""
    base = knobs["base"]
    given = given_model(base, knobs["vocab_size"])
    if given is None:
        make = _plain(base, knobs["vocab_size"])
        return make, [("base", make, base["batch_size"], base["context"])]
    make, further = _given(given, scale), given.further
    return make, [("base", make, further.batch_size, given.context, further.precision)] if further else []


def _given(given: Given, scale: str) -> Callable[[], nn.Module]:
    config = config_of(given, scale)
    return lambda: AutoModelForCausalLM.from_config(config)


def _tuned(name: str, make: Callable[[], nn.Module], tuning: Knobs, context: int) -> tuple:
    rows = tuning["batch_size"] * completions(tuning["method"]) + tuning.get("replay_batch_size", 0)
    lora = tuning.get("lora") or {}
    targets = lora.get("target_modules", ALL_LINEAR)
    return name, make, rows, context, tuning.get("precision", "no"), lora.get("r", 0), targets, True


def completions(method: str) -> int:
    """How many completions of an example a method of fine-tuning puts through the model."""
    loss = LOSSES.get(method, LOSSES["sigmoid"])  # DPO, whose losses all take as many
    return len(signature(loss).parameters.keys() & {*COLUMNS})


def _bases(knobs: Knobs, scale: str) -> list[tuple]:
    return [
        (name, _plain(base, knobs["vocab_size"]), base["batch_size"], base["context"])
        for name, base in knobs["bases"].items()
    ]


def _merging(knobs: Knobs, scale: str) -> list[tuple]:
    alignment, expertise, context = knobs["alignment"], knobs["expertise"], knobs["base"]["context"]
    make, base = _start(knobs, scale)
    rival = {**knobs["rivalry"], "method": "dpo"}
    return [
        *base,
        *(_tuned(f"generalist, {name}", make, alignment[name], context) for name in ("sft", "dpo")),
        ("expert", make, expertise["batch_size"], context),
        _tuned("rival, LoRA", make, rival, context),
        _tuned("rival", make, {**rival, "lora": {}}, context),
    ]


def _alignment(knobs: Knobs, scale: str) -> list[tuple]:
    make, found = _start(knobs, scale)
    instruction, reviews, context = knobs["instruction"], knobs["reviews"], knobs["base"]["context"]
    tunings = {} if "model" in instruction else {"instruct": instruction["tuning"]}
    if knobs["losses"]:
        tunings |= {"reader": reviews["tuning"], "pairs of reviews": reviews["recipe"]}
    tunings |= knobs["recipes"]
    found += [_tuned(name, make, tuning, context) for name, tuning in tunings.items()]
    if "model" in instruction:  # of other sizes than the base, it may be
        given = Given.model_validate(instruction)
        other, recipes = _given(given, scale), knobs["recipes"].items()
        found += [_tuned(f"instruct, {name}", other, tuning, given.context) for name, tuning in recipes]
    return found


def _expansion(knobs: Knobs, scale: str) -> list[tuple]:
    network = knobs["language"]
    base = _plain(network, 256)  # bytes

    def grown(to: Knobs) -> Callable[[], nn.Module]:
        def make() -> nn.Module:
            config = base().config
            return AutoModelForCausalLM.from_config(resized(config, grown_sizes(config, to)))

        return make

    made = {"base": base, **{name: grown(each["to"]) for name, each in knobs["languages"].items()}}
    return [(name, make, network["batch"], network["context"]) for name, make in made.items()]


def _quantization(knobs: Knobs, scale: str) -> list[tuple]:
    shape, schedule = knobs["shape"], knobs["schedule"]
    vocab_size = section(scale, "tokenizer")["vocab_size"]
    families = dict.fromkeys((shape["family"], "llama"))
    return [
        (name, _plain({**shape, "family": name}, vocab_size), schedule["batch_size"], shape["context"],
         schedule["precision"])
        for name in families
    ]  # fmt: skip


NAMES = 512  # tokens of names on top of the words of hallucination's world, about
PADDED = 3.3
"""Tokens of hallucination's largest batch, for each that it is told: rows are as many as their kind's mean length says,
and as long as the longest of them, in prose more than three times that.
"""


def _hallucination(knobs: Knobs, scale: str) -> list[tuple]:
    vocab_size, found = knobs["world"]["vocab_size"] + NAMES, []
    tokens = PADDED * max(knobs[phase]["tokens"] for phase in ("schedule", "tuning"))

    def make(arm: Knobs) -> Callable[[], nn.Module]:
        size = {name: arm[name] for name in ("context", "parameters")}
        shape = Shape.model_validate(arm["shape"])
        return lambda: build(arm["family"], shape, vocab_size=vocab_size, seed=0, **size)

    for size, arms in {"": knobs["arms"], **knobs["smaller"]}.items():
        for name, arm in arms.items():
            rows = math.ceil(tokens / arm["context"])
            found.append((f"{name}, {size}" if size else name, make(arm), rows, arm["context"]))
    return found


OF_STUDY: dict[str, Callable[[Knobs, str], list[tuple]]] = {
    "alignment": _alignment,
    "bases": _bases,
    "expansion": _expansion,
    "hallucination": _hallucination,
    "merging": _merging,
    "quantization": _quantization,
}
