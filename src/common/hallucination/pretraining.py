"""Pre-train a model of an architecture on a seed's world, and tune it to exercises: what sweeps over models call."""

from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from common.architectures import Family, Shape, build
from common.architectures.recurrence import with_parallel_scan
from common.documents import document_loss
from common.errors import UserError
from common.hallucination.batches import Encoded, batches_by_kind, collate, encode
from common.hallucination.reading import World, texts_of
from common.hallucination.texts import EXERCISES, KINDS, Text
from common.hallucination.wording import open_end
from common.hallucination.world import QUARTILES
from common.training import Plan, Trained, adamw, train
from common.zoo import load

POINTS = 10  # of a learning curve
PROBED = 48  # texts of each kind whose loss a learning curve shows


class Schedule(BaseModel):
    """What is read how much, and how fast."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shares: dict[str, Annotated[float, Field(ge=0)]]  # of steps, by kind of text; relative
    steps: PositiveInt
    tokens: PositiveInt  # of a batch, about
    warmup: PositiveInt
    weight_decay: Annotated[float, Field(ge=0)]

    @model_validator(mode="after")
    def _makes_sense(self) -> "Schedule":
        if unknown := self.shares.keys() - set(KINDS):
            raise ValueError(f"shares: {', '.join(sorted(unknown))}, allowed: {', '.join(KINDS)}")
        return self


class Architecture(BaseModel):
    """A family of models, and the size of this one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    family: Family
    shape: Shape
    parameters: PositiveInt
    context: PositiveInt  # tokens of the longest text


def pretrain(
    architecture: dict, world: dict, schedule: dict, learning_rate: PositiveFloat, learnt: PositiveFloat, seed: int, *,
    tokenizer: Path, facts: Path, sotu: Path, keep: Path, scratch: Path,
) -> dict:  # fmt: skip
    """Train a new model and keep it as a Hugging Face folder, tokenizer included.

    `tokenizer` is what `fit_tokenizer` kept. `seed` changes the initial weights, the order of the data, and which facts
    are frequent: models of one seed and any architecture read the same texts in the same order. The table `curve` has
    the losses of `probe` while it learns. `learnt_facts` says whether that of the most
    frequent facts ended below `learnt` nats.
    """
    knobs, plan = Architecture.model_validate(architecture), Schedule.model_validate(schedule)
    words = AutoTokenizer.from_pretrained(tokenizer)
    table, texts = texts_of(World.model_validate(world), seed, facts, sotu)
    size = {"vocab_size": len(words), "context": knobs.context, "parameters": knobs.parameters}
    model = build(knobs.family, knobs.shape, **size, seed=seed)
    trained = _learn(model, words, table, texts, plan, learning_rate, seed, knobs.context, scratch / "checkpoint")
    model.save_pretrained(keep)
    words.save_pretrained(keep)
    told = _told(trained)
    return told | {"learnt_facts": told[f"loss of recall, {QUARTILES[0]}"] < learnt}


def instruct(
    model: str, world: dict, schedule: dict, learning_rate: PositiveFloat, seed: int, context: PositiveInt, *,
    facts: Path, sotu: Path, keep: Path, scratch: Path, **models: Path,
) -> dict:  # fmt: skip
    """Tune the model of that name among `models` to the exercises of its seed's world, and keep it likewise."""
    plan = Schedule.model_validate(schedule)
    if model not in models:
        raise UserError(f"no model {model!r}; there are {', '.join(models)}")
    loaded, words = load(str(models[model]))
    table, texts = texts_of(World.model_validate(world), seed, facts, sotu)
    trained = _learn(
        with_parallel_scan(loaded), words, table, texts, plan, learning_rate, seed, context, scratch / "checkpoint"
    )
    loaded.save_pretrained(keep)
    words.save_pretrained(keep)
    return _told(trained)


def probes(table: pd.DataFrame, texts: dict[str, list[Text]]) -> dict[str, list[Text]]:
    """Texts whose losses tell how far a model is: objects of facts by quartile, and what stories and exercises ask."""
    asked = {
        f"recall, {quartile}": [
            ((open_end(row.relation, row.subject), False), (f" {row.object}", True), (".", False))
            for row in table[table["quartile"] == quartile].head(PROBED).itertuples()
        ]
        for quartile in QUARTILES
    }
    stories = sorted(texts["stories"][-PROBED:], key=len)
    return asked | {"stories": stories, "exercises": [text for kind in EXERCISES for text in texts[kind][-8:]]}


def _learn(
    model: PreTrainedModel, words: PreTrainedTokenizerBase, table: pd.DataFrame, texts: dict[str, list[Text]],
    schedule: Schedule, learning_rate: float, seed: int, context: int, checkpoint: Path,
) -> Trained:  # fmt: skip
    kinds = {name: encode(words, texts[name], context) for name, share in schedule.shares.items() if share}
    probed = {name: encode(words, several, context) for name, several in probes(table, texts).items()}
    plan = Plan(schedule.steps, learning_rate, schedule.warmup, log_every=max(1, schedule.steps // POINTS))
    return train(
        model,
        document_loss,
        batches_by_kind(kinds, schedule.shares, schedule.tokens, seed, words.pad_token_id),
        plan,
        optimizer=adamw(model, weight_decay=schedule.weight_decay, betas=(0.9, 0.98)),
        evaluate=lambda bare: probe(bare, probed, words.pad_token_id),
        checkpoint=checkpoint,
        checkpoint_every=plan.log_every * 5,
    )


@torch.no_grad()
def probe(model: PreTrainedModel, probed: dict[str, list[Encoded]], padding: int) -> dict[str, float]:
    """Mean loss in nats of what is learnt of each kind's texts."""
    found = {}
    for name, rows in probed.items():
        batch = {key: tensor.to(model.device) for key, tensor in collate(rows, padding).items()}
        found[name] = document_loss(model, batch).item()
    return found


def _told(trained: Trained) -> dict:
    last = trained.curve[-1]
    curve = {name: [row[name] for row in trained.curve] for name in last}
    return {**{f"loss of {name}": last[name] for name in list(last)[3:]}, **trained.used, "curve": curve}
