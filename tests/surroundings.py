"""How surroundings are broken and mended, and the commands that meet that other than plainly."""

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from breaking import FIGURES, STUDY, Steps
from conftest import Checkout
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
