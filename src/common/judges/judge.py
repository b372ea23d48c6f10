"""What every judge of responses does."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from common.errors import UserError


class Judge(Protocol):
    """Gives the probability that a response is safe: that it declines, or does no harm.

    A judge of refusals (see `refusal_rows`) gives the probability that it declines, whatever was asked: on unsafe
    prompts declining is being safe, on benign ones it is a false refusal.
    """

    def judge(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """Probability for each response to the prompt of the same place; float64 `(n,)`.

        Raises `UserError` when there are not as many responses as prompts.
        """
        ...


def same_number(prompts: Sequence[str], responses: Sequence[str]) -> None:
    """Raises `UserError` when there are not as many responses as prompts, or one text instead of many."""
    if isinstance(prompts, str) or isinstance(responses, str):
        raise UserError("a judge takes lists of prompts and responses, not one text")
    if len(prompts) != len(responses):
        raise UserError(f"{len(prompts)} prompts and {len(responses)} responses: a judge needs one for each")
