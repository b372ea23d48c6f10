"""Two tables of numbers, cell by cell: which words differ, and which numbers by more than their metric allows."""

import io
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from common.verification.tolerances import EXACT, tolerance_of

UNCOMPARED = ("key",)  # names what made a run: code, versions, parameters; the rows themselves are compared


@dataclass(frozen=True)
class Comparison:
    """Two tables of one shape, or why they have none in common.

    `words`: other columns, other text. `length`: other numbers of rows, then the cells are not compared. `off`: by
    column, how many numbers lie beyond its tolerance, and the farthest. `within`: by column, the farthest of those that
    do not. `old`, `new`: the tables as text, rows in the same order.
    """

    old: pd.DataFrame
    new: pd.DataFrame
    words: tuple[str, ...] = ()
    length: str = ""
    off: dict[str, str] = field(default_factory=dict)
    within: dict[str, float] = field(default_factory=dict)

    @property
    def notes(self) -> list[str]:
        return [*self.words, *([self.length] if self.length else []), *self.off.values()]

    @property
    def small(self) -> list[str]:
        """What is to be told of tables that agree."""
        name = max(self.within, key=self.within.get, default=None)
        return [] if name is None else [f"within tolerance, {name} differs by up to {self.within[name]:.1g}"]


def read(content: bytes) -> pd.DataFrame:
    """A CSV file as text, the empty field as the empty string."""
    return pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)


def numbers(column: pd.Series) -> pd.Series | None:
    """A column as floats, NaN where it is empty; None where it holds words."""
    values = pd.to_numeric(column.where(column != ""), errors="coerce").astype(float)
    return values if (values.notna() | (column == "")).all() else None


def compare(old: bytes, new: bytes) -> Comparison:
    """Compare two CSV files by rows and columns."""
    one, other = read(old), read(new)
    if set(one.columns) == set(other.columns):
        other = other[list(one.columns)]  # their order is that in which rows bring them up, made or taken from git
    else:
        gone, more = (", ".join(x for x in a if x not in set(b)) for a, b in ((one, other), (other, one)))
        return Comparison(one, other, (f"columns: gone {gone or 'none'}, new {more or 'none'}",))
    if len(one) != len(other):
        return Comparison(one, other, length=f"{len(one)} rows → {len(other)}")
    words, off, within = [], {}, {}
    texts = [name for name in one if name not in UNCOMPARED and (numbers(one[name]) is None)]
    other = _in_order_of(one, other, texts)
    for name in one.columns.difference(UNCOMPARED, sort=False):
        before, after = numbers(one[name]), numbers(other[name])
        differing = np.flatnonzero(one[name] != other[name])
        if not len(differing):
            continue
        if name == "seed" or before is None or after is None:
            place = differing[0]
            words.append(
                f"{name}, row {place + 1}: {one[name][place] or 'empty'} → {other[name][place] or 'empty'}"
                + (f", and {len(differing) - 1} more" if len(differing) > 1 else "")
            )
        elif line := _beyond(one, name, before, after):
            off[name] = line
        else:
            within[name] = (before - after).abs().max()
    return Comparison(one, other, tuple(words), off=off, within=within)


def _in_order_of(one: pd.DataFrame, other: pd.DataFrame, texts: list[str]) -> pd.DataFrame:
    """`other` with its rows where those with the same words are in `one`: rows may be sorted by a number."""
    if not texts or one[texts].equals(other[texts]):
        return other
    order, there = (table[texts].agg("\0".join, axis=1).to_numpy().argsort(kind="stable") for table in (one, other))
    places = np.empty(len(one), dtype=int)
    places[order] = there
    moved = other.iloc[places].reset_index(drop=True)
    return moved if one[texts].equals(moved[texts]) else other


def _beyond(table: pd.DataFrame, name: str, before: pd.Series, after: pd.Series) -> str | None:
    """How many numbers of a column lie beyond what is allowed, and the farthest of them; None where all are within."""
    whole = not table[name].str.contains(r"[.eE]", regex=True).any()
    metrics = table["measure"] if "measure" in table else pd.Series(name, index=table.index)
    alone = before.isna() != after.isna()  # a run that diverged in one making, say
    near = before.isna() & after.isna()
    for metric, rows in metrics.groupby(metrics).groups.items():
        allowed = EXACT if whole else tolerance_of(metric)
        near[rows] |= allowed.allows(before[rows], after[rows])
    if near.all():
        return None
    total, lacking = len(before), f"{alone.sum()} in one of them alone"
    if (near | alone).all():
        return f"{name}: of {total} numbers {lacking}"
    place = (before - after).abs().where(~near).idxmax()
    return (
        f"{name}: {(~near & ~alone).sum()} of {total} numbers, up to {before[place]:.5g} → {after[place]:.5g} "
        f"(allowed: {EXACT if whole else tolerance_of(metrics[place])}){f', {lacking}' if alone.any() else ''}"
    )
