"""Runs for the sweep's tests: small, and some with a fault that a real run could have."""

import os
import signal
import time
from pathlib import Path

from common.errors import UserError


def _note(log: str, text: str) -> None:
    with Path(log).open("a") as file:
        file.write(f"{text}\n")


def square(x: int, log: str) -> dict:
    _note(log, f"{x}")
    return {"square": x * x, "third": x / 3, "curve": {"step": [1, 2], "loss": [x / 7, x / 9]}}


def slow_square(x: int, log: str, seconds: float) -> dict:
    _note(log, f"begin {x} {os.getpid()}")
    time.sleep(seconds)
    _note(log, f"end {x}")
    return {"square": x * x}


def waiting_keeper(x: int, log: str, keep: Path, scratch: Path) -> dict:
    _note(log, f"{x}")
    scratch.mkdir(parents=True)
    (scratch / "half").touch()
    while not Path(f"{log}.go").exists():
        time.sleep(0.05)
    (scratch / "half").rename(keep / "whole")  # which another run of the same cell would have taken away
    return {"square": x * x}


def faulty(x: int, log: str, fault: str, at: int) -> dict:
    _note(log, f"{x}")
    if x == at:
        if fault == "killed once" and not Path(f"{log}.killed").exists():
            Path(f"{log}.killed").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "killed always":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "raises":
            raise UserError("the disk of this cell is full")
        if fault == "nan":
            return {"square": float("nan")}
    return {"square": x * x}


def pinned(cell: int, seconds: float) -> dict:
    import torch  # here alone: a worker that begins a run need not have it

    time.sleep(seconds)  # so that one worker cannot do all
    return {"device": os.environ["CUDA_VISIBLE_DEVICES"], "worker": os.getpid(), "threads": torch.get_num_threads()}


def computed_on(cell: int, choose: bool) -> dict:
    from accelerate import PartialState

    told = os.environ.get("ACCELERATE_TORCH_DEVICE")
    return {"told": told, "device": str(PartialState().device) if choose else None}


def filling(megabytes: int) -> dict:
    return {"bytes": len(b"1" * (megabytes * 2**20)), "worker": os.getpid()}


def count_text(x: int, log: str, text: Path) -> dict:
    _note(log, f"{x}")
    return {"length": len(text.read_text()) * x}


def keeper(x: int, log: str, keep: Path, files: int = 1) -> dict:
    _note(log, f"{x}")
    for number in range(files):
        (keep / f"{number}.txt").write_text(f"{x}")
    return {"square": x * x}


def keeps_nothing(x: int, log: str, keep: Path) -> dict:
    return {}


def reader(x: int, log: str, model: Path) -> dict:
    _note(log, f"{x}")
    return {"read": int((model / "0.txt").read_text()) * x}


def named(model: str, log: str, **models: Path) -> dict:
    _note(log, model)
    return {"read": int((models[model] / "0.txt").read_text()), "given": len(models)}
