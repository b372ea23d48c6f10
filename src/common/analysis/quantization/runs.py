"""From the runs of the quantisation study to what its claims and figures of training rest on."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from common.errors import UserError
from common.evidence import mean_interval, paired_differences
from common.quantization import Recipe
from common.quantization.recipe import COMPONENTS
from common.quantization.recipe import FULL_PRECISION as BASELINE
from common.sweep import grid

GROUPS = {"weights": "weights", "activations": "activations", "gradients": "gradients"}


def groups_of(labels: Sequence[str]) -> dict[str, str]:
    """Group of each setting but the baseline: the component that it quantises, `moments`, or `together` for several."""
    groups = {}
    for label in labels:
        components = list(Recipe.named(label).quantizers())
        if components:
            groups[label] = GROUPS.get(components[0], "moments") if len(components) == 1 else "together"
    return groups


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


def cells_at(rates: pd.DataFrame, recipes: Sequence[str], **axes: Sequence[object]) -> list[dict[str, object]]:
    """The cells of a grid in which each recipe has the learning rate chosen for it in `rates`.

    Raises `UserError` for a recipe that was not tried.
    """
    chosen = rates[rates["chosen"]].set_index("setting")["learning_rate"]
    if untried := set(recipes) - set(chosen.index):
        raise UserError(f"no learning rate was chosen for {', '.join(sorted(untried))}; add them to recipes")
    return [cell for recipe in recipes for cell in grid(recipe=[recipe], learning_rate=[float(chosen[recipe])], **axes)]


def edges(table: pd.DataFrame) -> str:
    """Settings whose chosen learning rate is the least or the largest tried, so that a better one may lie beyond.

    Settings of which all runs diverged have no best rate. `table`: see `choose_learning_rates`.
    """
    chosen = table[table["chosen"] & table["loss"].notna()]
    ends = table["learning_rate"].agg(["min", "max"]).tolist()
    return ", ".join(chosen[chosen["learning_rate"].isin(ends)]["setting"]) or "none"


def differences(runs: pd.DataFrame, treated: str, control: str, metric: str) -> np.ndarray:
    """Metric of setting `treated` minus that of `control`, seed by seed, over the seeds that both were run with.

    Where `metric` is a loss, a run that diverged counts with that of a model that knows nothing, `uniform_loss`: it
    ended no better. `log_sharpness` is the logarithm of `sharpness`.
    Raises `UserError` where another metric is missing, or one arm's seeds are not among the other's.
    """
    values, standstill = np.log(runs["sharpness"]) if metric == "log_sharpness" else runs[metric], ()
    if metric.startswith("loss_"):
        values = values.fillna(runs["uniform_loss"])
        # Where all runs of an arm diverged their losses are the same number, and rightly so.
        standstill = (float(runs["uniform_loss"].iloc[0]),)
    by_seed = {}
    for name in (treated, control):
        chosen = runs["setting"] == name
        if not chosen.any():
            raise UserError(f"no run has the setting {name!r}; it is one of {', '.join(runs['setting'].unique())}")
        if values[chosen].isna().any():
            raise UserError(f"{metric} is missing in a run of {name}")
        by_seed[name] = values[chosen].set_axis(runs.loc[chosen, "seed"]).sort_index()
    both = by_seed[treated].index.intersection(by_seed[control].index)
    if len(both) < min(len(by_seed[treated]), len(by_seed[control])):
        raise UserError(f"{treated} and {control} were not run with the same seeds")
    return paired_differences(
        by_seed[treated][both], by_seed[control][both], f"{metric} of {treated} against {control}", standstill
    )


def diverged(runs: pd.DataFrame, setting: str) -> tuple[int, int]:
    """How many runs of a setting diverged, out of how many."""
    chosen = runs[runs["setting"] == setting]
    if chosen.empty:
        raise UserError(f"no run has the setting {setting!r}")
    return int(chosen["diverged_at"].notna().sum()), len(chosen)


def divergence_notes(runs: pd.DataFrame, groups: Mapping[str, str]) -> dict[str, str]:
    """By group, for figures that can't draw them: which settings diverged, in how many runs, at which steps."""
    notes: dict[str, list[str]] = {}
    for name, rows in runs[runs["diverged_at"].notna()].groupby("setting", sort=False):
        first, last = int(rows["diverged_at"].min()), int(rows["diverged_at"].max())
        ended, total = diverged(runs, name)
        line = f"{name}: {ended} of {total} runs diverged, at steps {first} to {last}"
        notes.setdefault(groups[name], []).append(line)
    return {group: "\n".join(lines) for group, lines in notes.items()}


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


def difference_tables(parts: Mapping[str, pd.DataFrame], name: str, loss: str) -> pd.DataFrame:
    """`difference_table` of some sets of runs, each against its own baseline; column `name` says whose a row is."""
    tables = [difference_table(runs, {loss: part}) for part, runs in parts.items()]
    return pd.concat(tables, ignore_index=True).rename(columns={"text": name})


def disagreements(table: pd.DataFrame) -> str:
    """Settings whose interval excludes zero on another text but not, or with the other sign, on the first; in words.

    `table`: see `difference_table`; "none" where there is no such setting.
    """
    sides = table.assign(side=np.sign(table["low"]) * (np.sign(table["low"]) == np.sign(table["high"])))
    first = sides[sides["text"] == sides["text"].iloc[0]].set_index("setting")["side"]
    others = sides[(sides["side"] != 0) & (sides["side"] != sides["setting"].map(first))]
    words = [f"{r.setting} {r.estimate:+.3f} [{r.low:+.3f}, {r.high:+.3f}]" for r in others.itertuples()]
    return "; ".join(words) or "none"


def curve_table(runs: pd.DataFrame, curves: pd.DataFrame, loss: str) -> pd.DataFrame:
    """Mean `loss` over seeds along training, with the lowest and highest seed: setting, tokens, low, high, mean.

    Settings of which a run diverged are left out: a mean over the survivors would flatter them.
    """
    whole = [name for name in runs["setting"].unique() if not diverged(runs, name)[0]]
    joined = curves.merge(runs.loc[runs["setting"].isin(whole), ["key", "setting"]], on="key")
    table = joined.groupby(["setting", "tokens"], sort=False)[loss].agg(low="min", high="max", mean="mean")
    return table.reset_index()


def perplexity_table(runs: pd.DataFrame, texts: Mapping[str, str]) -> pd.DataFrame:
    """Final perplexity, exp(mean loss), with its 95% interval over seeds, of each setting that never diverged.

    `texts` maps the column of a loss to the name of its text. Columns: setting, text, low, high, estimate.
    """
    rows = []
    for name, own in runs.groupby("setting", sort=False):
        if own["diverged_at"].notna().any():
            continue
        for loss, text in texts.items():
            interval = mean_interval(own[loss])
            numbers = {key: float(np.exp(getattr(interval, key))) for key in ("low", "high")}
            rows.append({"setting": name, "text": text, **numbers, "estimate": float(np.exp(interval.mean))})
    return pd.DataFrame(rows)


def sharpness_table(runs: pd.DataFrame) -> pd.DataFrame:
    """m-sharpness over the baseline's with the same seed, geometric mean and 95% interval over seeds.

    Settings of which a run diverged are left out. Columns: setting, low, high, estimate.
    """
    rows = []
    for name in runs["setting"].unique():
        if name != BASELINE and not diverged(runs, name)[0]:
            interval = mean_interval(differences(runs, name, BASELINE, "log_sharpness"))
            low, high, middle = np.exp([interval.low, interval.high, interval.mean]).tolist()
            rows.append({"setting": name, "low": low, "high": high, "estimate": middle})
    return pd.DataFrame(rows)


def effect_table(runs: pd.DataFrame) -> pd.DataFrame:
    """What each setting's quantisers did: learning rate, layers covered, and relative error by component, over seeds.

    Errors are those after a run's last step or, where it diverged, at its initial weights; "–" stands where a component
    is not quantised.
    """
    errors = {f"error_{component}": component.replace("_", " ") for component in COMPONENTS}
    own = runs.groupby("setting", sort=False)[["learning_rate", "quantized_layers", *errors]].mean()
    shown = own.rename(columns={"learning_rate": "learning rate", "quantized_layers": "layers"} | errors)
    shown = shown.map(lambda value: "–" if pd.isna(value) else f"{value:.3g}")
    return shown.assign(diverged=["{} of {}".format(*diverged(runs, name)) for name in shown.index])


# Perplexities of the unquantised baseline in the authors' code (arXiv 2407.11722): GPT-2 small, OpenWebText.
AUTHORS = {"WikiText-2": 34.32, "WikiText-103": 39.94, "Penn Treebank": 35.13, "One Billion Word": 44.03}


def beside_the_authors(perplexities: pd.DataFrame) -> pd.DataFrame:
    """Perplexities of the baseline: the authors' and, by `perplexity_table`, ours; other texts, tokens and sizes."""
    ours = perplexities[perplexities["setting"] == BASELINE].set_index("text")["estimate"]
    rows = [("theirs", text, value) for text, value in AUTHORS.items()]
    rows += [("ours", text, round(value, 2)) for text, value in ours.items()]
    return pd.DataFrame(rows, columns=["whose", "text", "perplexity"]).set_index(["whose", "text"])
