"""Claims: declared before the runs, decided by the runs, written for readers and for machines."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from common.errors import UserError
from common.evidence.comparisons import (
    MINIMUM_SEEDS,
    Outcome,
    equivalent,
    greater,
    non_inferior,
    share_above,
)
from common.evidence.intervals import is_constant
from common.evidence.power import MOST_SEEDS, seeds_needed, trials_needed
from common.files import write_atomic

LEVEL = 0.025  # one-sided, as the ends of a 95% interval
PAIRED_TESTS = {test.__name__: test for test in (greater, non_inferior, equivalent)}
TESTS = (*PAIRED_TESTS, share_above.__name__)
VERDICTS = ("reproduced", "not reproduced", "inconclusive")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What is claimed and what would decide it, fixed before the reported seeds run.

    `paper`: the paper's words with their place, None for a claim of ours. `ours`: how it is measured here.
    `test`: one of `TESTS`. `margin`: smallest effect that matters, in the metric's units; of `share_above`,
    the share to exceed. `detectable`: smallest effect the planned seeds detect, from the pilot's spread.
    `figure`: name of the figure that shows it. Raises `UserError` on anything else.
    """

    id: str
    paper: str | None
    statement: str
    ours: str
    test: str
    margin: float
    detectable: float
    figure: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z]\w*", self.id):
            raise UserError(f"claim id {self.id!r}; allowed are letters, digits and _, a letter first")
        for field in ("statement", "ours", "figure"):
            if not getattr(self, field).strip():
                raise UserError(f"claim {self.id}: {field} is empty")
        if self.test not in TESTS:
            raise UserError(f"claim {self.id}: test is {self.test!r}; allowed are {', '.join(TESTS)}")
        most = 1.0 if self.test == share_above.__name__ else math.inf
        for field in ("margin", "detectable"):
            if not 0 < getattr(self, field) <= most:
                raise UserError(f"claim {self.id}: {field} is {getattr(self, field)}; must be above 0, at most {most}")


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Adjusted p-values `(k,)` of a family of tests, in the order given (Holm, 1979)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)))
    return adjusted


def decide(
    claims: Sequence[Claim],
    differences: Mapping[str, ArrayLike | tuple[int, int]],
    minimum_seeds: int = MINIMUM_SEEDS,
) -> dict[str, dict]:
    """Records by claim id, in the order of declaration, as claims.json holds them.

    `differences`: by claim id the paired differences `(n,)`, or `(successes, n)` for `share_above`.
    Verdict: `not reproduced` where Holm's adjusted p against the claim is below .025 (be there an effect, it is
    smaller than what matters); else `reproduced` where the adjusted p for it is; else `inconclusive`.
    The two kinds of p are each one family over `claims`.
    A record's `p` and `p_holm` are those for the claim, `p_against` and `p_against_holm` those against it.
    `n_to_decide`, of an inconclusive claim, is the number of seeds (of trials, for a share) at which the verdict nearer
    to hand would be reached with chance .8, were the estimate and the spread the true ones, at the level Holm leaves to
    the claims still open.
    Raises `UserError` on a claim without data, data without a claim, an id twice, and bad data.
    """
    ids = [claim.id for claim in claims]
    if not ids:
        raise UserError("no claims to decide; declare at least one")
    for problem, names in (
        ("claims declared twice", {name for name in ids if ids.count(name) > 1}),
        ("claims without data", set(ids) - set(differences)),
        ("data without a claim", set(differences) - set(ids)),
    ):
        if names:
            raise UserError(f"{problem}: {', '.join(sorted(names))}")
    outcomes = [_run(claim, differences[claim.id], minimum_seeds) for claim in claims]
    holm_for, holm_against = (holm([getattr(o, name) for o in outcomes]) for name in ("p_for", "p_against"))
    levels = [LEVEL / max(1, np.sum(adjusted >= LEVEL)) for adjusted in (holm_for, holm_against)]
    records = {}
    for claim, outcome, p_for, p_against in zip(claims, outcomes, holm_for, holm_against, strict=True):
        verdict = VERDICTS[1 if p_against < LEVEL else 0 if p_for < LEVEL else 2]
        records[claim.id] = {
            "paper": claim.paper,
            "statement": claim.statement,
            "ours": claim.ours,
            "test": claim.test,
            "margin": claim.margin,
            "detectable": claim.detectable,
            "n_seeds": outcome.n,
            "estimate": outcome.estimate,
            "ci": [outcome.low, outcome.high],
            "p": outcome.p_for,
            "p_holm": float(p_for),
            "p_against": outcome.p_against,
            "p_against_holm": float(p_against),
            "verdict": verdict,
            "n_to_decide": _n_to_decide(claim, differences[claim.id], outcome, *levels)
            if verdict == "inconclusive"
            else None,
            "figure": claim.figure,
        }
    return records


def remark(record: Mapping[str, object]) -> str:
    """What a record's verdict alone would hide, in few words; empty where it hides nothing.

    An inconclusive claim that the correction for the others keeps open; an effect that is surely there and smaller than
    what matters; one that goes the other way.
    """
    if record["verdict"] == VERDICTS[2]:
        alone = [word for word, p in zip(VERDICTS, ("p", "p_against"), strict=False) if record[p] < LEVEL]
        return f"uncorrected: {alone[-1]}" if alone else ""
    if record["verdict"] == VERDICTS[1] and record["test"] == greater.__name__:
        if record["ci"][1] < 0:
            return "rather the reverse"
        if record["ci"][0] > 0:
            return "there, but smaller than the margin"
    return ""


def claims_table(records: Mapping[str, dict]) -> pd.DataFrame:
    """Records as a table to show in a notebook: one row per claim, numbers to three significant digits."""
    rows = {
        name: {
            "claim": record["statement"],
            "measured as": record["ours"],
            "test": f"{record['test'].replace('_', ' ')}, margin {record['margin']:.3g}",
            "n": record["n_seeds"],
            "estimate": f"{record['estimate']:.3g}",
            "95% interval": f"[{record['ci'][0]:.3g}, {record['ci'][1]:.3g}]",
            "p for, against (Holm)": f"{record['p_holm']:.2g}, {record['p_against_holm']:.2g}",
            "verdict": record["verdict"] + (f" ({told})" if (told := remark(record)) else ""),
            "n to decide": "" if record["n_to_decide"] is None else str(record["n_to_decide"]),
            "paper": record["paper"] or "(ours)",
        }
        for name, record in records.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("id")


def write_claims(records: Mapping[str, dict], path: Path) -> None:
    """Write records as JSON, in their order, floats to six significant digits: equal evidence, equal bytes."""

    def rounded(value):
        if isinstance(value, float):
            return float(f"{value:.6g}")
        return [rounded(item) for item in value] if isinstance(value, list) else value

    content = {name: {key: rounded(value) for key, value in record.items()} for name, record in records.items()}
    write_atomic(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _run(claim: Claim, data: ArrayLike | tuple[int, int], minimum_seeds: int) -> Outcome:
    try:
        if claim.test == share_above.__name__:
            if np.shape(data) != (2,):
                raise UserError(f"a share needs (successes, n), got shape {np.shape(data)}")
            return share_above(*data, claim.margin, minimum_seeds)
        return PAIRED_TESTS[claim.test](data, claim.margin, minimum_seeds)
    except UserError as error:
        raise UserError(f"claim {claim.id}: {error}") from error


def _n_to_decide(claim: Claim, data: ArrayLike, outcome: Outcome, level_for: float, level_against: float) -> int:
    estimate, margin = outcome.estimate, claim.margin
    if claim.test == share_above.__name__:
        level = level_for if estimate > margin else level_against
        return max(outcome.n + 1, trials_needed(estimate, margin, alpha=level))
    # Distance from the estimate to the threshold it must be told from, for and against the claim; equivalence
    # must clear two thresholds, each with half the allowed chance to fail.
    distance_for, distance_against, power_for = {
        "greater": (estimate, margin - estimate, 0.8),
        "non_inferior": (margin - estimate, estimate - margin, 0.8),
        "equivalent": (margin - abs(estimate), abs(estimate) - margin, 0.9),
    }[claim.test]
    if is_constant(np.asarray(data, dtype=np.float64)):
        return MOST_SEEDS  # without spread only a difference on the threshold stays open
    sd = float(np.std(data, ddof=1))
    ways = (distance_for, power_for, level_for), (distance_against, 0.8, level_against)
    needed = [
        seeds_needed(sd, distance, power, level) if distance > 0 else MOST_SEEDS for distance, power, level in ways
    ]
    return max(outcome.n + 1, min(needed))
