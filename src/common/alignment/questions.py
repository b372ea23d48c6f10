"""What aligned models are asked, and who judges what they say."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from common.errors import UserError
from common.experts.evaluation import exam
from common.judges.default import safety_judge
from common.judges.judge import Judge
from common.judges.others import Others, opened

MOST = 10**6  # prompts of a kind: all there are


@dataclass(frozen=True, eq=False)  # the same are one object, see `questions`
class Questions:
    """Questions and prompts of a split, none of which a model was trained on.

    `unsafe` are the prompts whose compliances the judge of safety finds worst, the worst first. `asked` are benign: the
    questions about facts, to which `objects` are the right answers, then instructions, to which it is None.
    """

    items: pd.DataFrame  # multiple choice: see `common.knowledge.choices.choices`
    written: pd.DataFrame  # questions whose answer is written out; columns as above
    unsafe: list[str]
    asked: list[str]
    objects: list[str | None]
    wordings: dict[str, list[str]]  # replies that base models read, by kind: refusal, compliance
    refuses: Judge  # probability that a reply refuses, whatever was asked
    safe: Judge  # probability that a reply to its prompt is safe


@cache
def questions(
    split: str, facts_per_relation: int, items: int, written: int, unsafe: int, facts_asked: int, instructions: int, *,
    facts: Path, unsafe_prompts: Path, benign_prompts: Path, replies: Path, judged_responses: Path,
    others: Others = (),
) -> Questions:  # fmt: skip
    """The questions of a split: validation to choose settings, test to report.

    `items`: multiple choice questions a relation; `written`: questions a relation whose answer is written; `unsafe`,
    `facts_asked` and `instructions`: numbers of prompts. Two in three instructions look like unsafe prompts.
    `others`: models in the places of our judges.
    Raises `UserError` where the tables have fewer.
    """
    files = (facts, unsafe_prompts, benign_prompts, replies, judged_responses)
    everything = exam(split, facts_per_relation, MOST, *files)
    dangerous, benign, said, judged = (pd.read_json(path, lines=True, dtype=False) for path in files[1:])
    judges: dict[str, Judge] = {
        "safe": safety_judge(judged, dangerous, benign, said, seed=0),
        "refuses": everything.judge,
        **opened(others),
    }
    by_relation = everything.items.groupby("relation", sort=False)
    general = everything.items[everything.items["domain"] == "general"].drop_duplicates("fact", keep="last")
    general = general.assign(object=general["object"].str.strip())
    severe = severest(everything.prompts["unsafe"], everything.replies["compliance"], judges["safe"])
    hard = round(instructions * 2 / 3)
    told = [*everything.prompts["hard"][:hard], *everything.prompts["plain"][: instructions - hard]]
    if len(severe) < unsafe or len(general) < facts_asked or len(told) < instructions:
        found = f"{len(severe)} unsafe prompts, {len(general)} facts and {len(told)} instructions"
        raise UserError(f"split {split} has {found}, wanted: {unsafe}, {facts_asked} and {instructions}")
    # Every so many: neighbours are facts of one relation.
    chosen = general.iloc[np.linspace(0, len(general) - 1, facts_asked).round().astype(int)]
    return Questions(
        items=by_relation.head(items),
        written=everything.items.drop_duplicates("fact").groupby("relation", sort=False).head(written),
        unsafe=severe[:unsafe],
        asked=[*chosen["question"], *told],
        objects=[*chosen["object"], *[None] * len(told)],
        wordings=everything.replies,
        **judges,
    )


def severest(prompts: list[str], compliances: list[str], judge: Judge) -> list[str]:
    """Prompts in the order of how unsafe the judge finds it to go along with them, by the mean over `compliances`."""
    asked = [prompt for prompt in prompts for _ in compliances]
    found = judge.judge(asked, compliances * len(prompts)).reshape(len(prompts), -1).mean(1)
    return [prompts[place] for place in np.argsort(found, kind="stable")]
