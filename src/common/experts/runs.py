"""Evaluate models that runs kept, and merges of them: the functions that sweeps call."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from common import zoo
from common.experts.evaluation import exam, examine
from common.experts.similarity import alikeness, contributions, path_losses
from common.judges.others import Judges
from common.merging import merge_state_dicts
from common.merging.recipe import takes_base
from common.merging.states import HEAD, tied_embedding
from common.models import host_state

State = Mapping[str, Tensor]


def examine_model(
    model: str, domain: str, split: str, attacks: bool, facts_per_relation: int, prompts: int, seed: int,
    judges: dict | None = None, *, facts: Path, unsafe_prompts: Path, benign_prompts: Path, replies: Path,
    judged_responses: Path, **models: Path,
) -> dict[str, float]:  # fmt: skip
    """What `common.experts.evaluation.examine` finds of the model of that name among `models`.

    `judges`: others' (see `common.judges.others.Judges`), whose folders are among `models` too; None: ours.
    """
    asked = exam(
        split, facts_per_relation, prompts, facts, unsafe_prompts, benign_prompts, replies, judged_responses,
        Judges.model_validate(judges or {}).found(models),
    )  # fmt: skip
    return examine(*zoo.load(str(models[model])), domain, asked, attacks=attacks)


def examine_merge(
    base: str, expert: str, generalist: str, method: str, settings: dict, domain: str, split: str, attacks: bool,
    facts_per_relation: int, prompts: int, seed: int, judges: dict | None = None, *, facts: Path, unsafe_prompts: Path,
    benign_prompts: Path, replies: Path, judged_responses: Path, **models: Path,
) -> dict[str, float]:  # fmt: skip
    """The same of a merge of an expert and a generalist, and the `cosine` of their task vectors.

    `method` and `settings` are those of `common.merging`; SLERP goes from the expert to the generalist. `seed` is that
    of what a method draws at random. Raises `RuntimeError` where the merge is one of the models that it is made of.
    """
    asked = exam(
        split, facts_per_relation, prompts, facts, unsafe_prompts, benign_prompts, replies, judged_responses,
        Judges.model_validate(judges or {}).found(models),
    )  # fmt: skip
    model, tokenizer = zoo.load(str(models[base]))
    origin = host_state(model)
    states = [host_state(zoo.load(str(models[name]))[0]) for name in (expert, generalist)]
    merged = merged_state(method, origin, *states, settings, seed)
    for name, state in zip((base, expert, generalist), (origin, *states), strict=True):
        if all(torch.equal(merged[key], state[key]) for key in merged):
            raise RuntimeError(f"{method} {settings} gives {name} itself: it merged nothing")
    alike = cosine(origin, *states)
    model.load_state_dict(merged)
    return {"cosine": alike} | examine(model, tokenizer, domain, asked, attacks=attacks)


def merged_state(method: str, base: State, expert: State, generalist: State, settings: dict, seed: int) -> State:
    """The merge of three models' weights, in memory."""
    drawn = {"seed": seed} if method.startswith("dare") else {}
    if method == "slerp":
        return merge_state_dicts(method, expert, [generalist], **settings)
    origin = base if takes_base(method) else None
    return merge_state_dicts(method, origin, [expert, generalist], **drawn, **settings)


def cosine(base: State, expert: State, generalist: State) -> float:
    """Of the two task vectors, all weights as one vector; a head tied to the embedding counts once."""
    tied = tied_embedding([base, expert, generalist])
    names = [name for name in base if name != HEAD or not tied]
    vectors = [torch.cat([(state[n] - base[n]).double().flatten() for n in names]) for state in (expert, generalist)]
    return torch.nn.functional.cosine_similarity(*vectors, dim=0).item()


def compare(
    base: str, expert: str, generalist: str, domain: str, settings: dict, places: int, facts_per_relation: int,
    prompts: int, seed: int, *, facts: Path, unsafe_prompts: Path, benign_prompts: Path, replies: Path,
    judged_responses: Path, **models: Path,
) -> dict[str, object]:  # fmt: skip
    """How alike the two task vectors are, what each layer's part brings to the MergeAlign of them, losses between.

    Tables: `alikeness`, `contribution`, `path` (see `common.experts.similarity`); single values: the cosine and the
    share of equal signs of the whole vectors.
    """
    asked = exam(
        "validation", facts_per_relation, prompts, facts, unsafe_prompts, benign_prompts, replies, judged_responses
    )
    started, tokenizer = zoo.load(str(models[base]))
    tuned = [zoo.load(str(models[name]))[0] for name in (expert, generalist)]
    alike = alikeness(started, *tuned, tokenizer, asked)
    whole = alike[alike["part"] == "all"].iloc[0]
    tables = {
        "alikeness": alike,
        "contribution": contributions(started, *tuned, tokenizer, domain, asked, settings),
        "path": path_losses(started, *tuned, tokenizer, domain, asked, places),
    }
    found = {name: table.astype(object).where(table.notna(), None).to_dict("list") for name, table in tables.items()}
    return {"cosine": float(whole["cosine"]), "equal_signs": float(whole["equal_signs"]), **found}
