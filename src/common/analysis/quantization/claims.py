"""What the study claims, how each claim is tested, and the numbers that decide it.

The order is: `declare`, from the pilot alone, before the reported runs; then `evidence`, from these.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from common.analysis.quantization.runs import BASELINE, differences
from common.analysis.quantization.tensors import of_runs, outlier_rises, zero_shares
from common.evidence import Claim, detectable_effect

W8A8, LOG = "W8 channel + A8 token", "m2 8 channel log-stochastic"
GREATER, SAFE, EQUAL = "greater", "non_inferior", "equivalent"
HARDER = "gradients are harder to quantise than activations"
SHARPER = "weights: 4 bits end in sharper minima"
IMPUTED = ", a run that diverged counted at the loss of a model that knows nothing"


class Comparison(NamedTuple):
    """Two settings, paired by seed.

    `paper`: its claim in our words, None where the claim is ours alone. `note`: what else is to be said of what is
    measured.
    """

    id: str
    paper: str | None
    treated: str
    test: str
    control: str = BASELINE
    figure: str = "final_differences"
    note: str = ""


ON_LOSS = (
    Comparison("W8", "weights: 8 bits per channel do as well as the baseline", "W8 channel", SAFE),
    Comparison("W4_tensor", "weights: 4 bits hurt", "W4 tensor", GREATER),
    Comparison("W4_channel", "weights: 4 bits hurt", "W4 channel", GREATER),
    Comparison("W4_scales", None, "W4 tensor", GREATER, "W4 channel"),
    Comparison("A8", "activations: 8 bits do as well as the baseline", "A8 token", EQUAL),
    Comparison("A4_token", "activations: 4 bits fail", "A4 token", GREATER),
    Comparison("A4_tensor", "activations: 4 bits fail", "A4 tensor", GREATER),
    Comparison("G8_A8", HARDER, "G8 token", GREATER, "A8 token"),
    Comparison("G4_A4_token", HARDER, "G4 token", GREATER, "A4 token"),
    Comparison("G4_A4_tensor", HARDER, "G4 tensor", GREATER, "A4 tensor"),
    Comparison("W8A8", "8-bit weights and activations together are safe", W8A8, SAFE),
    Comparison("W8A8G8", None, f"{W8A8} + G8 token", SAFE),
    Comparison("m1_tensor", None, "m1 4 tensor", GREATER),
    Comparison("m1_channel", None, "m1 4 channel", SAFE),
    Comparison("m2_linear", None, "m2 8 channel", GREATER, figure="loss_curves", note=IMPUTED),
    Comparison("m2_log", None, LOG, SAFE),
    Comparison("m2_remedy", None, "m2 8 channel", GREATER, LOG, figure="loss_curves", note=IMPUTED),
)
ON_SHARPNESS = (
    Comparison("W4_sharper", SHARPER, "W4 tensor", GREATER, figure="sharpness"),
    Comparison("W4_W8_sharper", SHARPER, "W4 tensor", GREATER, "W8 channel", figure="sharpness"),
)
SETTINGS = {setting for one in ON_LOSS + ON_SHARPNESS for setting in (one.treated, one.control)}
# What a comparison states, by its test.
OF_LOSS = {GREATER: "is worse than", SAFE: "is no worse than", EQUAL: "does as well as"}
OF_SHARPNESS = {GREATER: "ends in a sharper minimum than"}


def declare(
    pilot: pd.DataFrame,
    rates: pd.DataFrame,
    table: Callable[[str], pd.DataFrame],
    *,
    loss: str,
    seeds: int,
    margin: float,
    sharpness_margin: float,
    zero_margin: float,
    outlier_scale: float,
) -> list[Claim]:
    """The claims, each with the smallest effect that so many `seeds` would see four times in five.

    That is by the spread of the same differences between the pilot's seeds, at the chosen `rates` and at the level that
    Holm's correction leaves to the first claim. `table(name)` is a table that the pilot's runs returned. Margins: nats
    per token, logarithms of a ratio, and shares of a tensor's entries.
    """
    at_best = pilot.merge(rates.loc[rates["chosen"], ["setting", "learning_rate"]])
    found = paired(at_best, loss) | inside_models(at_best, table, outlier_scale)
    # No pilot trains with outliers: a difference of two differences has twice the variance of one.
    found["outliers_trained"] = differences(at_best, "A4 token", BASELINE, loss) * 2**0.5
    level = 0.025 / len(found)
    # Two settings that diverged alike have no spread.
    spreads = {name: max(float(np.std(values, ddof=1)), 1e-6) for name, values in found.items()}
    see = {name: detectable_effect(spread, seeds, alpha=level) for name, spread in spreads.items()}
    claims = [
        Claim(
            id=one.id,
            paper=one.paper,
            statement=f"{one.treated} {verbs[one.test]} {one.control}",
            ours=f"{measured} that of {one.control}, paired by seed{one.note}",
            test=one.test,
            margin=allowed,
            detectable=see[one.id],
            figure=one.figure,
        )
        for comparisons, verbs, measured, allowed in (
            (ON_LOSS, OF_LOSS, "final validation loss minus", margin),
            (ON_SHARPNESS, OF_SHARPNESS, "logarithm of the m-sharpness over", sharpness_margin),
        )
        for one in comparisons
    ]
    claims += [
        Claim(
            id="outliers",
            paper="activations: 4 bits fail on outliers",
            statement=f"A4 tensor loses once a few channels are {outlier_scale:g} times as large",
            ours="rise of the validation loss by outliers injected into trained models, whose function stays",
            test=GREATER,
            margin=margin,
            detectable=see["outliers"],
            figure="outliers",
        ),
        Claim(
            id="outliers_trained",
            paper="activations: 4 bits fail on outliers",
            statement=f"A4 token costs more where training begins with channels {outlier_scale:g} times as large",
            ours="its loss minus that of full precision, with outliers minus without, paired by seed",
            test=GREATER,
            margin=margin,
            detectable=see["outliers_trained"],
            figure="outlier_training",
        ),
        Claim(
            id="sparse",
            paper="gradients are hard because they are sparse (tested: that they are, not that this is why)",
            statement="G4 tensor rounds a larger share of entries to zero than A4 tensor",
            ours="share of non-zero entries that rounding makes zero, among the outputs' gradients minus among "
            "activations, mean over layers",
            test=GREATER,
            margin=zero_margin,
            detectable=see["sparse"],
            figure="gradient_errors",
        ),
    ]
    return claims


def evidence(
    runs: pd.DataFrame, hard: pd.DataFrame, table: Callable[[str], pd.DataFrame], *, loss: str, outlier_scale: float
) -> dict[str, object]:
    """What decides each claim, by its id: differences by seed. `hard` are the runs trained with outliers."""
    costs = [differences(some, "A4 token", BASELINE, loss) for some in (hard, runs)]
    return {
        **paired(runs, loss),
        **inside_models(runs, table, outlier_scale),
        "outliers_trained": costs[0] - costs[1],
    }


def paired(runs: pd.DataFrame, loss: str) -> dict[str, np.ndarray]:
    """What the claims about two settings rest on, by claim: differences by seed."""
    return {
        one.id: differences(runs, one.treated, one.control, metric)
        for claims, metric in ((ON_LOSS, loss), (ON_SHARPNESS, "log_sharpness"))
        for one in claims
    }


def inside_models(
    runs: pd.DataFrame, table: Callable[[str], pd.DataFrame], outlier_scale: float
) -> dict[str, pd.Series]:
    """What the claims about trained models rest on, by seed of the runs in full precision."""
    outliers, gradients, outputs = (
        of_runs(runs, table(name)) for name in ("outliers", "gradient_errors", "output_errors")
    )
    return {
        "outliers": outlier_rises(outliers, "A4 tensor", outlier_scale),
        "sparse": zero_shares(gradients, "G4 tensor") - zero_shares(outputs, "A4 tensor"),
    }
