"""What the study's figures share: words and colours of measures and levels."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from common.errors import UserError
from common.figures import INK, PALETTE

MEASURES = {
    "knowledge": "knowledge\n(MMLU)",
    "exact": "exact match\n(BBH)",
    "win_rate": "win rate\n(AlpacaEval)",
    "lc_win_rate": "win rate at equal\nlength (AlpacaEval-LC)",
    "nontoxic": "log-odds of being\nsafe (RealToxicity)",
    "resisted": "attacks resisted\n(one decoding)",
    "resisted_all": "attacks resisted\n(Red-Instruct)",
    "declined": "unsafe prompts\ndeclined",
    "answered": "instructions\nfollowed",
    "score": "score: what the\naim asks for",
    "balanced": "mean of declined\nand followed",
    "kl_reply": "KL to the start\n(nats per reply)",
    "margin": "log-odds of\nrefusing (nats)",
    "length": "words per reply",
    "shifted": "tokens shifted\n(URIAL)",
    "fidelity": "fidelity: difference\nbetween opposite aims",
    "cost_of_mixing": "cost of mixing,\nin score",
}
UNITS = ("nontoxic", "kl_reply", "margin", "length")  # all others are shares
TICKS = {"x": 3, "y": 6}  # at most: several panels stand side by side
LEVELS = {
    "hh-like": "hh-like (noisy)",
    "beavertails-like": "beavertails-like (clean)",
    "sft": "SFT",
    "dpo": "DPO",
    "sft+dpo": "SFT + DPO",
    "lora": "LoRA",
    "qlora": "QLoRA",
    "base": "base",
    "instruct": "instruct",
    "none": "untuned",
    "harmless": "harmless",
    "helpful": "helpful",
    "mix": "mix",
    "slerp": "SLERP",
    "dare": "DARE, whole",
    "dare_half": "DARE, halves",
    "sum": "sum",
    "ties": "TIES",
    "linear": "plain mean",
    "all": "all pairs",
    "random": "random",
    "dissimilar": "REAL",
    "diverse": "Deita",
    "entropy": "GMM + entropy",
}
COLORS = {
    **dict(zip(("hh-like", "sft", "base", "lora", "harmless"), [PALETTE[0]] * 5, strict=True)),
    **dict(zip(("beavertails-like", "dpo", "instruct", "qlora", "helpful"), [PALETTE[1]] * 5, strict=True)),
    "mix": PALETTE[2],
    "none": INK,
}
"""Of the levels that are told apart by colour: a factor's first in blue, its second in orange."""


def words(level: object) -> str:
    """A level as it is written in a figure; `UserError` on one that has no words."""
    if isinstance(level, str) and level not in LEVELS:
        raise UserError(f"there are no words for the level {level!r}; known: {', '.join(LEVELS)}")
    return LEVELS[level] if isinstance(level, str) else f"{level:g}"


def over_seeds(table: pd.DataFrame) -> str:
    """What the bars of a table's figure are."""
    few, most = table["n"].min(), table["n"].max()
    return f"bars: 95% intervals over {few if few == most else f'{few} to {most}'} seeds"


def name_axis(ax: Axes, measure: str, which: str = "x") -> None:
    """Label the axis of a measure, and show shares in per cent."""
    if measure not in MEASURES:
        raise UserError(f"there are no words for the measure {measure!r}; known: {', '.join(MEASURES)}")
    getattr(ax, f"set_{which}label")(MEASURES[measure])
    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.set_major_locator(MaxNLocator(TICKS[which], steps=[1, 2, 5, 10]))
    if measure not in UNITS:
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
