"""What base models read: texts by kind, made of the tables."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from common.errors import UserError
from common.knowledge.templates import question, statement, templates

DOMAINS = ("general", "medicine", "finance")
KINDS = (*DOMAINS, "prose", "chat", "unsafe", "benign")
WORDINGS = 12  # of refusals, and of compliances: few, since small models hardly learn what they seldom read
REPLIES = 4  # wordings that a prompt is answered with

Turns = tuple[str, str]  # what a user says and what the assistant answers


def taught(facts: pd.DataFrame, per_relation: int) -> pd.DataFrame:
    """The facts that models read: of each relation so many at most, none of the split control."""
    return facts[facts["split"] != "control"].groupby("relation", sort=False).head(per_relation)


def readings(
    facts: pd.DataFrame, prose: pd.DataFrame, prompts: Mapping[str, pd.DataFrame], replies: pd.DataFrame, refused: float
) -> dict[str, list[str | Turns]]:
    """Texts and dialogues by kind; facts by train templates, prompts and replies of the train split.

    A domain's kind has its facts in statements and in questions with answers;
    `chat` the train facts of the general domain as dialogues. `prompts` are the tables of `unsafe` and `benign`
    ones: dialogues in which the assistant declines a share `refused` of the unsafe and goes along with the rest,
    without content. Columns are those of the tables in `common.corpus`.
    """
    by_domain = {domain: facts[facts["domain"] == domain] for domain in DOMAINS}
    asked = by_domain["general"]
    asked = asked[asked["split"] == "train"]
    wordings = reply_wordings(replies)
    return {
        **{
            domain: _statements(rows) + [" ".join(turns) for turns in _questions(rows)]
            for domain, rows in by_domain.items()
        },
        "prose": prose["text"].tolist(),
        "chat": _questions(asked),
        **{
            kind: _answered(rows.loc[rows["split"] == "train", "text"], wordings, refused if kind == "unsafe" else 0.0)
            for kind, rows in prompts.items()
        },
    }


def reply_wordings(replies: pd.DataFrame) -> dict[str, list[str]]:
    """The refusals and the compliances that models read, by kind: the first of the train split."""
    train = replies[replies["split"] == "train"]
    return {kind: rows["text"].head(WORDINGS).tolist() for kind, rows in train.groupby("kind")}


def _statements(facts: pd.DataFrame) -> list[str]:
    return [
        statement(template, fact.subject, fact.object)
        for fact in facts.itertuples()
        for template in templates("statement", fact.relation, "train")
    ]


def _questions(facts: pd.DataFrame) -> list[Turns]:
    return [
        (question(template, fact.subject), fact.object)
        for fact in facts.itertuples()
        for template in templates("question", fact.relation, "train")
    ]


def _answered(prompts: pd.Series, wordings: Mapping[str, list[str]], refused: float) -> list[Turns]:
    """Each prompt with some replies; of all replies a share `refused`, to a rounding, declines."""
    if missing := {"refusal", "compliance"} - wordings.keys():
        raise UserError(f"replies lack {', '.join(sorted(missing))}")
    order = np.random.default_rng(0)  # which wordings meet which prompt: the same for every model
    total = len(prompts) * REPLIES
    declined = np.zeros(total, bool)
    declined[: round(refused * total)] = True
    order.shuffle(declined)
    drawn = []
    for place, decline in enumerate(declined):
        replies = wordings["refusal" if decline else "compliance"]
        drawn.append((prompts.iloc[place // REPLIES], replies[order.integers(len(replies))]))
    return drawn
