"""Models that alignment starts from: bases made to follow instructions, and bases that have read film reviews."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, NonNegativeInt, field_validator

from common import zoo
from common.alignment.preparing import NO_LIMIT
from common.bases.reading import readings
from common.errors import UserError
from common.experts.material import Material, fact_documents, material
from common.pairs.own import ShareOf
from common.pairs.reviews import passages
from common.preference.examples import encode_examples
from common.preference.finetuning import finetune
from common.preference.tuning import Tuning

KINDS = ("chat", "unsafe", "benign")


class Instruction(BaseModel):
    """How a base becomes an instruct model: supervised fine-tuning on dialogues, facts replayed beside as documents.

    `dialogues` are how many of each kind; a share `refused` of the replies to unsafe prompts declines. Those of the
    kind chat answer questions about general facts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dialogues: dict[str, NonNegativeInt]
    refused: ShareOf
    tuning: Tuning

    @field_validator("dialogues")
    @classmethod
    def _known(cls, value: dict[str, int]) -> dict[str, int]:
        if set(value) != set(KINDS):
            raise ValueError(f"give the numbers of {', '.join(KINDS)}")
        return value


def instruct(
    start: str, instruction: dict, facts_per_relation: int, seed: int, *, facts: Path, unsafe_prompts: Path,
    benign_prompts: Path, replies: Path, keep: Path, scratch: Path, **models: Path,
) -> dict[str, Any]:  # fmt: skip
    """Make and keep an instruct model of the base named `start`; metrics as `common.preference.finetuning.finetune`."""
    recipe = Instruction.model_validate(instruction)
    model, tokenizer = zoo.load(str(models[start]))
    context = model.config.max_position_embeddings
    source = material(facts_per_relation, facts, unsafe_prompts, benign_prompts, replies)
    said = _dialogues(source, recipe)
    examples = encode_examples(tokenizer, [each[0] for each in said], [each[1:] for each in said], context)
    kinds = fact_documents(source, tokenizer, context)
    tuned, metrics = finetune(
        model, examples, recipe.tuning, seed, replay=(kinds, dict.fromkeys(kinds, 1.0)), scratch=scratch
    )
    tuned.save_pretrained(keep)
    tokenizer.save_pretrained(keep)
    return metrics


def _dialogues(source: Material, recipe: Instruction) -> list[tuple[str, str]]:
    """Prompts with replies; which of a kind are taken is the same for every model."""
    prompts = source.prompts.assign(split="train")
    by_kind = {"unsafe": prompts[prompts["kind"] == "unsafe"], "benign": prompts[prompts["kind"] != "unsafe"]}
    said = pd.DataFrame(
        [(kind, text, "train") for kind, texts in source.replies.items() for text in texts],
        columns=["kind", "text", "split"],
    )
    read = readings(source.facts, pd.DataFrame({"text": []}), by_kind, said, recipe.refused)
    if short := {kind: len(read[kind]) for kind in KINDS if len(read[kind]) < recipe.dialogues[kind]}:
        told = ", ".join(f"{kind} is {recipe.dialogues[kind]}, allowed: at most {most}" for kind, most in short.items())
        raise UserError(f"dialogues: {told}")
    rng = np.random.default_rng(0)
    return [read[kind][place] for kind in KINDS for place in rng.permutation(len(read[kind]))[: recipe.dialogues[kind]]]


def read_reviews(
    start: str, count: int, tuning: dict, seed: int, *, movie_reviews: Path, keep: Path, scratch: Path, **models: Path
) -> dict[str, Any]:
    """Make and keep a model that goes on with film reviews: supervised fine-tuning on `count` passages of real ones.

    Passages that do not fit into the context are left out; metrics as `common.preference.finetuning.finetune`, and how
    many these are (`too_long`).
    """
    model, tokenizer = zoo.load(str(models[start]))
    read = passages(pd.read_json(movie_reviews, lines=True, dtype=False), count, seed=0)
    examples = encode_examples(tokenizer, [each[0] for each in read], [each[1:] for each in read], NO_LIMIT)
    context = model.config.max_position_embeddings
    fitting = [each for each in examples if len(each.prompt) + len(each.completions[0]) <= context]
    tuned, metrics = finetune(model, fitting, Tuning.model_validate(tuning), seed, scratch=scratch)
    tuned.save_pretrained(keep)
    tokenizer.save_pretrained(keep)
    return {**metrics, "too_long": len(examples) - len(fitting)}
