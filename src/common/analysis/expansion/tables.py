"""The tables that are drawn, and the numbers that sentences rest on."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from common.analysis.expansion.claims import REST, TASKS
from common.analysis.expansion.foresight import (
    MEAN,
    PREDICTORS,
    RUN,
    by_seed,
    with_run,
)
from common.evidence import mean_interval
from common.predictors import Walk

ENDS = {"": "estimate", "_low": "low", "_high": "high"}


def choice_table(rates: pd.DataFrame, courses: Mapping[str, Mapping]) -> pd.DataFrame:
    """Learning rates tried for short runs, to be shown: by kind of network, over the rate of continued training."""
    own = rates["kind"].map(lambda kind: courses[kind]["further"]["learning_rate"])
    return rates.assign(**{"÷ rate of continued training": (rates["rate"] / own).round(2)}).round({"correlation": 2})


def pilot_table(pilot: pd.DataFrame, way: Mapping[str, Mapping[str, int]]) -> pd.DataFrame:
    """What the pilot says of each predictor: whether more or less of it promises gain, and its rank correlation.

    The former by kind of network, the latter by task.
    """
    rows = [
        {
            "predictor": words,
            **{f"promising, {kind}": "more" if sign[name] > 0 else "less" for kind, sign in way.items()},
            **by_seed(pilot, name).groupby(level=0).mean().round(2).to_dict(),
        }
        for name, words in PREDICTORS.items()
    ]
    return pd.DataFrame(rows).set_index("predictor")


def change_table(scored: pd.DataFrame) -> pd.DataFrame:
    """M before and after, and the gain, by task and candidate: task, type, candidate, operator, parameters, …

    `before` and `after` are means over seeds; `estimate`, `low`, `high` of their difference; and `gain` with
    `gain_low` and `gain_high`; 95% by t over seeds.
    """
    rows = []
    for (task, candidate), own in scored.groupby(["task", "candidate"], sort=False):
        mean, low, high, _ = mean_interval(own["after"] - own["before"])
        gain, gain_low, gain_high, _ = mean_interval(own["gain"])
        first = own.iloc[0]
        place = {"task": task, "type": first["type"], "candidate": candidate, "operator": first["operator"]}
        place |= {"parameters": int(first["size"]), "before": own["before"].mean(), "after": own["after"].mean()}
        place |= {"estimate": mean, "low": low, "high": high}
        rows.append(place | {"gain": gain, "gain_low": gain_low, "gain_high": gain_high})
    return pd.DataFrame(rows)


def gain_table(scored: pd.DataFrame, predictors: Sequence[str]) -> pd.DataFrame:
    """A point a task, predictor and candidate, means over seeds: task, predictor, candidate, type, score, gain."""
    rows = []
    for (task, candidate), own in scored.groupby(["task", "candidate"], sort=False):
        for predictor in predictors:
            score = own["after"] - own["before"] if predictor == "m" else own[predictor]
            place = {"task": task, "predictor": predictor, "candidate": candidate, "type": own["type"].iloc[0]}
            rows.append(place | {"score": float(score.astype(float).mean()), "gain": float(own["gain"].mean())})
    return pd.DataFrame(rows)


def cost_table(
    scored: pd.DataFrame, short: pd.DataFrame, cost: pd.DataFrame, rates: Mapping[str, float]
) -> pd.DataFrame:
    """Rank correlation and cost in training steps, by task and predictor; short runs at every share of M's cost.

    Columns: task, predictor, steps, correlation, the mean over seeds. What costs nothing is at one step.
    """
    rows = []
    for task, own in scored.groupby("task", sort=False):
        price = cost[cost["key"] == own["key"].iloc[0]].set_index("predictor")["steps"]
        for predictor in PREDICTORS:
            if predictor != RUN:
                steps = max(float(price[predictor]), 1.0)
                rows.append((task, predictor, steps, float(by_seed(own, predictor).mean())))
        runs = short[short["key"].isin(own["key"])]
        for share in sorted(runs["share"].unique()):
            told = with_run(own, runs, rates, share)
            steps = float(runs.loc[np.isclose(runs["share"], share), "steps"].iloc[0])
            rows.append((task, RUN, steps, float(by_seed(told, RUN).mean())))
    return pd.DataFrame(rows, columns=["task", "predictor", "steps", "correlation"])


def curve_table(runs: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """Mean test loss in continued training, of the base too: task, type, candidate, operator, step, test_loss."""
    labels = runs.set_index("key")[["task", "type", "candidate", "operator"]]
    told = curves[curves["key"].isin(labels.index)].join(labels, on="key")
    by = ["task", "type", "candidate", "operator", "step"]
    told = told.assign(test_loss=told["test_loss"].astype(float))
    return told.groupby(by, sort=False, as_index=False)["test_loss"].mean()


def walk_correlations(walked: pd.DataFrame, walks: pd.DataFrame, scored: pd.DataFrame) -> pd.DataFrame:
    """Rank correlation of M with the gain by task, seed, count (of continuations) and steps, with `correlation`.

    And `at_ends`, that of M with the losses of the minima alone, which knows of no barrier.
    """
    labels = walked.set_index("key")[["task", "candidate", "seed"]]
    told = walks[walks["key"].isin(labels.index)].join(labels, on="key")
    told = told.merge(scored[["task", "candidate", "seed", "gain"]], on=["task", "candidate", "seed"], validate="m:1")
    rows = []
    for (count, steps), own in told.groupby(["count", "steps"]):
        whole, at_ends = by_seed(own, "m"), by_seed(own, "m_at_ends")
        for (task, seed), correlation in whole.items():
            place = {"task": task, "seed": seed, "count": int(count), "steps": int(steps)}
            rows.append(place | {"correlation": correlation, "at_ends": at_ends[task, seed]})
    return pd.DataFrame(rows)


def surface_table(sliced: pd.DataFrame, surface: pd.DataFrame, minima: pd.DataFrame) -> pd.DataFrame:
    """Points of the slices and the minima in them: candidate, minimum (0 for a point of the plane), x, y, loss."""
    labels = sliced.set_index("key")["candidate"]
    rows = pd.concat([surface.assign(minimum=0), minima], ignore_index=True)
    rows = rows[rows["key"].isin(labels.index)].join(labels, on="key")
    rows = rows[["candidate", "minimum", "x", "y", "loss"]].reset_index(drop=True)
    return rows.astype({"minimum": int, "x": float, "y": float, "loss": float})


def spoken(
    scored: pd.DataFrame,
    power: pd.DataFrame,
    lead: pd.DataFrame,
    missed: pd.DataFrame,
    decided: Mapping[str, Mapping],
) -> dict[str, float | str]:
    """Numbers and names of the summary.

    `power`, `lead`, `missed` (regrets): of every predictor; `decided`: the claims' records.
    """
    estimates, leads, regrets = (table.set_index(["task", "predictor"]) for table in (power, lead, missed))
    found: dict[str, float | str] = {}
    for task in TASKS:
        found |= {f"{name}_{task}": float(estimates.loc[(task, name), "estimate"]) for name in (RUN, "level", "m_c")}
        found |= {f"missed_{name}_{task}": float(regrets.loc[(task, name), "estimate"]) for name in ("m", RUN)}
        for end in ("low", "high"):
            found[f"m_{task}_{end}"] = float(estimates.loc[(task, "m"), end])
            found[f"lead_{task}_{end}"] = float(leads.loc[(task, RUN), end])
        found[f"ahead_{task}"] = reversal(decided[f"beats_run_{task}"])
    barred = (scored["connected"].astype(float) < 1).groupby(scored["task"]).mean()
    beaten = [name for name in REST if decided[f"beats_{name}"]["verdict"] == "reproduced"]
    names = {name: PREDICTORS[name] for name in REST}
    across_zero = [f"on {TASKS[task]}" for task in TASKS if found[f"m_{task}_low"] <= 0 <= found[f"m_{task}_high"]]
    weights = leads.loc[(MEAN, "m_c")]
    return found | {
        **{f"lead_mean{end}": float(leads.loc[(MEAN, RUN), name]) for end, name in ENDS.items()},
        **{f"lead_m_c{end}": float(weights[name]) for end, name in ENDS.items()},
        **{f"{name}_mean": float(estimates.loc[(MEAN, name), "estimate"]) for name in ("m", "m_c")},
        "than_m_c": against_weights(*(float(weights[name]) for name in ENDS.values())),
        "ahead_equal": reversal(decided["equal_size_run"]),
        "open": ", ".join(across_zero) or "nowhere",
        "tolerance": Walk.tolerance,
        "barrier": float(scored["barrier"].astype(float).max()),
        **{f"barred_{task}": float(share) for task, share in barred.items()},
        "clear": float(sum(leads.loc[(MEAN, name), "low"] > 0 for name in REST)),
        "others": float(len(REST)),
        "beaten": ", ".join(names[name] for name in beaten) or "none",
        "unbeaten": ", ".join(words for name, words in names.items() if name not in beaten) or "none",
    }


def reversal(record: Mapping[str, object]) -> str:
    """What is said behind "M does not predict better" where the training run surely does."""
    return ": the training run does" if record["verdict"] == "not reproduced" and record["ci"][1] < 0 else ""


def against_weights(estimate: float, low: float, high: float) -> str:
    """What M's lead over the volume in weights alone, with its interval, says of the other two terms of M."""
    if low > 0:
        return "its other two terms help"
    if high < 0:
        return "its other two terms harm"
    return f"M ranks {'no better' if estimate <= 0 else 'better'} here, and that its other two terms help is not shown"


def flat(decided: Mapping[str, Mapping], power: pd.DataFrame) -> dict[str, float]:
    """A few numbers for `dvc metrics`."""
    estimates = power.set_index(["task", "predictor"])["estimate"]
    found = {f"{name}_{task}": float(estimates[(task, name)]) for task in TASKS for name in ("m", RUN)}
    return found | {"reproduced": sum(record["verdict"] == "reproduced" for record in decided.values())}
