"""What a model of a world answers, by task and by what the tasks are broken down by: what a sweep over models calls."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from pydantic import NonNegativeFloat, PositiveInt

from common import architectures  # noqa: F401  (lets `load` open every family)
from common.errors import UserError
from common.hallucination.questions import questions
from common.hallucination.reading import World
from common.hallucination.wording import UNKNOWN
from common.hallucination.world import Facts, facts_of
from common.tasks.answers import answers
from common.tasks.calibration import auroc, calibration_error
from common.tasks.items import OFFERED, Task
from common.tasks.text import is_exact
from common.zoo import load

SUMMARIES = "summaries"
SAMPLED = ("recall", "conflict")
"""Tasks whose answers are also drawn, at temperatures above 0."""


def evaluate(
    model: str, world: dict, seed: int, number: PositiveInt, temperatures: Sequence[NonNegativeFloat], *,
    facts: Path, **models: Path,
) -> dict:  # fmt: skip
    """Tables of what the model of that name among `models` answers about its seed's `world`.

    `answers` has a row for each task, group and temperature: see `by_group`; outcomes at temperature 0 alone.
    `calibration` has one for each task: how far the model's confidence is from how often it is right, and whether it
    tells right answers from wrong ones.
    `examples` has what was answered word for word: see `first_of_each`.
    """
    if model not in models:
        raise UserError(f"no model {model!r}; there are {', '.join(models)}")
    loaded, words = load(str(models[model]))
    knobs = World.model_validate(world)
    table = facts_of(pd.read_json(facts, lines=True, dtype=False), knobs.population, seed)
    rows, sure, examples = [], [], []
    for task in questions(table, number, seed):
        for temperature in temperatures if task.name in SAMPLED else (0.0,):
            said = answers(loaded, words, task, temperature=temperature, seed=seed)
            shares = by_group(task, said, Facts(table)).assign(temperature=temperature)
            rows.append(shares.drop(columns="outcomes") if temperature else shares)  # nobody resamples those items
            if temperature == 0:
                sure.append({"task": task.name} | calibration(said))
                examples.append(first_of_each(task, said))
    found = {"answers": pd.concat(rows), "calibration": pd.DataFrame(sure), "examples": pd.concat(examples)}
    # A table of a run holds no NaN.
    return {name: own.astype(object).where(own.notna(), None).to_dict("list") for name, own in found.items()}


def by_group(task: Task, said: pd.DataFrame, facts: Facts) -> pd.DataFrame:
    """One row for each value of each breakdown, and one for all items: task, aspect, breakdown, value, items, shares.

    `wrong` is the share of answers that are not right, which for each task is what is hallucinated; of summaries, 1
    less the mean of `entity_f1`. `memorised` is the share that says what memory says against the prompt, `unknown` that
    says that it is unknown, `chance` that of right answers that guesses would be (see `chance`). `outcomes` has
    how wrong each item's answer is, in the items' order, with a space between; of items with one `row`, of which there
    are as many in each, the mean.
    """
    right = said["correct"]
    if task.name == SUMMARIES:
        pairs = zip(task.items, said["answer"], strict=True)
        right = pd.Series([entity_f1(names_in(text, facts), names_in(item.prompt, facts)) for item, text in pairs])
    rows = [item.row or str(number) for number, item in enumerate(task.items)]
    unknown = [is_exact(text, [UNKNOWN]) for text in said["answer"]]
    table = said.assign(wrong=1 - right, chance=chance(task, facts), row=rows, unknown=unknown)
    groups = pd.DataFrame([dict(item.groups) for item in task.items]).assign(all="all")
    found = []
    for breakdown in groups:
        for value, own in table.groupby(groups[breakdown], sort=False):
            place = {"task": task.name, "aspect": task.aspect, "breakdown": breakdown, "value": value}
            shares = own[["wrong", "memorised", "unknown", "chance"]].mean().to_dict()
            outcomes = " ".join(f"{share:.3g}" for share in own.groupby("row", sort=False)["wrong"].mean())
            found.append(place | {"items": len(own)} | shares | {"outcomes": outcomes})
    return pd.DataFrame(found)


def chance(task: Task, facts: Facts) -> pd.Series:
    """Of each item, how often who knows only what kind of thing is asked for is right, at best.

    Among what is offered, a guess. Where a name is written, the answer that is right most often of its relation, always
    given; that nothing is said may be it. Of summaries, the one name that makes the best of all. 0 where an answer is
    more than a name.
    """
    if task.kind in OFFERED:
        return pd.Series([1 / (1 + len(item.wrong)) for item in task.items])
    if task.name == SUMMARIES:
        told = [names_in(item.prompt, facts) for item in task.items]
        alone = {name: [entity_f1({name}, names) for names in told] for name in sorted(set.union(*told))}
        return pd.Series(max(alone.values(), key=sum))
    rows = [{"relation": item.groups.get("relation"), "right": item.right[0]} for item in task.items]
    known = pd.DataFrame(rows)
    always = known.groupby("relation")["right"].transform(lambda own: own.mode()[0])
    return (known["right"] == always.reindex(known.index)).astype(float)


def first_of_each(task: Task, said: pd.DataFrame) -> pd.DataFrame:
    """The first item of each group of the task's first breakdown, with what was answered, whatever that is."""
    first: dict[str, int] = {}
    for number, item in enumerate(task.items):
        first.setdefault(next(iter(item.groups.values())), number)
    rows = [
        {"task": task.name, "value": value, "prompt": item.prompt, "right": item.right[0].strip()}
        | said.loc[number, ["answer", "correct", "memorised", "confidence"]].to_dict()
        for value, number in first.items()
        for item in [task.items[number]]
    ]
    return pd.DataFrame(rows)


def entity_f1(said: set[str], told: set[str]) -> float:
    """Harmonic mean of the shares of names said that a story tells, and of names told that are said; 0 where none is.

    As for summaries in Nan et al. 2021 (arXiv 2102.09130), of which the first alone is had by repeating one name.
    """
    both = len(said & told)
    return 2 * both / (len(said) + len(told)) if both else 0.0


def names_in(text: str, facts: Facts) -> set[str]:
    """The world's names that a text has as whole words, of which the longest counts where one is part of another."""
    return set(facts.pattern.findall(text))


def calibration(said: pd.DataFrame) -> dict[str, float]:
    """Expected calibration error in ten bins of equal width, and how well confidence tells right from wrong (AUROC)."""
    error = calibration_error(said["confidence"].clip(0, 1), said["correct"], bins=10)
    return {"error": error, "auroc": auroc(said["confidence"], said["correct"]), "items": len(said)}
