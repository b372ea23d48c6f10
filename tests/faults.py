"""Have studies killed and their surroundings broken, and write what came of it to docs/reliability.md.

By hand: `make faults`, which does all parts anew, or `python tests/faults.py PART…`, which keeps what is known of the
others. Each part writes what it has found as it goes on, so that one that fails costs no other; with `--resume` faults
that are known, and as they should be, are not tried again.
"""

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import textwrap
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from breaking import Fault, Healthy, endured, healthy
from catalogue import FAULTS
from common.files import write_atomic
from common.project import BUILD
from conftest import made_checkout
from kills import ROLES, Found, Kill, strays, survive
from pipeline import MAKE, cached, published

PAGE = Path(__file__).parents[1] / "docs/reliability.md"
STATE = BUILD / "faults"
HEADER = "Written by `make faults`, at the scale `tiny`; parts of it may have run apart, and beside other work."
KILLS, SEED = 20, 0

Tell = Callable[[dict[str, object]], None]  # adds to what a part has found


def kill_all_studies(folder: Path, tell: Tell) -> None:
    """Kills at random moments of a run of all studies, each resumed."""
    checkout = made_checkout(folder)
    command = (*MAKE, "SCALE=tiny")
    begun = time.monotonic()
    checkout.ok(*command)
    undisturbed, runs = published(checkout), len(cached(checkout))
    tell({"minutes": (time.monotonic() - begun) / 60, "runs": runs})
    for made in (".cache/runs", "results/tiny", "figures/tiny"):
        shutil.rmtree(checkout.root / made)
    rng = random.Random(SEED)
    # Uniform in the number of runs, up to nine tenths of them: no kill comes after the end.
    places = sorted(rng.randrange(int(0.9 * runs)) for _ in range(KILLS))
    kills = [Kill(rng.choice(list(ROLES)), place, round(rng.random(), 2)) for place in places]
    found: list[dict[str, object]] = []

    def note(one: Found) -> None:
        found.append(asdict(one))
        tell({"kills": found})

    begun = time.monotonic()
    _, again = survive(checkout, command, kills, note)
    tell({
        "minutes_killed": (time.monotonic() - begun) / 60,
        "again": again,
        "same": published(checkout) == undisturbed,
        "strays": strays(checkout),
    })  # fmt: skip


def break_surroundings(folder: Path, tell: Tell) -> None:
    """Each fault of the catalogue, on one study that was run before."""
    found = {one["what"]: one for one in states().get("faults", {}).get("faults", []) if not one["wrong"]}
    state = healthy(made_checkout(folder))
    for fault in FAULTS:
        if fault.what not in found:
            found[fault.what] = {"what": fault.what, **_endured(fault, state)}
        tell({"faults": [found[one.what] for one in FAULTS if one.what in found]})


def _endured(fault: Fault, state: Healthy) -> dict[str, str]:
    try:
        return endured(fault, state)
    except Exception as error:  # the faults after it are tried all the same
        traceback.print_exc()
        return {"said": "", "afterwards": "", "wrong": f"{type(error).__name__}: {error}"}


PARTS = {"kills": kill_all_studies, "faults": break_surroundings}


def carried_out(part: str, resume: bool) -> None:
    """Do a part; what it finds, and what kept it from its end, is in its state."""
    state: dict[str, object] = states().get(part, {}) if resume else {}
    if part == "kills" and "same" in state:
        return

    def tell(more: dict[str, object]) -> None:
        state.update(more)
        write_atomic(STATE / f"{part}.json", json.dumps(state, indent=1))
        write_atomic(PAGE, page())

    with tempfile.TemporaryDirectory() as folder:
        try:
            tell({"ended": None})
            PARTS[part](Path(folder) / "checkout", tell)
        except Exception as error:
            traceback.print_exc()
            tell({"ended": f"{type(error).__name__}: {error}"})


def states() -> dict[str, dict]:
    return {part: json.loads(path.read_text()) for part in PARTS if (path := STATE / f"{part}.json").exists()}


def page() -> str:
    found = states()
    lines = ["# What kills and faults do", "", HEADER, ""]
    lines += _of_kills(found["kills"]) if found.get("kills") else []
    lines += _of_faults(found["faults"]) if found.get("faults") else []
    return "\n".join(lines).rstrip() + "\n"


def _of_kills(state: dict) -> list[str]:
    kills, told = state.get("kills", []), []
    if "minutes" in state:
        told += [
            f"All studies, {state['runs']} runs, took {state['minutes']:.0f} minutes undisturbed.",
            f"Then they ran anew, were killed {len(kills)} times by `kill -9` at random moments,",
            "and started again by the same command each time.",
        ]
    if "same" in state:
        same = "byte for byte those of the undisturbed run" if state["same"] else "**not those of the undisturbed run**"
        told += [
            f"At the end, after {state['minutes_killed']:.0f} minutes, results and figures were {same}.",
            f"Finished runs that were done again: {len(state['again'])}. Half files left: {len(state['strays'])}.",
        ]
    else:
        told.append(
            f"**This is not the end of it**: {KILLS} kills are meant, and then the comparison of what came out."
        )
    rows = [
        f"| {number} | {one['role']} | {one['finished']} | {len(one['orphans'])} | {len(one['torn'])} |"
        for number, one in enumerate(kills, start=1)
    ]
    head = ["| kill | killed | finished runs by then | processes left | files not whole |", "|--:|---|--:|--:|--:|"]
    return ["## Kills", "", _paragraph(*told, *_early(state)), "", *head, *rows, ""]


def _of_faults(state: dict) -> list[str]:
    known = state.get("faults", [])
    told = [f"{len(known)} of {len(FAULTS)} are known."] if len(known) < len(FAULTS) else []
    told += [
        "One study that was run before meets each of these; then what was broken is mended, and where results were",
        "touched the same command started again. *Afterwards*: whether results and figures are then, byte for byte,",
        "what they were before, and how many finished runs were done again.",
    ]
    rows = []
    for one in known:
        odd = " **not as it should be**" if one["wrong"] else ""
        rows.append(f"| {one['what']} | {one['said'].replace('|', chr(92) + '|')} | {one['afterwards']}{odd} |")
    head = ["| fault | what is said | afterwards |", "|---|---|---|"]
    return ["## Faults", "", _paragraph(*told, *_early(state)), "", *head, *rows, ""]


def _early(state: dict) -> list[str]:
    return [f"**It ended early**: {state['ended']}."] if state["ended"] else []


def _paragraph(*sentences: str) -> str:
    return textwrap.fill(" ".join(sentences), 120)


def complaints() -> list[str]:
    """What went wrong, a line each."""
    found = states()
    lines = [f"{part}: {state['ended']}" for part, state in found.items() if state["ended"]]
    kills = found.get("kills", {})
    lines += [f"kill {n}: {one}" for n, one in enumerate(kills.get("kills", []), 1) if one["orphans"] or one["torn"]]
    lines += [f"kills: {name}" for name in ("again", "strays") if kills.get(name)]
    lines += ["kills: results differ"] if kills.get("same") is False else []
    return lines + [
        f"{one['what']}: {one['wrong']}" for one in found.get("faults", {}).get("faults", []) if one["wrong"]
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--resume", action="store_true", help="go on from what is known")
    options = parser.parse_args()
    # A shell's background job ignores Ctrl-C, and so would all that it starts; a handler of ours is not inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for part in options.parts or PARTS:
        carried_out(part, options.resume)
    sys.stdout.write(f"{PAGE}\n")
    if lines := complaints():
        sys.exit("\n".join(f"error: {line}" for line in lines))


if __name__ == "__main__":
    main()
