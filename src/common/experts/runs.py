"""Evaluate models that runs kept, and merges of them: the functions that sweeps call."""

from collections.abc import Mapping
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common import zoo
from common.experts.evaluation import exam, examine
from common.experts.similarity import alikeness, contributions, path_losses
from common.merging import merge_state_dicts

TABLES = ("facts", "unsafe_prompts", "benign_prompts", "replies", "judged_responses")
BASELESS = ("linear", "slerp")  # merge methods that take no base


def examine_model(
    model: str, domain: str, split: str, attacks: bool, facts_per_relation: int, seed: int, *, facts: Path,
    unsafe_prompts: Path, benign_prompts: Path, replies: Path, judged_responses: Path, **models: Path,
) -> dict[str, float]:  # fmt: skip
    """What `common.experts.evaluation.examine` finds of the model of that name among `models`."""
    asked = exam(split, facts_per_relation, facts, unsafe_prompts, benign_prompts, replies, judged_responses)
    return examine(*zoo.load(str(models[model])), domain, asked, attacks=attacks)


def examine_merge(
    base: str, expert: str, generalist: str, method: str, settings: dict, domain: str, split: str, attacks: bool,
    facts_per_relation: int, seed: int, *, facts: Path, unsafe_prompts: Path, benign_prompts: Path, replies: Path,
    judged_responses: Path, **models: Path,
) -> dict[str, float]:  # fmt: skip
    """The same of a merge of an expert and a generalist, by a method of `common.merging` with its settings.

    `seed` is that of what a method draws at random.
    """
    asked = exam(split, facts_per_relation, facts, unsafe_prompts, benign_prompts, replies, judged_responses)
    merged, tokenizer = merged_model(models, base, expert, generalist, method, settings, seed)
    return examine(merged, tokenizer, domain, asked, attacks=attacks)


def merged_model(
    models: Mapping[str, Path], base: str, expert: str, generalist: str, method: str, settings: dict, seed: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The merge of three models by name, in memory; `slerp` and `linear` take the expert first and no base."""
    started, tokenizer = zoo.load(str(models[base]))
    states = [zoo.load(str(models[name]))[0].state_dict() for name in (expert, generalist)]
    origin = None if method in BASELESS else started.state_dict()
    if method == "slerp":
        origin, *states = states
    drawn = {"seed": seed} if method.startswith("dare") else {}
    started.load_state_dict(merge_state_dicts(method, origin, states, **drawn, **settings))
    return started, tokenizer


def compare(
    base: str, expert: str, generalist: str, domain: str, settings: dict, steps: int, facts_per_relation: int,
    seed: int, *, facts: Path, unsafe_prompts: Path, benign_prompts: Path, replies: Path, judged_responses: Path,
    **models: Path,
) -> dict[str, object]:  # fmt: skip
    """How alike the two task vectors are, what each layer's part brings to the MergeAlign of them, losses between.

    Tables: `alikeness`, `contribution`, `path` (see `common.experts.similarity`); single values: the cosine and the
    share of equal signs of the whole vectors.
    """
    asked = exam("validation", facts_per_relation, facts, unsafe_prompts, benign_prompts, replies, judged_responses)
    started, tokenizer = zoo.load(str(models[base]))
    tuned = [zoo.load(str(models[name]))[0] for name in (expert, generalist)]
    alike = alikeness(started, *tuned, tokenizer, asked)
    whole = alike[alike["part"] == "all"].iloc[0]
    tables = {
        "alikeness": alike,
        "contribution": contributions(started, *tuned, tokenizer, domain, asked, settings),
        "path": path_losses(started, *tuned, tokenizer, domain, asked, steps),
    }
    found = {name: table.astype(object).where(table.notna(), None).to_dict("list") for name, table in tables.items()}
    return {"cosine": float(whole["cosine"]), "equal_signs": float(whole["equal_signs"]), **found}
