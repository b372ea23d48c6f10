"""The paper's tables in our numbers beside its own, and the tables that figures are drawn from."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from common.analysis.alignment import paper
from common.analysis.alignment.claims import CELL, MERGED, cost_of_mixing, fidelity
from common.analysis.alignment.runs import MAIN, part, scored, summary
from common.errors import UserError
from common.evidence import mean_interval

TABLES = ("T2", "T3", "T4", "T5")
MERGE_ROWS = ("slerp", "dare", "ties", "linear")


def beside(runs: pd.DataFrame, table: str) -> pd.DataFrame:
    """A table of the paper, one of `TABLES`, in our numbers: what tells a row, `measure`, `estimate`, `low`, `high`,
    `n`, and the paper's numbers: `paper`, of the model `model` that was closest to our start.

    T2 and T3: mixtures and merges from the data `MERGED`, ours by LoRA (the paper's by QLoRA). T4: QLoRA, as far as our
    half of the crossing goes; T5: LoRA. Rows that one of the two lacks are left out, so are ours where T3 has none.
    """
    makers = {"T2": _mixtures, "T3": _merges, "T4": _quantised, "T5": _adapted}
    if table not in makers:
        raise UserError(f"table is {table!r}, allowed: {', '.join(TABLES)}")
    return makers[table](runs).reset_index(drop=True)


def wide(table: pd.DataFrame) -> pd.DataFrame:
    """The same to be read: rows, and of each measure ours with its interval and the paper's."""
    own = ["estimate", "low", "high", "n", "paper", "measure"]
    keys = [name for name in table if name not in own]
    shown = table.assign(
        ours=[f"{row.estimate:.3f} [{row.low:.3f}, {row.high:.3f}]" for row in table.itertuples()],
        paper=table["paper"].map("{:.3f}".format),
    )
    found = shown.pivot(index=keys, columns="measure", values=["ours", "paper"])
    measures = [name for name in paper.OURS.values() if name in set(table["measure"])]
    return found.swaplevel(axis=1)[[(name, who) for name in measures for who in ("ours", "paper")]]


def agreement(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Spearman's correlation of our numbers with the paper's over a table's rows, by `table` and `measure`; `rows`."""
    found = []
    for name, table in tables.items():
        for measure, rows in table.groupby("measure", sort=False):
            rank = float(spearmanr(rows["estimate"], rows["paper"]).statistic) if len(rows) > 2 else np.nan
            found.append({"table": name, "measure": measure, "rows": len(rows), "correlation": rank})
    return pd.DataFrame(found)


def table_6(tunings: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Hyper-parameters: a row each, ours and the paper's for SFT and DPO. `tunings` are ours, by sft and dpo."""
    rows = {}
    for name, printed in paper.TABLE_6.items():
        row = {}
        for method, value in zip(("sft", "dpo"), printed, strict=True):
            flat = {**tunings[method], **(tunings[method].get("lora") or {})}
            ours = {"optimizer": "AdamW"}.get(name, flat.get(name, "default"))
            row |= {(method, "ours"): ours if isinstance(ours, str) else repr(ours), (method, "paper"): value}
        rows[name] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def slerp_rows() -> pd.DataFrame:
    """Whether table 3 has its rows of SLERP swapped: a row each, `start`, `method`, RT of the row and of its parents.

    `own` and `other`: distance from the mean of the two parents of its label, and of the other method's parents.
    """
    printed = paper.table_3()
    rt = printed[printed["measure"] == "nontoxic"].pivot(index="row", columns="start", values="paper")
    found = []
    for start in rt.columns:
        means = {m: rt.loc[[f"harmless-{m}", f"helpful-{m}"], start].mean() for m in ("sft", "dpo")}
        for method, other in (("sft", "dpo"), ("dpo", "sft")):
            value = rt.loc[f"slerp-{method}", start]
            apart = {"own": abs(value - means[method]), "other": abs(value - means[other])}
            found.append({"start": start, "method": method, "slerp": value} | apart)
    return pd.DataFrame(found)


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
    merged = part(runs, "merges", ("start", "method", "merge"), measures, _there(runs, "merges"))
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
    rows = part(runs, "losses", ("loss_type", "beta"), ("reward", "kl_reply"), _there(runs, "losses"))
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
    """A smaller part (`ranks`, `selection`, `unseen`) by its own columns: by, measure, n, estimate, low, high."""
    return summary(part(scored(runs), name, by, measures), by, measures)


def spoken(runs: pd.DataFrame) -> dict[str, float]:
    """Numbers for sentences: means over the crossing by method of `kl` and `knowledge`; `packed_bytes`, the bytes of a
    base packed to NF4 as a share of those of the same in float32; rows of `slerp_rows` that look `swapped`, of all.
    """
    crossing, printed = runs[runs["part"] == "crossing"], slerp_rows()
    found: dict[str, float] = {}
    for method in ("sft", "dpo"):
        own = crossing[crossing["method"] == method]
        found |= {f"{method}_kl": own["kl_reply"].mean(), f"{method}_knowledge": own["knowledge"].mean()}
    bytes_ = [runs.loc[runs["part"] == name, "base_bytes"].astype(float).mean() for name in ("quantised", "crossing")]
    swapped = printed["other"] < printed["own"]
    return found | {
        "packed_bytes": bytes_[0] / bytes_[1], "swapped": float(swapped.sum()), "slerp_rows": float(len(swapped))
    }  # fmt: skip


def _there(runs: pd.DataFrame, name: str) -> list[dict[str, object]]:
    """Cells of a part that is no full crossing: those that are there for some seed must be for every."""
    by = {"merges": ("start", "method", "merge"), "losses": ("loss_type", "beta"), "quantised": CELL}[name]
    return runs.loc[runs["part"] == name, list(by)].drop_duplicates().to_dict("records")


def _mixtures(runs: pd.DataFrame) -> pd.DataFrame:
    measures = ("knowledge", "exact", "nontoxic")
    crossing = part(scored(runs), "crossing", CELL, measures)
    crossing = crossing[crossing["dataset"] == MERGED]
    starts = part(scored(runs), "starts", ("start",), measures)
    untuned = pd.concat([starts.assign(method=method, aim="none") for method in ("sft", "dpo")])
    ours = summary(pd.concat([untuned, crossing]), ["start", "aim", "method"], measures)
    return ours.merge(paper.table_2(), on=["start", "aim", "method", "measure"])


def _merges(runs: pd.DataFrame) -> pd.DataFrame:
    measures = tuple(paper.OURS.values())
    merged = part(runs, "merges", ("start", "method", "merge"), measures, _there(runs, "merges"))
    crossing = part(runs, "crossing", CELL, measures)
    single = crossing[(crossing["dataset"] == MERGED) & (crossing["aim"] != "mix")]
    rows = pd.concat(
        [
            single.assign(row=single["aim"] + "-" + single["method"]),
            merged.assign(row=merged["merge"] + "-" + merged["method"]),
        ]
    )
    ours = summary(rows, ["row", "start"], measures)
    return ours.merge(paper.table_3(), on=["row", "start", "measure"])


def _quantised(runs: pd.DataFrame) -> pd.DataFrame:
    return _by_cell(part(runs, "quantised", CELL, paper.OURS.values(), _there(runs, "quantised")), paper.table_4())


def _adapted(runs: pd.DataFrame) -> pd.DataFrame:
    return _by_cell(part(runs, "crossing", CELL, paper.OURS.values()), paper.table_5())


def _by_cell(rows: pd.DataFrame, printed: pd.DataFrame) -> pd.DataFrame:
    ours = summary(rows, list(CELL), paper.OURS.values())
    return ours.merge(printed, on=[*CELL, "measure"])
