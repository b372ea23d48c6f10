"""The study's findings in words, which the verdicts choose and the results fill in (see `common.evidence.prose`)."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from common.analysis.quantization.runs import BASELINE, differences, diverged
from common.evidence import mean_interval
from common.quantization import Recipe

SUMMARY = """
**Weights.** Eight bits per channel {W8:are no worse than|are worse than|are not shown to be as good as} full precision
({W8.estimate:+.4f} nats a token, {W8.ci:+.4f}). Four bits {W4_tensor:are worse|are hardly worse|may be worse} per
tensor ({W4_tensor.estimate:+.3f}) and {W4_channel:are worse|are hardly worse|may be worse} per channel
({W4_channel.estimate:+.3f}). Per tensor, sharpness at the end is {sharper_by:.2g} times full precision's: they
{W4_sharper:end in sharper minima|end in hardly sharper minima|may end in sharper minima}. For
four-bit activations or gradients alone, the interval of this ratio lies above one for: {sharper}; it does not for:
{not_sharper}.

**Activations.** Eight bits per token {A8:do as well as|do not do as well as|are not shown to do as well as} full
precision ({A8.estimate:+.4f}, {A8.ci:+.4f}). Four bits {A4_token:are worse|are hardly worse|may be worse} per token
({A4_token.estimate:+.3f}) and {A4_tensor:are worse|are hardly worse|may be worse} per tensor
({A4_tensor.estimate:+.3f}).

**Outliers** injected into trained models {outliers:raise|do not notably raise|may raise} the loss of A4 tensor (by
{outliers.estimate:+.2f}, {outliers.ci:+.2f}). Where training begins with them, the cost of A4 token
changes by {outliers_trained.estimate:+.3f} ({outliers_trained.ci:+.3f}): it
{outliers_trained:rises|does not notably rise|may rise}. {weights_too}

**Gradients.** At eight bits ({G8_A8.estimate:+.3f}) gradients
{G8_A8:are harder to quantise than activations|are hardly harder to quantise than activations|cannot be shown to be
harder to quantise than activations}. At four bits they
{G4_A4_token:are harder|are hardly harder|may be harder} per token ({G4_A4_token.estimate:+.3f}) and
{G4_A4_tensor:are harder|are hardly harder|may be harder} per tensor ({G4_A4_tensor.estimate:+.3f}).

**Together,** weights and activations of eight bits ({W8A8.estimate:+.4f}, {W8A8.ci:+.4f})
{W8A8:are safe|are not safe|are not shown to be safe}.

**Adam.** A first moment of four bits {m1_tensor:hurts|hardly hurts|may hurt} per tensor ({m1_tensor.estimate:+.3f}) and
{m1_channel:does no harm that matters|does harm|is not shown to be harmless} per channel ({m1_channel.estimate:+.3f}).
With a second moment of eight bits and evenly spaced levels {lost} runs diverge; where such a run counts with the
loss of a model that knows nothing, the cost is {m2_linear.estimate:+.2f}: this
{m2_linear:hurts|hardly hurts|may hurt}. With levels of equal ratio ({m2_log.estimate:+.3f}, {m2_log.ci:+.3f}) it
{m2_log:does no harm that matters|does harm|is not shown to be harmless}.
"""


def spoken(
    runs: pd.DataFrame, hard: pd.DataFrame, sharpness: pd.DataFrame, decided: Mapping[str, Mapping], loss: str
) -> dict[str, float | str]:
    """Numbers and names of the summary. `hard`: the runs trained with outliers; `sharpness`: see `sharpness_table`."""
    sharper, others = by_sharpness(sharpness)
    return {
        "sharper_by": float(np.exp(decided["W4_sharper"]["estimate"])),
        "sharper": sharper,
        "not_sharper": others,
        "weights_too": weights_with_outliers(runs, hard, loss),
        "lost": "{} of {}".format(*diverged(runs, "m2 8 channel")),
    }


def by_sharpness(table: pd.DataFrame) -> tuple[str, str]:
    """Settings of four-bit activations or gradients alone: those surely in sharper minima than the baseline, the rest.

    Each with its ratio and the interval; "none" where there are none.
    """
    sides: dict[bool, list[str]] = {True: [], False: []}
    for row in table.itertuples():
        quantizers = Recipe.named(row.setting).quantizers()
        bits = {component: quantizer.bits for component, quantizer in quantizers.items()}
        if bits in ({"activations": 4}, {"gradients": 4}):
            sides[row.low > 1].append(f"{row.setting} ×{row.estimate:.2f} [{row.low:.2f}, {row.high:.2f}]")
    return ", ".join(sides[True]) or "none", ", ".join(sides[False]) or "none"


def weights_with_outliers(runs: pd.DataFrame, hard: pd.DataFrame, loss: str, setting: str = "W4 tensor") -> str:
    """How much more weights of few bits cost where training begins with outliers; empty where they were not tried."""
    if setting not in set(hard["setting"]):
        return ""
    with_them, without = (differences(some, setting, BASELINE, loss) for some in (hard, runs))
    rise = mean_interval(with_them - without)
    said = f"That of {setting} changes by {rise.mean:+.3f} ([{rise.low:+.3f}, {rise.high:+.3f}])"
    told = "outliers are not a matter of activations alone" if rise.low > 0 else "that it rises is not shown"
    return f"{said}: {told}."
