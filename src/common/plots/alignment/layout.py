"""What the study's figures share: words and colours of measures and levels."""

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from common.errors import UserError
from common.figures import INK, PALETTE

MEASURES = {
    "knowledge": "knowledge\n(MMLU)",
    "exact": "exact match\n(BBH)",
    "win_rate": "win rate\n(AlpacaEval)",
    "lc_win_rate": "win rate, equal length\n(AlpacaEval-LC)",
    "nontoxic": "log-odds of safe\n(RealToxicity)",
    "resisted": "attacks resisted,\none decoding",
    "resisted_all": "attacks resisted\n(Red-Instruct)",
    "declined": "unsafe prompts\ndeclined",
    "answered": "instructions\nfollowed",
    "score": "what the aim\nasks for",
    "balanced": "mean of declined\nand followed",
    "kl_reply": "KL to the start\n(nats a reply)",
    "margin": "log-odds of\nrefusing (nats)",
    "length": "words of a reply",
    "shifted": "tokens shifted\n(URIAL)",
    "fidelity": "fidelity: what sets\nopposite aims apart",
    "cost_of_mixing": "what mixing costs",
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
    "diverse": "Deita's rule",
    "entropy": "mixture and entropy",
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


def name_axis(ax: Axes, measure: str, which: str = "x") -> None:
    """Label the axis of a measure, and show shares in per cent."""
    if measure not in MEASURES:
        raise UserError(f"there are no words for the measure {measure!r}; known: {', '.join(MEASURES)}")
    getattr(ax, f"set_{which}label")(MEASURES[measure])
    axis = ax.xaxis if which == "x" else ax.yaxis
    axis.set_major_locator(MaxNLocator(TICKS[which], steps=[1, 2, 5, 10]))
    if measure not in UNITS:
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
