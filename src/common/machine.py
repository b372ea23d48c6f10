"""Whether this machine has the GPUs that a scale needs, asked before anything is computed."""

import os
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt, ValidationError

from common.environment import DEVICE
from common.errors import UserError
from common.scales import has_section, section

GIB = 2**30
VISIBLE = "CUDA_VISIBLE_DEVICES"


class Needs(BaseModel):
    """The section `machine` of a scale; a scale without one needs no GPU."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gpus: PositiveInt
    memory_gb: PositiveFloat  # of each, 2**30 bytes


@dataclass(frozen=True)
class Gpu:
    """A GPU that this process may use, as `CUDA_VISIBLE_DEVICES` names it on this machine; memory in bytes."""

    device: str
    name: str
    memory: int


def gpus() -> list[Gpu]:
    """The GPUs there are; those that `CUDA_VISIBLE_DEVICES` hides are not."""
    import torch  # takes seconds, of which no command without GPUs has to wait

    if not torch.cuda.is_available():
        return []
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    # CUDA counts what is visible from 0: a worker that was told this number would see another GPU, maybe another's.
    listed = os.environ.get(VISIBLE)
    names = map(str, range(len(found))) if listed is None else (name.strip() for name in listed.split(","))
    # What follows a wrong entry of the list is hidden too: names may be more than GPUs.
    return [Gpu(name, each.name, each.total_memory) for name, each in zip(names, found, strict=False)]


def needs(scale: str) -> Needs | None:
    """What a scale needs; `UserError` where its section is none."""
    if not has_section(scale, "machine"):
        return None
    try:
        return Needs.model_validate(section(scale, "machine"))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(["machine", *map(str, first["loc"])])
        raise UserError(f"scales/{scale}.yaml: {place} is {first['input']!r}: {first['msg']}") from error


def hold_to_cpu(scale: str) -> None:
    """Have this process, and those that it starts, compute on the CPU where a scale asks for no GPU.

    Also where there is one, CUDA's or Apple's: numbers are to be those of a machine without. Whoever sets the variable
    `ACCELERATE_TORCH_DEVICE` decides instead.
    """
    if needs(scale) is None and DEVICE not in os.environ:
        os.environ[DEVICE] = "cpu"
        os.environ[VISIBLE] = ""  # libraries ask CUDA, not accelerate


def check_machine(scale: str, found: list[Gpu] | None = None) -> list[Gpu]:
    """The GPUs large enough for a scale, none for a scale that needs none; `found` in place of those of this machine.

    Raises `UserError`, one line, where there are too few.
    """
    wanted = needs(scale)
    if wanted is None:
        return []
    found = gpus() if found is None else found
    asked = f"the scale {scale} needs {wanted.gpus} GPU{'s' * (wanted.gpus > 1)} of {wanted.memory_gb:g} GB"
    if len(found) < wanted.gpus:
        without = f"figures of runs that git holds are drawn without one by `make figures SCALE={scale} FROM=tables`"
        raise UserError(f"{asked}, this machine has {len(found) or 'none'}; {without}")
    large = [gpu for gpu in found if gpu.memory >= wanted.memory_gb * GIB]
    if len(large) < wanted.gpus:
        small = next(gpu for gpu in found if gpu not in large)
        raise UserError(f"{asked}, GPU {small.device} ({small.name}) has {small.memory / GIB:.1f} GB")
    return large
