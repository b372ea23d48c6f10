"""Weights and moments of which each process holds a share (FSDP of version 2), whole as a file has them and back.

A share is a `DTensor`, which knows the others' places. What is no share passes unchanged, so that one process, and
processes that each hold all (DDP), do here nothing.
"""

from collections.abc import Mapping
from types import SimpleNamespace

import torch
from accelerate import PartialState
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(value: object) -> object:
    """`value` put together from the shares of all processes, which must all call this, in the same order.

    The first process has it in the host's memory, the others a tensor without content: only one writes.
    """
    if not isinstance(value, DTensor):
        return value
    # Shares that rest in the host's memory travel by the devices that the processes are connected by.
    found = value.detach().to(value.device_mesh.device_type).full_tensor()
    return found.to("cpu" if PartialState().is_main_process else "meta")


def share(value: torch.Tensor, like: object) -> torch.Tensor:
    """What this process holds of the whole `value`, in the way that it holds `like`, of the same shape."""
    if not isinstance(like, DTensor):
        return value
    # All processes read the file: nothing has to travel. A part would keep all of `value` alive, its copy does not.
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None).clone()


def is_sharded(model: torch.nn.Module) -> bool:
    """Whether a weight of the model is in no process whole."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def whole_model(model: torch.nn.Module) -> torch.nn.Module | SimpleNamespace:
    """What safetensors' `save_model` is given: the model, or in place of a sharded one what has its whole state.

    Tied weights are one tensor there too, which is how `save_model` knows them.
    """
    if not is_sharded(model):
        return model
    own = model.state_dict(keep_vars=True)
    found = {id(part): whole(part.detach()) for part in {id(part): part for part in own.values()}.values()}
    return SimpleNamespace(state_dict=lambda: {name: found[id(part)] for name, part in own.items()})


def load_shares(model: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Give a sharded model its shares of `weights`, in which tied weights may stand under one of their names.

    Raises `RuntimeError` for names that are missing or too many.
    """
    own = model.state_dict(keep_vars=True)
    state = {name: share(value, own.get(name)) for name, value in weights.items()}
    named = {id(own[name]): name for name in own.keys() & weights.keys()}
    tied = {name: state[named[id(part)]] for name, part in own.items() if id(part) in named}
    model.load_state_dict(state | tied)


def shares_of_moments(optimizer: torch.optim.Optimizer, state: Mapping[int, dict]) -> dict[int, dict]:
    """The `state` of an optimizer's state_dict, by its parameters' places, with moments shared as their weights are."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {
        index: {
            # A count of steps, of no dimension, is every process's own.
            name: share(value, parameters[index]) if torch.is_tensor(value) and value.dim() else value
            for name, value in entry.items()
        }
        for index, entry in state.items()
    }
