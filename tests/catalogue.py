"""The faults that are tried on a study that was run before: what is broken, and the line that tells."""

import contextlib
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from breaking import FIGURES, STUDY, Fault, Steps
from conftest import Checkout
from pipeline import rows_of
from places import PATIENCE, Place, as_root, namespace


def altered(name: str, change: Callable[[bytes], bytes]) -> Steps:
    """A file is otherwise for a while."""

    def steps(place: Place) -> Iterator[Place]:
        path = place.root / name
        before = path.read_bytes()
        path.write_bytes(change(before))
        try:
            yield place
        finally:
            path.write_bytes(before)
        yield place

    return steps


def damaged(find: Callable[[Place], Path], change: Callable[[bytes], bytes]) -> Steps:
    """A file that programs made is otherwise, and nobody mends it."""

    def steps(place: Place) -> Iterator[Place]:
        path = find(place)
        path.chmod(0o644)  # what DVC keeps is read-only
        path.write_bytes(change(path.read_bytes()))
        yield place
        yield place

    return steps


def untouched(place: Place) -> Iterator[Place]:
    yield place
    yield place


def read_only(name: str) -> Steps:
    """A folder can't be written."""

    def steps(place: Place) -> Iterator[Place]:
        with namespace(place, "--mount") as inside:
            folder = place.checkout.root / name
            folder.mkdir(parents=True, exist_ok=True)
            as_root(inside, f"mount --bind '{folder}' '{folder}' && mount -o remount,bind,ro '{folder}'")
            yield inside
        yield place

    return steps


def full_disk(left: int, megabytes: int = 2000) -> Steps:
    """The checkout lies on a disk that has so many kilobytes left."""

    def steps(place: Place) -> Iterator[Place]:
        root = place.checkout.root
        small = root.with_name("small")
        small.mkdir(exist_ok=True)
        with namespace(place, "--mount") as inside:
            as_root(inside, f"mount -t tmpfs -o size={megabytes}m none '{small}' && cp -a '{root}/.' '{small}'")
            as_root(inside, f"mount --bind '{small}' '{root}'")
            filler = inside.root / "build/filler"
            with filler.open("wb") as file:
                _fill(file.fileno(), left * 1024)
            yield inside
            filler.unlink()
            yield inside

    return steps


def filled_when_drawing(place: Place) -> tuple[int, str]:
    """The rest of the disk is taken once the first of several figures is drawn.

    A disk that is full before is none by then: what a study made before is removed first, and is as large.
    """
    process = place.start(*FIGURES)
    drawn = place.root / f"build/running/tiny/{STUDY}/figures"
    place.wait(lambda: any(drawn.glob("*.svg")), "a figure", process)
    with (place.root / "build/filler").open("ab", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(4096))
    output, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, output


def _fill(handle: int, left: int) -> None:
    """Make a file as large as the disk allows, but for `left` bytes."""
    disk = os.fstatvfs(handle)
    os.posix_fallocate(handle, 0, disk.f_bavail * disk.f_frsize - left)


def offline(place: Place) -> Iterator[Place]:
    """No network but the machine's own."""
    with namespace(place, "--net") as inside:
        as_root(inside, "ip link set lo up")
        yield inside
        yield inside


def offline_without_sources(place: Place) -> Iterator[Place]:
    """A clone that has no packages yet, and no network to fetch them."""
    clone = place.checkout.root.with_name("clone")
    made = shutil.ignore_patterns("build", "data", ".cache", "cache", "tmp")
    shutil.copytree(place.root, clone, ignore=lambda folder, names: made(folder, names) if "src" not in folder else [])
    shutil.copytree(place.root / ".cache/runs", clone / ".cache/runs")
    cloned = replace(place, checkout=Checkout(clone))
    try:
        with namespace(cloned, "--net") as inside:
            as_root(inside, "ip link set lo up")
            yield replace(inside, without=("COMPENDIUM_SOURCES",))
        yield cloned
    finally:
        shutil.rmtree(clone)


def second(place: Place) -> tuple[int, str]:
    """The same command a second time while it is at work."""
    first = place.start(*FIGURES)
    place.until(3, first)
    ended = place.run(*FIGURES)
    output, _ = first.communicate(timeout=PATIENCE)
    if first.returncode:
        raise RuntimeError(f"the first of two runs ends with {first.returncode}: {output[-1000:]}")
    return ended


def interrupted(place: Place) -> tuple[int, str]:
    """Ctrl-C, which a terminal sends to the command and to all that it started."""
    process = place.start(*FIGURES)
    place.until(3, process)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    return process.returncode, output


def _record(place: Place) -> Path:
    """The record of a run of the study that keeps no files."""
    return next(path for path in _records(place) if not path.with_suffix("").is_dir())


def _weights(place: Place) -> Path:
    """Weights of a model that a run of the study kept."""
    return next(file for path in _records(place) for file in path.with_suffix("").rglob("*.safetensors"))


def _records(place: Place) -> list[Path]:
    keys = [row["key"] for row in rows_of(place.root / "results/tiny" / STUDY)]
    return [place.root / ".cache/runs" / key[:2] / f"{key}.json" for key in keys]


def _data_object(place: Place) -> Path:
    """The largest object in DVC's cache; the data that it is of are gone from the work tree."""
    shutil.rmtree(place.root / "data")
    return max((place.root / ".dvc/cache").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)


def _flip(content: bytes) -> bytes:
    """One bit in the middle is another."""
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def _half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _other(old: str, new: str, occurrence: int = 0) -> Callable[[bytes], bytes]:
    """One occurrence of a text, counted from the first, replaced."""

    def change(content: bytes) -> bytes:
        parts = content.decode().split(old)
        head, tail = parts[: occurrence + 1], parts[occurrence + 1 :]
        assert tail, (old, occurrence)
        return (old.join(head) + new + old.join(tail)).encode()

    return change


SCALE, PARAMS, NOTEBOOK = "scales/tiny.yaml", "params.yaml", f"notebooks/{STUDY}.ipynb"
FAULTS = [
    Fault(
        "params.yaml: a number for the studies",
        "studies is 3, allowed",
        altered(PARAMS, lambda _: b"scale: tiny\nstudies: 3\n"),
    ),
    Fault(
        "params.yaml: no study", r"studies is \[\], allowed", altered(PARAMS, lambda _: b"scale: tiny\nstudies: []\n")
    ),
    Fault("params.yaml: not YAML", "params.yaml is not valid YAML", altered(PARAMS, lambda _: b"scale: [tiny\n")),
    Fault("scale: not text", "is not text in UTF-8", altered(SCALE, lambda content: b"\xff\xfe" + content)),
    Fault(
        "scale: a word for a number",
        "candidates is 'four'",
        altered(SCALE, _other("candidates: 4", "candidates: four")),
    ),
    Fault(
        "scale: a knob that there isn't",
        "canditates is no parameter",
        altered(SCALE, _other("candidates: 4", "canditates: 4")),
    ),
    Fault("scale: a share of seven", "margin is 7", altered(SCALE, _other("margin: 0.1 #", "margin: 7 #"))),
    Fault("scale: no steps", "steps is 0", altered(SCALE, _other("steps: 20", "steps: 0"))),
    Fault(
        "scale: a learning rate that breaks training",
        "error: .*[Ll]oss",
        altered(SCALE, _other("learning_rate: 0.01", "learning_rate: 1.0e+30")),
    ),
    Fault(
        "scale: a word for the size of the vocabulary",
        "vocab_size is 'many'",
        altered(SCALE, _other("vocab_size: 512", "vocab_size: many")),
    ),
    Fault(
        "scale: a list for a study's knobs",
        f"{STUDY} is \\[1, 2\\]",
        altered(SCALE, lambda content: re.sub(rb"(?ms)^bases:.*?^merging:", b"bases: [1, 2]\nmerging:", content)),
    ),
    Fault("notebook cut off", "is not a notebook", altered(NOTEBOOK, _half)),
    Fault(
        "notebook: a cell that isn't Python",
        "is not Python",
        altered(NOTEBOOK, _other("study = Study", "study == = Study")),
    ),
    Fault(
        "dvc.lock cut off in a word",
        "dvc.lock",
        altered("dvc.lock", lambda content: content[: content.rindex(b"md5: ")] + b"md5 ["),
    ),
    Fault(
        "a finished run's record altered",
        "damaged cache file .*checksum",
        damaged(_record, _flip),
        fails=False,
        again=1,
    ),
    Fault(
        "a finished run's record cut off",
        "damaged cache file",
        damaged(_record, _half),
        fails=False,
        again=1,
    ),
    Fault(
        "a trained model's weights altered",
        "damaged cache file .*files kept",
        damaged(_weights, _flip),
        fails=False,
        again=1,
    ),
    Fault(
        "a table of the data altered",
        "figures/tiny: ",
        damaged(lambda place: place.root / "data/facts.jsonl", _flip),
        fails=False,
    ),
    Fault(
        "an object in DVC's cache altered, its data gone", "figures/tiny: ", damaged(_data_object, _flip), fails=False
    ),
    Fault(
        "results altered",
        "figures/tiny: ",
        damaged(lambda place: place.root / f"results/tiny/{STUDY}/claims.json", _half),
        fails=False,
    ),
    Fault("results/ read-only", "Read-only file system", read_only("results")),
    Fault(
        ".cache/runs read-only, nothing in it", "error: .*Read-only file system", read_only(".cache/runs"), cold=True
    ),
    Fault("all of the checkout read-only", "Read-only file system", read_only(".")),
    Fault("disk full", "No space left on device", full_disk(0)),
    Fault("disk full after some runs", "^error: .*No space left on device", full_disk(400), cold=True),
    Fault("disk full when drawing", "^error: .*No space left on device", full_disk(50_000), filled_when_drawing),
    Fault("no network", "figures/tiny: ", offline, fails=False),
    Fault("no network and no data yet", "no network", offline_without_sources),
    Fault("the same command twice at once", "is already running", untouched, second, cold=True),
    Fault("Ctrl-C", "interrupted", untouched, interrupted, cold=True),
]
