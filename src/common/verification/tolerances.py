"""How far two numbers may lie apart and still count as the same, by the metric they are of.

Sums in another order differ in their last bits; training amplifies that. The tolerances are what separates such
differences from those that another seed makes, which are several times larger.
"""

import re
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Tolerance(NamedTuple):
    """Numbers agree where they differ by at most `absolute` + `relative` × the larger magnitude."""

    relative: float
    absolute: float

    def allows(self, one: ArrayLike, other: ArrayLike) -> NDArray[np.bool_]:
        return np.abs(one - other) <= self.absolute + self.relative * np.maximum(np.abs(one), np.abs(other))

    def __str__(self) -> str:
        shown = f"{self.relative:g} of the value" if self.relative else ""
        return " + ".join(part for part in (shown, f"{self.absolute:g}" if self.absolute else "") if part) or "none"


# The first that fits a metric's name. Counts, seeds and whatever else is a whole number must be the same.
BY_METRIC = (
    (r"p|p_holm", Tolerance(0, 1e-3)),
    (r"loss.*|.*_loss|perplexity.*", Tolerance(1e-3, 0)),
    (r"sharpness|margin|kl_.*|nontoxic|.*_rms|.*_largest", Tolerance(1e-2, 1e-4)),
    (r".*", Tolerance(1e-3, 1e-4)),  # shares, cosines, errors, estimates
)
EXACT = Tolerance(0, 0)


def tolerance_of(metric: str) -> Tolerance:
    """What is allowed of a metric."""
    return next(tolerance for pattern, tolerance in BY_METRIC if re.fullmatch(pattern, metric))
