"""Two makings of a figure: the data it was drawn from, the labels it shows, the picture."""

import numpy as np
import pandas as pd

from common.verification.arms import CHANCE
from common.verification.levels import Level
from common.verification.tables import compare, numbers
from common.verification.texts import svg_labels, svg_texts
from common.verification.tolerances import tolerance_of


def compare_data(old: bytes, new: bytes, moved: bool) -> tuple[Level, list[str]]:
    """Level of a figure's CSV, and what differs.

    All numbers are functions of the runs: they may move where the runs `moved`, and only there. Estimates with
    intervals must then lie in each other's, but for the few that chance allows.
    """
    compared = compare(old, new)
    notes = compared.notes
    if compared.words or compared.length:
        return Level.VERDICTS, notes
    if not notes:
        return Level.NUMERICAL, compared.small
    if not moved:
        return Level.VERDICTS, [f"{', '.join(sorted(compared.off))} moved and the runs did not", *notes]
    outside, tried = 0, 0
    for names in _intervals(compared.old):
        apart = _apart(*([numbers(table[name]) for name in names] for table in (compared.old, compared.new)))
        outside, tried = outside + apart.sum(), tried + len(apart)
    if outside > CHANCE * tried:
        return Level.VERDICTS, [f"{outside} of {tried} estimates outside each other's intervals", *notes]
    return Level.STATISTICAL, notes


def _intervals(table: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Names of columns that hold an estimate and the ends of its interval."""
    there = set(table.columns)
    found = [(name, f"{name}_low", f"{name}_high") for name in table if {f"{name}_low", f"{name}_high"} <= there]
    found += [(name, "low", "high") for name in ("estimate", "mean") if {name, "low", "high"} <= there]
    return [names for names in found if all(numbers(table[name]) is not None for name in names)]


def _apart(old: list[pd.Series], new: list[pd.Series]) -> np.ndarray:
    """Of each row whether an estimate lies outside the other's interval."""
    slack = tolerance_of("estimate")
    far = np.zeros(len(old[0]), dtype=bool)
    for (estimate, _, _), (_, low, high) in ((old, new), (new, old)):
        beyond = np.maximum(low - estimate, estimate - high)
        far |= (beyond > slack.absolute + slack.relative * estimate.abs()).to_numpy()
    return far


def compare_pictures(old: bytes, new: bytes, of_data: Level, same_png: bool) -> tuple[Level, list[str]]:
    """Level of an SVG whose data agree at `of_data`; `same_png`: the PNG that was drawn with it has the same bytes.

    Its labels must be the same words and, where it was drawn from the same data, hold the same numbers. Where the PNG
    shows that nothing is drawn otherwise, nothing may be.
    """
    same = of_data is Level.BITWISE
    for labels in (svg_labels, svg_texts) if same else (svg_labels,):
        before, after = labels(old), labels(new)
        if before != after:
            gone, more = (", ".join(sorted((a - b).elements())) for a, b in ((before, after), (after, before)))
            return Level.VERDICTS, [f"labels: {gone or 'nothing'} → {more or 'nothing'}"]
    if same and same_png:
        return Level.VERDICTS, ["the drawing differs; its data and its picture do not"]
    if same:
        return Level.NUMERICAL, ["drawn otherwise from the same data"]
    return of_data, []
