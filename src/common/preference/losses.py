"""Losses of preference tuning, each a function of the log-probabilities of whole completions.

Positional arguments are tensors, keywords are the loss's parameters under the names that TRL uses:

- `chosen`, `rejected` `(pairs,)`: log-probability of a completion after its prompt under the model that is trained,
  summed over its tokens, in nats;
- `ref_chosen`, `ref_rejected` `(pairs,)`: the same under the reference model;
- `mismatched`, `ref_mismatched` `(pairs,)`: of the completion of another prompt, which tells how far the models are
  from each other;
- `aligned` `(pairs, models)`: of the chosen completion under models that are aligned already;
- `chosen_tokens`, `rejected_tokens` `(pairs,)`: how many tokens were summed.

Each returns one number, the loss of the batch. `LOSSES` names them; `use` binds the parameters of one.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from inspect import Parameter, signature

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from common.errors import UserError

Loss = Callable[..., Tensor]


def sft(chosen: Tensor, chosen_tokens: Tensor) -> Tensor:
    """Mean cross-entropy of the chosen completions' tokens: supervised fine-tuning."""
    return -chosen.sum() / chosen_tokens.sum()


def sigmoid(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    *,
    beta: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Direct preference optimisation (arXiv 2305.18290, equation 7).

    With `label_smoothing`, the share of pairs believed to be the wrong way round, it is the conservative form of the
    note "A note on DPO with noisy preferences" (Mitchell 2023).
    """
    margin = beta * _margin(chosen, rejected, ref_chosen, ref_rejected)
    return -((1 - label_smoothing) * logsigmoid(margin) + label_smoothing * logsigmoid(-margin)).mean()


def hinge(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float) -> Tensor:
    """Hinge on DPO's margin: SLiC-HF (arXiv 2305.10425), normalised by the reference as in RSO (arXiv 2309.06657)."""
    return (1 - beta * _margin(chosen, rejected, ref_chosen, ref_rejected)).relu().mean()


def ipo(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    chosen_tokens: Tensor,
    rejected_tokens: Tensor,
    *,
    beta: float,
) -> Tensor:
    """Identity preference optimisation (arXiv 2310.12036, equation 17, where `beta` is tau).

    Log-ratios are means over a completion's tokens, as in TRL, so that `beta` means the same at any length.
    """
    margin = (chosen - ref_chosen) / chosen_tokens - (rejected - ref_rejected) / rejected_tokens
    return (margin - 1 / (2 * beta)).square().mean()


def robust(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float, label_smoothing: float
) -> Tensor:
    """Robust DPO (arXiv 2403.00409): right on average where the share `label_smoothing` of pairs is flipped."""
    margin = beta * _margin(chosen, rejected, ref_chosen, ref_rejected)
    kept, flipped = (1 - label_smoothing) * logsigmoid(margin), label_smoothing * logsigmoid(-margin)
    return (flipped - kept).mean() / (1 - 2 * label_smoothing)


def sigmoid_norm(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    chosen_tokens: Tensor,
    rejected_tokens: Tensor,
    *,
    beta: float,
) -> Tensor:
    """Length-normalised DPO, LN-DPO (arXiv 2407.15229): log-ratios are means over a completion's tokens."""
    margin = (chosen - ref_chosen) / chosen_tokens - (rejected - ref_rejected) / rejected_tokens
    return -logsigmoid(beta * margin).mean()


def kto(
    chosen: Tensor,
    rejected: Tensor,
    mismatched: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    ref_mismatched: Tensor,
    *,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Kahneman-Tversky optimisation (arXiv 2402.01306, equation 7), each pair as a good and a bad example.

    The point of reference is the batch's mean log-ratio of completions to other prompts, not below 0 and without a
    gradient.
    """
    start = (mismatched - ref_mismatched).mean().clamp(min=0).detach()
    good = 1 - (beta * (chosen - ref_chosen - start)).sigmoid()
    bad = 1 - (beta * (start - rejected + ref_rejected)).sigmoid()
    return torch.cat([desirable_weight * good, undesirable_weight * bad]).mean()


def bco(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta: float) -> Tensor:
    """Binary classifier optimisation (arXiv 2404.04656): cross-entropy of good and bad against the implicit reward.

    The reward is shifted by the middle between its means over good and bad completions; the paper takes a running
    mean of these, here they are the batch's own, and have no gradient.
    """
    good, bad = beta * (chosen - ref_chosen), beta * (rejected - ref_rejected)
    shift = ((good.mean() + bad.mean()) / 2).detach()
    return -logsigmoid(good - shift).mean() - logsigmoid(shift - bad).mean()


def orpo(chosen: Tensor, rejected: Tensor, chosen_tokens: Tensor, rejected_tokens: Tensor, *, beta: float) -> Tensor:
    """Odds ratio preference optimisation (arXiv 2403.07691, equations 6 and 7, where `beta` is lambda).

    The likelihood whose odds are meant is the geometric mean over a completion's tokens; to it comes the
    cross-entropy of the chosen completions.
    """
    good, bad = chosen / chosen_tokens, rejected / rejected_tokens
    odds = (good - _log1mexp(good)) - (bad - _log1mexp(bad))
    return sft(chosen, chosen_tokens) - beta * logsigmoid(odds).mean()


def simpo(
    chosen: Tensor, rejected: Tensor, chosen_tokens: Tensor, rejected_tokens: Tensor, *, beta: float, simpo_gamma: float
) -> Tensor:
    """Simple preference optimisation (arXiv 2405.14734, equation 6), where `simpo_gamma` is the target margin."""
    margin = beta * (chosen / chosen_tokens - rejected / rejected_tokens)
    return -logsigmoid(margin - simpo_gamma).mean()


def poft(chosen: Tensor, aligned: Tensor) -> Tensor:
    """Preference-oriented supervised fine-tuning (arXiv 2412.12865).

    A Bradley-Terry preference for the trained model over each aligned one, by the likelihood that they give to the
    same completion; the mean over aligned models.
    """
    return -logsigmoid(chosen[:, None] - aligned).mean()


LOSSES: dict[str, Loss] = {
    loss.__name__: loss for loss in (sft, sigmoid, hinge, ipo, robust, sigmoid_norm, kto, bco, orpo, simpo, poft)
}

ALLOWED: dict[str, tuple[Callable[[float], bool], str]] = {
    "beta": (lambda value: value > 0, "above 0"),
    "label_smoothing": (lambda value: 0 <= value < 0.5, "from 0 to below .5"),
    "simpo_gamma": (lambda value: value >= 0, "0 or more"),
    "desirable_weight": (lambda value: value > 0, "above 0"),
    "undesirable_weight": (lambda value: value > 0, "above 0"),
}


@dataclass(frozen=True)
class Used:
    """A loss with its parameters: call it with the tensors that `tensors` names."""

    name: str
    tensors: tuple[str, ...]
    parameters: dict[str, float]
    function: Loss

    def __call__(self, tensors: Mapping[str, Tensor]) -> Tensor:
        return self.function(*(tensors[name] for name in self.tensors))


def use(name: str, parameters: Mapping[str, float]) -> Used:
    """The loss `name` with its parameters.

    Raises `UserError` on a name that is not there, a parameter that the loss does not use or lacks, and a value that
    makes no sense.
    """
    if name not in LOSSES:
        raise UserError(f"loss {name}: there is none of that name, allowed: {', '.join(LOSSES)}")
    arguments = signature(LOSSES[name]).parameters.values()
    known = {each.name: each for each in arguments if each.kind is Parameter.KEYWORD_ONLY}
    if unknown := sorted(parameters.keys() - known.keys()):
        raise UserError(f"loss {name} does not use {', '.join(unknown)}, allowed: {', '.join(known) or 'no parameter'}")
    if missing := [key for key, each in known.items() if each.default is Parameter.empty and key not in parameters]:
        raise UserError(f"loss {name} needs {', '.join(missing)}")
    for key, value in parameters.items():
        fits, allowed = ALLOWED[key]
        if not (math.isfinite(value) and fits(value)):
            raise UserError(f"loss {name}: {key} is {value}, allowed: {allowed}")
    tensors = tuple(each.name for each in arguments if each.kind is not Parameter.KEYWORD_ONLY)
    return Used(name, tensors, dict(parameters), partial(LOSSES[name], **parameters))


def _margin(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor) -> Tensor:
    return (chosen - ref_chosen) - (rejected - ref_rejected)


def _log1mexp(logs: Tensor) -> Tensor:
    """log(1 - exp(logs)) of logs below 0, exact at both ends (Mächler 2012)."""
    near = logs > -math.log(2)
    # Each branch is given a harmless value where the other one holds: a NaN in an unused branch spoils the gradient.
    return torch.where(
        near,
        (-torch.expm1(torch.where(near, logs, -1.0))).log(),
        torch.log1p(-torch.exp(torch.where(near, -1.0, logs))),
    )
