"""What an expansion gives, and what becomes of the optimiser's state."""

from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import nn

from common.expansion.plan import Plan

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Expanded(Generic[Network]):
    """An expanded network; whether it computes what the old one did, up to rounding; and how it was made."""

    model: Network
    preserves: bool
    plan: Plan


def fill(new: nn.Module, old: nn.Module, plan: Plan) -> None:
    """Give `new` the weights that the plan makes of `old`'s. Raises `RuntimeError` where they are not its own."""
    made = plan.weights(dict(old.named_parameters()))
    parameters = dict(new.named_parameters())
    if made.keys() != parameters.keys():
        raise RuntimeError(f"the plan and the network differ in {sorted(made.keys() ^ parameters.keys())[:3]}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            if made[name].shape != parameter.shape:
                raise RuntimeError(f"{name} became {tuple(made[name].shape)}, not {tuple(parameter.shape)}")
            parameter.copy_(made[name])


def carry_moments(
    old: nn.Module, old_optimizer: torch.optim.Optimizer, expanded: Expanded, optimizer: torch.optim.Optimizer
) -> None:
    """Give an Adam or AdamW over the expanded model's parameters the state of the one over the old model's.

    Moments are mapped as gradients are (see `common.expansion.growth`): where the function is preserved and units are
    copies, the mapped moments are those that the expanded model's own gradients would have given. Steps are counted on.
    Raises `ValueError` where a parameter of the old model has no state or one of the new model no place.
    """
    states = {name: old_optimizer.state.get(parameter, {}) for name, parameter in old.named_parameters()}
    if lacking := [name for name, state in states.items() if not {"exp_avg", "exp_avg_sq"} <= state.keys()]:
        raise ValueError(f"the optimiser has no moments of {lacking[0]}: take an Adam that has made a step")
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    moments = {
        name: expanded.plan.moments({each: state[name] for each, state in states.items()}, power)
        for power, name in ((1, "exp_avg"), (2, "exp_avg_sq"))
    }
    step = next(iter(states.values()))["step"]
    for name, parameter in expanded.model.named_parameters():
        if id(parameter) not in held:
            raise ValueError(f"the new optimiser does not hold {name}")
        state = {key: made[name].to(parameter.device, parameter.dtype) for key, made in moments.items()}
        optimizer.state[parameter] = {"step": step.clone() if torch.is_tensor(step) else step, **state}
