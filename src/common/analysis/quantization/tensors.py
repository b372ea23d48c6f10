"""From the tables of examined runs to what the figures and claims about single tensors rest on."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from common.errors import UserError
from common.quantization import Recipe


def of_runs(runs: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table that `runs` returned, with their seed. Raises `UserError` where there are none."""
    joined = table.merge(runs[["key", "seed"]], on="key")
    if joined.empty:
        raise UserError("none of these runs was examined: only those in full precision are")
    return joined


def over_seeds(table: pd.DataFrame, by: list[str], value: str) -> pd.DataFrame:
    """Mean of `value` over seeds with the lowest and the highest seed, columns `by`, low, high, mean."""
    return table.groupby(by, sort=False)[value].agg(low="min", high="max", mean="mean").reset_index()


def layer_table(table: pd.DataFrame, statistics: Mapping[str, str]) -> pd.DataFrame:
    """Some columns of a table of layers, each under its name: layer, setting, statistic, low, high, mean over seeds."""
    long = table.rename(columns=dict(statistics)).melt(
        ["layer", "setting"], list(statistics.values()), "statistic", "value"
    )
    return over_seeds(long, ["layer", "setting", "statistic"], "value")


def histogram(table: pd.DataFrame) -> pd.DataFrame:
    """Mean share over seeds of each bin: component, low, high (decades, the bin's bounds), share."""
    return table.groupby(["component", "low", "high"], sort=False)["share"].mean().reset_index()


def outlier_table(table: pd.DataFrame) -> pd.DataFrame:
    """Perplexity by setting and scale of injected outliers: panel, setting, scale, low, high, mean over seeds."""
    rows = over_seeds(table.assign(perplexity=np.exp(table["loss"])), ["setting", "scale"], "perplexity")
    panels = {}
    for label in rows["setting"].unique():
        ((component, quantizer),) = Recipe.named(label).quantizers().items()
        panels[label] = f"{quantizer.bits}-bit {component}"
    rows.insert(0, "panel", rows["setting"].map(panels))
    return rows


def surface_table(runs: Mapping[str, pd.DataFrame], table: pd.DataFrame) -> pd.DataFrame:
    """Magnitudes of activations in the first examined run of each part: model, token, channel, magnitude."""
    parts = []
    for model, own in runs.items():
        rows = of_runs(own, table)
        parts.append(rows[rows["key"] == rows["key"].iloc[0]].assign(model=model))
    return pd.concat(parts)[["model", "token", "channel", "magnitude"]]


def outlier_growth(surfaces: pd.DataFrame, model: str, channels: int) -> float:
    """How many times as large as the others the first `channels` are in a model of `surface_table`, by their means."""
    own = surfaces[surfaces["model"] == model]
    first = own["channel"] < channels
    return float(own.loc[first, "magnitude"].mean() / own.loc[~first, "magnitude"].mean())


def outlier_rises(table: pd.DataFrame, setting: str, scale: float) -> pd.Series:
    """By seed, the loss of `setting` with outliers of `scale` minus that without: nats per token."""
    own = table[table["setting"] == setting]
    losses = own.pivot(index="seed", columns="scale", values="loss")
    if missing := {1.0, scale} - set(losses.columns):
        raise UserError(f"outlier_scales lacks {missing}: a claim rests on the losses of {setting} there")
    return losses[scale] - losses[1.0]


def zero_shares(table: pd.DataFrame, setting: str) -> pd.Series:
    """By seed, the share of entries that `setting` rounds to zero, mean over layers."""
    own = table[table["setting"] == setting]
    if own.empty:
        raise UserError(f"examination: recipes lacks {setting}, and a claim rests on it")
    return own.groupby("seed")["zero_share"].mean()
