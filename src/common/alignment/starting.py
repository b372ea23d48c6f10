"""Models that alignment starts from: bases made to follow instructions, and bases that have read film reviews."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, NonNegativeInt, field_validator

from common import zoo
from common.bases.reading import readings
from common.experts.material import Material, fact_documents, material
from common.pairs.own import ShareOf
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
    kinds = fact_documents(source, tokenizer, context, held_out=True)
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
    rng = np.random.default_rng(0)
    return [read[kind][place] for kind in KINDS for place in rng.permutation(len(read[kind]))[: recipe.dialogues[kind]]]
