"""A study that was run before meets a fault: what is said of it, and whether anything is lost by it.

A fault is two steps: it breaks something and, once a command has met that, mends it. `surroundings` holds the steps,
`catalogue` lists the faults.
"""

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from conftest import Checkout
from kills import strays, torn
from pipeline import MAKE, cached, published
from places import Place, Untried

STUDY = "bases"  # the one that draws least
FIGURES = (*MAKE, "SCALE=tiny", f"STUDY={STUDY}")
LONGEST = 160  # characters of a line in the table

Steps = Callable[[Place], Iterator[Place]]
Act = Callable[[Place], tuple[int, str]]


@dataclass(frozen=True)
class Fault:
    """`says`: a pattern of the line that tells, empty where nothing does, as what was broken is made anew in any case.

    `again`: finished runs that it costs. `cold`: no run is finished.
    """

    what: str
    says: str
    steps: Steps
    act: Act = lambda place: place.run(*FIGURES)
    fails: bool = True
    again: int = 0
    cold: bool = False


@dataclass(frozen=True)
class Healthy:
    """A checkout with the study's results, and digests of these."""

    place: Place
    whole: dict[str, str]


def healthy(checkout: Checkout) -> Healthy:
    checkout.study(STUDY)
    checkout.commit("params.yaml")
    place = Place(checkout)
    place.ok(*FIGURES)
    return Healthy(place, published(place))


def endured(fault: Fault, state: Healthy) -> dict[str, str]:
    """What a command says when it meets the fault, what is lost, and what is `wrong` about it, if anything."""
    runs, aside = state.place.root / ".cache/runs", state.place.root / ".cache/aside"
    if fault.cold:
        runs.rename(aside)
    steps = fault.steps(state.place)
    try:
        place = next(steps)
        there = _finished(place)
        status, output = fault.act(place)
        there = there or _finished(place)
        half = torn(place)
        place = next(steps)
        if published(place) != state.whole or _finished(place).keys() != there.keys():  # it had begun, or was to begin
            place.ok(*FIGURES)
        now = _finished(place)
        again = sum(now.get(name) != changed for name, changed in there.items())
        same = published(place) == state.whole
        left = strays(place)
    except Untried as error:
        return {"said": f"not tried: {error}", "afterwards": "", "wrong": ""}
    finally:
        steps.close()
        if fault.cold:
            shutil.rmtree(runs, ignore_errors=True)
            aside.rename(runs)
    lines = [line.strip() for line in output.splitlines() if fault.says and re.search(fault.says, line)]
    wrong = [
        f"exit status {status}" if bool(status) != fault.fails else "",
        "a traceback" if "Traceback" in output else "",
        f"{len(lines)} lines say so" if len(lines) != bool(fault.says) else "",
        f"half files {half}" if half else "",
        f"left {left}" if left else "",
        "results differ" if not same else "",
        f"{again} runs done again, not {fault.again}" if again != fault.again else "",
    ]
    said = (
        _plain((lines or output.splitlines() or ["nothing"])[-1], state) if fault.says else "nothing: restored silently"
    )
    afterwards = f"{'the same' if same else '**not the same**'}, {again} done again"
    wrong = "; ".join(filter(None, wrong))
    return {"said": said, "afterwards": afterwards, "wrong": f"{wrong}: {output[-1500:]}" if wrong else ""}


def _finished(place: Place) -> dict[str, int]:
    return {path.name: changed for path, changed in cached(place).items()}


def _plain(line: str, state: Healthy) -> str:
    """A line of output without what differs from run to run and machine to machine."""
    line = line.replace(f"{state.place.checkout.root}/", "").replace(str(state.place.checkout.root), ".")
    line = re.sub(r"\x1b\[[\d;]*m", "", re.sub(r"process \d+", "process N", line))
    line = re.sub(r"\b[0-9a-f]{18}([0-9a-f]{2})\b", r"…\1", line).replace("`", "'")
    return f"`{line if len(line) <= LONGEST else f'{line[:LONGEST]}…'}`"
