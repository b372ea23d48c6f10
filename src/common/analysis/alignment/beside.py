"""The paper's tables in our numbers beside its own."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm, spearmanr

from common.analysis.alignment import paper
from common.analysis.alignment.claims import CELL, MERGED
from common.analysis.alignment.runs import part, scored, summary, there
from common.errors import UserError
from common.preference.tuning import Tuning

TABLES = ("T2", "T3", "T4", "T5")
NUMBERS = ["estimate", "low", "high", "n", "paper", "measure"]  # of a row; its other columns say which row it is


def beside_paper(runs: pd.DataFrame, table: str) -> pd.DataFrame:
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
    keys = [name for name in table if name not in NUMBERS]
    shown = table.assign(
        ours=[f"{row.estimate:.3f} [{row.low:.3f}, {row.high:.3f}]" for row in table.itertuples()],
        paper=table["paper"].map("{:.3f}".format),
    )
    found = shown.pivot(index=keys, columns="measure", values=["ours", "paper"])
    measures = [name for name in paper.OURS.values() if name in set(table["measure"])]
    return found.swaplevel(axis=1)[[(name, who) for name in measures for who in ("ours", "paper")]].fillna("")


def agreement(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Spearman's correlation of our numbers with the paper's over a table's rows: table, measure, rows, correlation,
    low, high (95%).

    A row of ours counts once, beside the mean of the paper's rows that it stands for: those of several models, or the
    untuned model's under either method. Fewer than four rows have no correlation.
    """
    found = []
    for name, table in tables.items():
        if "aim" in table:
            table = table.assign(method=table["method"].where(table["aim"] != "none", "none"))
        keys = [key for key in table if key not in (*NUMBERS, "model")]
        for measure, rows in table.groupby("measure", sort=False):
            once = rows.groupby(keys)[["estimate", "paper"]].mean().round(9)  # or equal means would differ in rank
            if len(once) > 3:
                rank = float(spearmanr(once["estimate"], once["paper"]).statistic)
                low, high = rank_interval(rank, len(once))
                row = {"table": name, "measure": measure, "rows": len(once), "correlation": rank}
                found.append(row | {"low": low, "high": high})
    return pd.DataFrame(found)


def rank_interval(correlation: float, rows: int) -> tuple[float, float]:
    """95% interval of Spearman's correlation over four or more rows, taken as independent (Bonett and Wright, 2000)."""
    away = norm.ppf(0.975) * np.sqrt((1 + correlation**2 / 2) / (rows - 3))
    with np.errstate(divide="ignore"):  # of a full correlation the interval has no width
        low, high = np.tanh(np.arctanh(correlation) + away * np.array([-1, 1]))
    return float(low), float(high)


def agreed(found: pd.DataFrame) -> dict[str, float | str]:
    """Of `agreement`, for a sentence: how many `correlations`, and which are `sure`: their interval excludes zero."""
    sure = found[(found["low"] > 0) | (found["high"] < 0)]
    named = [f"{row.measure} in {row.table} ({row.correlation:+.2f})" for row in sure.itertuples()]
    return {"correlations": float(len(found)), "sure": ", ".join(named) or "none"}


def table_6(tunings: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Hyper-parameters: a row each, ours and the paper's for SFT and DPO. `tunings` are ours, by sft and dpo."""
    rows = {}
    for name, printed in paper.TABLE_6.items():
        row = {}
        for method, value in zip(("sft", "dpo"), printed, strict=True):
            used = Tuning.model_validate(tunings[method]).model_dump()
            used |= (used["lora"] or {}) | {"optimizer": "AdamW"}
            # Without an adapter there are no knobs of one.
            row |= {(method, "ours"): str(used.get(name, "none")), (method, "paper"): value}
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
    merged = part(
        runs, "merges", ("start", "method", "merge"), measures, there(runs, "merges", ("start", "method", "merge"))
    )
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
    return _by_cell(part(runs, "quantised", CELL, paper.OURS.values(), there(runs, "quantised", CELL)), paper.table_4())


def _adapted(runs: pd.DataFrame) -> pd.DataFrame:
    return _by_cell(part(runs, "crossing", CELL, paper.OURS.values()), paper.table_5())


def _by_cell(rows: pd.DataFrame, printed: pd.DataFrame) -> pd.DataFrame:
    ours = summary(rows, list(CELL), paper.OURS.values())
    return ours.merge(printed, on=[*CELL, "measure"])
