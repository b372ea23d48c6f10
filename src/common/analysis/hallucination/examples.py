"""Answers word for word, picked by a rule that looks at no answer."""

from collections.abc import Sequence

import pandas as pd

from common.analysis.hallucination.arms import LARGE, TUNED
from common.hallucination.wording import FORMATS
from common.hallucination.world import QUARTILES

PICKED = {
    "recall": QUARTILES[-1],
    "misconceptions": QUARTILES[-1],
    "claims": "No",
    "conflict": QUARTILES[0],
    "endings": "otherwise",
    "formats": "again",
    "unanswerable": "no",
    "summaries": "2",
    "verdicts": "No",
}
"""By task the group of which the first item is shown: the one in which models of any kind are most tempted."""


def examples_table(examples: pd.DataFrame, arms: Sequence[str], seed: int) -> pd.DataFrame:
    """What the tuned models of one seed answered to the first item of a group of each task: see `PICKED`.

    `examples` has the rows of all models as `of_models` gives them. A row each item, by task and prompt, with the right
    answer and a column for each arm; ✓ marks what is right. Of formats any name of its kind is right in that form: the
    right answer has an X in its place.
    """
    own = examples[(examples["size"] == LARGE) & (examples["stage"] == TUNED) & (examples["seed"] == seed)]
    own = own[own["value"] == own["task"].map(PICKED)]
    form = own["value"].map({name: answer.format("X").strip() for name, (_, answer) in FORMATS.items()})
    own = own.assign(right=own["right"].mask(own["task"] == "formats", form))
    marked = own["answer"].str.strip() + own["correct"].map({1.0: " ✓", 0.0: ""})
    wide = own.assign(said=marked).pivot(index=["task", "prompt", "right"], columns="arm", values="said")
    order = {task: place for place, task in enumerate(PICKED)}
    return wide[list(arms)].sort_index(level="task", key=lambda names: names.map(order)).rename_axis(columns=None)
