"""The tables that figures are drawn from."""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from common.alignment.evaluation import MEASURES
from common.analysis.alignment.claims import CELL, MERGED, cost_of_mixing, fidelity
from common.analysis.alignment.runs import MAIN, part, scored, summary, there
from common.errors import UserError
from common.evidence import mean_interval


def compared(runs: pd.DataFrame, factor: str, measures: Sequence[str] = MAIN) -> pd.DataFrame:
    """F1, F4, F5: the crossing by one of `CELL` and the others, means over aims: a row a level, others and measure."""
    crossing = part(scored(runs), "crossing", CELL, measures)
    others = [name for name in ("start", "method", "dataset") if name != factor]
    return summary(crossing, [*others, factor], measures)


def adapters(runs: pd.DataFrame, cells: Sequence[Mapping[str, str]], measures: Sequence[str] = MAIN) -> pd.DataFrame:
    """F6: QLoRA and LoRA in the cells that have both, means over data and aims: start, method, adapter, measure, …"""
    runs = scored(runs)
    packed = part(runs, "quantised", CELL, measures, cells)
    crossing = part(runs, "crossing", CELL, measures)
    plain = crossing.merge(packed[[*CELL, "seed"]], on=[*CELL, "seed"], validate="one_to_one")
    return summary(pd.concat([plain, packed]), ["start", "method", "adapter"], measures)


def sizes(runs: pd.DataFrame, measures: Iterable[str]) -> pd.DataFrame:
    """F2: performance against the number of pairs: dataset, method, pairs, measure, n, estimate, low, high."""
    measures = list(measures)
    return summary(
        part(scored(runs), "sizes", ("dataset", "method", "pairs"), measures), ["dataset", "method", "pairs"], measures
    )


def of_largest(runs: pd.DataFrame, measures: Iterable[str]) -> pd.DataFrame:
    """F3: the same as a share of the value at the largest number of pairs, by seed: columns as `sizes`.

    Of measures that are shares; the paper's nontoxic is a logarithm, of which a percentage says nothing. Where the
    largest has no more than one hundredth there is no share, and the row is left out.
    """
    measures = list(measures)
    rows = part(scored(runs), "sizes", ("dataset", "method", "pairs"), measures)
    largest = rows[rows["pairs"] == rows["pairs"].max()]
    both = rows.merge(
        largest[["dataset", "method", "seed", *measures]], on=["dataset", "method", "seed"], suffixes=("", "_largest")
    )
    found = []
    for (dataset, method, pairs), cell in both.groupby(["dataset", "method", "pairs"], sort=False):
        for measure in measures:
            if (cell[f"{measure}_largest"] <= 0.01).any():
                continue
            mean, low, high, n = mean_interval(cell[measure] / cell[f"{measure}_largest"])
            place = {"dataset": dataset, "method": method, "pairs": pairs, "measure": measure}
            found.append(place | {"n": n, "estimate": mean, "low": low, "high": high})
    return pd.DataFrame(found)


def mixtures(runs: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """The crossing by start, method and aim, means over data, and the untuned starts (aim none, method none)."""
    crossing = part(scored(runs), "crossing", CELL, measures)
    starts = part(scored(runs), "starts", ("start",), measures)
    starts = starts[starts["start"].isin(crossing["start"].unique())]
    return summary(pd.concat([starts, crossing]), ["start", "method", "aim"], measures)


def merges(runs: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """Merges beside what they are made of and beside mixed data: start, method, arm, measure, n, estimate, low, high.

    `arm`: harmless, helpful, mix, or the merge; all from the data `MERGED`.
    """
    runs = scored(runs)
    merged = part(
        runs, "merges", ("start", "method", "merge"), measures, there(runs, "merges", ("start", "method", "merge"))
    )
    crossing = part(runs, "crossing", CELL, measures)
    single = crossing[(crossing["dataset"] == MERGED) & crossing["start"].isin(merged["start"].unique())]
    both = pd.concat([single.assign(arm=single["aim"]), merged.assign(arm=merged["merge"])])
    return summary(both, ["start", "method", "arm"], measures)


def fidelities(runs: pd.DataFrame) -> pd.DataFrame:
    """Fidelity and cost of mixing by start and method: start, method, measure, n, estimate, low, high."""
    crossing = part(scored(runs), "crossing", CELL, ("declined", "win_rate", "score"))
    rows = []
    for start in crossing["start"].unique():
        for method in crossing["method"].unique():
            where = {"start": start, "method": method}
            for name, of in (("fidelity", fidelity), ("cost_of_mixing", cost_of_mixing)):
                mean, low, high, n = mean_interval(of(crossing, **where))
                rows.append(where | {"measure": name, "n": n, "estimate": mean, "low": low, "high": high})
    return pd.DataFrame(rows)


def frontier(runs: pd.DataFrame) -> pd.DataFrame:
    """Reward against KL of models tuned on `reviews`: loss_type, beta, kl, kl_low, kl_high, reward, …, best.

    `best`: no other point has more reward for as little KL, by the means.
    """
    rows = part(
        runs, "losses", ("loss_type", "beta"), ("reward", "kl_reply"), there(runs, "losses", ("loss_type", "beta"))
    )
    found = []
    for (loss, beta), cell in rows.groupby(["loss_type", "beta"], sort=False):
        row = {"loss_type": loss, "beta": beta}
        for name, measure in (("kl", "kl_reply"), ("reward", "reward")):
            mean, low, high, n = mean_interval(cell[measure])
            row |= {name: mean, f"{name}_low": low, f"{name}_high": high, "n": n}
        found.append(row)
    table = pd.DataFrame(found)
    table["best"] = [not ((table["reward"] > row.reward) & (table["kl"] <= row.kl)).any() for row in table.itertuples()]
    return table


def varied(runs: pd.DataFrame, name: str, by: Sequence[str], measures: Sequence[str]) -> pd.DataFrame:
    """A smaller part (`ranks`) by its own columns: by, measure, n, estimate, low, high."""
    return summary(part(scored(runs), name, by, measures), by, measures)


def unseen(runs: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """Bases that never met a prompt, before (method none) and after: method, measure, n, estimate, low, high."""
    runs = scored(runs[runs["start"] == "unseen"])
    return summary(part(runs, ["starts", "unseen"], ["method"], measures), ["method"], measures)


def selections(runs: pd.DataFrame, measures: Sequence[str]) -> pd.DataFrame:
    """Selected pairs, and all of them (selection all), from the crossing: selection, measure, n, estimate, low, high.

    Raises `UserError` where the rules did not select from one arm's pairs.
    """
    own = part(scored(runs), "selection", ["selection"], measures)
    cells = own[list(CELL)].drop_duplicates()
    if len(cells) > 1:
        raise UserError(f"pairs are selected for {len(cells)} arms, allowed: one")
    whole = part(scored(runs), "crossing", CELL, measures).merge(cells, on=list(CELL))
    whole = whole[whole["seed"].isin(own["seed"])].assign(selection="all")
    return summary(pd.concat([whole, own]), ["selection"], measures)


def means(runs: pd.DataFrame) -> pd.DataFrame:
    """All measures, means over the crossing and of the starts: a row a measure, a column a start and method."""
    rows = runs[runs["part"].isin(["starts", "crossing"]) & (runs["start"] != "unseen")]
    return rows.groupby(["start", "method"])[list(MEASURES)].mean().T
