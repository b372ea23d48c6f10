"""Kill a running pipeline again and again, at chosen moments, and look what each kill left behind."""

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from common.sweep.records import read_record
from pipeline import cached

ROLES = {"runner": "common.stage", "kernel": "ipykernel", "worker": "popen_loky", "command": "compendium figures"}
WAIT = 10  # seconds for a process of the role to come up: between two studies there is no kernel
ORPHANED = 60  # seconds after which a process is left over: it ends within one, or later on a busy machine
PATIENCE = 1800  # seconds that a run may take to its next kill, or to its end


@dataclass(frozen=True)
class Kill:
    """Kill -9 one process of a run, so many seconds after so many runs are finished."""

    role: str
    finished: int
    seconds: float = 0.0


@dataclass
class Found:
    """What a kill met and left: finished runs before it, processes that lived on, files that are not whole."""

    role: str
    finished: int
    orphans: list[str]
    torn: list[str]


def survive(
    checkout, command: Sequence[str], kills: Sequence[Kill], tell: Callable[[Found], object] = lambda found: None
) -> tuple[list[Found], list[str]]:
    """Start the command anew after each kill until it ends by itself, which it must, without an error.

    `tell` is told what each kill found, as it is found.

    Returns what each kill found, and the records that were there at a kill and were written again afterwards. A killed
    worker does not end the command, which goes on. Raises `RuntimeError` where the command ends before its last kill
    or fails.
    """
    found: list[Found] = []
    seen: dict[Path, int] = {}
    process = None
    for kill in [*kills, None]:
        if process is None:
            with (checkout.root / "output").open("w") as output:
                process = checkout.start(*command, start_new_session=True, stdout=output)
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None and (kill is None or len(cached(checkout)) < kill.finished):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{kill or 'the end'} did not come within {PATIENCE} seconds")
            time.sleep(0.05)
        if kill is None:
            break
        time.sleep(kill.seconds)
        family, role, victim = _chosen(process, kill.role)
        if victim is None:
            raise RuntimeError(f"ended with {process.returncode} before {kill}: {_said(checkout)}")
        victim.kill()
        orphans: list[str] = []
        if role != "worker":
            process.wait(timeout=PATIENCE)
            _, alive = psutil.wait_procs(family[1:], timeout=ORPHANED)
            orphans = [" ".join(one.cmdline()) for one in alive]
            process = None
        seen = cached(checkout) | seen
        found.append(Found(role, len(seen), orphans, torn(checkout)))
        tell(found[-1])
    if process.returncode:
        raise RuntimeError(f"after {len(kills)} kills it ends with {process.returncode}: {_said(checkout)}")
    now = cached(checkout)
    return found, [path.stem for path, changed in seen.items() if now.get(path) != changed]


def _chosen(process, role: str) -> tuple[list[psutil.Process], str, psutil.Process | None]:
    """The process and all that it started, and whom to kill: of the role, or, where none comes up, the command."""
    end = time.monotonic() + WAIT
    while process.poll() is None:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for one in [role] if time.monotonic() < end else [role, "command"]:
            if victim := _victim(family, one):
                return family, one, victim
        time.sleep(0.05)
    return [], role, None


def _victim(family: Sequence[psutil.Process], role: str) -> psutil.Process | None:
    for one in family:
        try:
            if ROLES[role] in " ".join(one.cmdline()):
                return one
        except psutil.NoSuchProcess:
            continue
    return None


def torn(checkout) -> list[str]:
    """Records of runs, results and figures that are there and not whole."""
    found = []
    for path in cached(checkout):
        try:
            read_record(path)
        except (ValueError, TypeError):
            found.append(path.name)
    for part in ("results/tiny", "figures/tiny"):
        found += [path.name for path in (checkout.root / part).rglob("*") if path.is_file() and not _whole(path)]
    return found


def _whole(path: Path) -> bool:
    content = path.read_bytes()
    if path.suffix in {".json", ".ipynb"}:
        try:
            return bool(json.loads(content))
        except ValueError:
            return False
    ends = {".svg": b"</svg>\n", ".png": b"IEND\xaeB`\x82", ".csv": b"\n"}
    return content.endswith(ends[path.suffix])


def strays(checkout) -> list[str]:
    """Temporary files and folders of writers that are gone."""
    places = (checkout.root / part for part in ("results", "figures", ".cache/runs", "build", "data"))
    return [path.name for place in places for path in place.rglob(".*") if re.search(r"\.\d+\.\w+$", path.name)]


def _said(checkout) -> str:
    return (checkout.root / "output").read_text()[-2000:]
