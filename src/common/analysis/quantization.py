"""From the runs of the quantisation study to what its claims and figures rest on."""

import numpy as np
import pandas as pd

from common.errors import UserError
from common.evidence import mean_interval, paired_differences

BASELINE = "full precision"


def choose_learning_rates(pilot: pd.DataFrame, loss: str) -> pd.DataFrame:
    """For each setting the learning rate of least mean `loss` over the pilot's seeds, and the runs that diverged.

    A rate at which fewer runs diverge goes first, then the loss, then the smaller rate. Columns: setting,
    learning_rate, chosen, diverged, loss (NaN where all diverged).
    """
    table = pilot.groupby(["setting", "learning_rate"], sort=False, as_index=False).agg(
        diverged=("diverged_at", "count"), loss=(loss, "mean")
    )
    order = table.sort_values(["diverged", "loss", "learning_rate"]).drop_duplicates("setting").index
    table.insert(2, "chosen", table.index.isin(order))
    return table


def edges(table: pd.DataFrame) -> list[str]:
    """Settings whose chosen learning rate is the least or the largest tried, so that a better one may lie beyond.

    Settings of which all runs diverged have no best rate. `table`: see `choose_learning_rates`.
    """
    chosen = table[table["chosen"] & table["loss"].notna()]
    ends = table["learning_rate"].agg(["min", "max"]).tolist()
    return chosen[chosen["learning_rate"].isin(ends)]["setting"].tolist()


def differences(runs: pd.DataFrame, treated: str, control: str, loss: str) -> np.ndarray:
    """Loss of setting `treated` minus that of `control`, seed by seed, in the order of the seeds.

    A run that diverged counts with the loss of a model that knows nothing, `uniform_loss`: it ended no better.
    """
    ended = runs.assign(ended=runs[loss].fillna(runs["uniform_loss"]))
    by_seed = {n: ended[ended["setting"] == n].set_index("seed")["ended"].sort_index() for n in (treated, control)}
    for name, losses in by_seed.items():
        if losses.empty:
            raise UserError(f"no run has the setting {name!r}; it is one of {', '.join(runs['setting'].unique())}")
    if not by_seed[treated].index.equals(by_seed[control].index):
        raise UserError(f"{treated} and {control} were not run with the same seeds")
    # Where all runs of an arm diverged their losses are the same number, and rightly so.
    standstill = (float(runs["uniform_loss"].iloc[0]),)
    return paired_differences(by_seed[treated], by_seed[control], f"{treated} against {control}", standstill)


def diverged(runs: pd.DataFrame, setting: str) -> tuple[int, int]:
    """How many runs of a setting diverged, out of how many."""
    chosen = runs[runs["setting"] == setting]
    if chosen.empty:
        raise UserError(f"no run has the setting {setting!r}")
    return int(chosen["diverged_at"].notna().sum()), len(chosen)


def divergence_note(runs: pd.DataFrame) -> str:
    """For a figure that can't draw them: which settings diverged, in how many runs, at which steps."""
    lines = []
    for name, rows in runs[runs["diverged_at"].notna()].groupby("setting", sort=False):
        first, last = int(rows["diverged_at"].min()), int(rows["diverged_at"].max())
        ended, total = diverged(runs, name)
        lines.append(f"{name}: {ended} of {total} runs diverged, at steps {first} to {last}")
    return "\n".join(lines)


def pooled_spread(pilot: pd.DataFrame, loss: str) -> float:
    """Standard deviation of the paired differences to the baseline at each setting's chosen rate, pooled over settings.

    Settings of which a run diverged are left out: they have no differences.
    """
    rates = choose_learning_rates(pilot, loss)
    chosen = pilot.merge(rates[rates["chosen"]][["setting", "learning_rate"]])
    whole = [name for name, rows in chosen.groupby("setting", sort=False) if rows[loss].notna().all()]
    variances = [differences(chosen, name, BASELINE, loss).var(ddof=1) for name in whole if name != BASELINE]
    return float(np.sqrt(np.mean(variances)))


def difference_table(runs: pd.DataFrame, texts: dict[str, str]) -> pd.DataFrame:
    """Mean difference to the baseline with its 95% interval, for every setting that never diverged and every text.

    `texts` maps the column of a loss to the name of its text. Columns: setting, text, seeds, low, high, estimate.
    """
    rows = []
    for name in runs["setting"].unique():
        if name == BASELINE or diverged(runs, name)[0]:
            continue
        for loss, text in texts.items():
            interval = mean_interval(differences(runs, name, BASELINE, loss))
            numbers = {"seeds": interval.n, "low": interval.low, "high": interval.high, "estimate": interval.mean}
            rows.append({"setting": name, "text": text, **numbers})
    return pd.DataFrame(rows)


def curve_table(runs: pd.DataFrame, curves: pd.DataFrame, loss: str) -> pd.DataFrame:
    """Mean `loss` over seeds along training, with the lowest and highest seed: setting, tokens, low, high, mean.

    Settings of which a run diverged are left out: a mean over the survivors would flatter them.
    """
    whole = [name for name in runs["setting"].unique() if not diverged(runs, name)[0]]
    joined = curves.merge(runs.loc[runs["setting"].isin(whole), ["key", "setting"]], on="key")
    table = joined.groupby(["setting", "tokens"], sort=False)[loss].agg(low="min", high="max", mean="mean")
    return table.reset_index()
