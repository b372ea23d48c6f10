"""What can be broken around a study that was run before, what is said of it, and whether anything is lost by it.

A fault is two steps: it breaks something and, once a command has met that, mends it. What needs a mount or a network of
its own happens in namespaces (`unshare`), which where they aren't allowed leave a fault untried, with words.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from conftest import Checkout
from kills import strays, torn
from pipeline import MAKE, cached, published

STUDY = "bases"  # the one that draws least
FIGURES = (*MAKE, "SCALE=tiny", f"STUDY={STUDY}")
PATIENCE = 1800  # seconds to what is waited for
LONGEST = 160  # characters of a line in the table


class Untried(Exception):
    """What the fault needs isn't allowed here; the message says what."""


@dataclass(frozen=True)
class Place:
    """A checkout as a command meets it: `within`, what enters the namespaces that hold it; `root`, where it is seen."""

    checkout: Checkout
    within: tuple[str, ...] = ()
    without: tuple[str, ...] = ()  # variables of the environment
    view: Path = Path("/")

    @property
    def root(self) -> Path:
        return self.view / self.checkout.root.relative_to("/")

    def start(self, *command: str) -> subprocess.Popen:
        environment = {name: value for name, value in self.checkout.environment.items() if name not in self.without}
        here = ("sh", "-c", 'cd "$0" && exec "$@"', str(self.checkout.root))
        return subprocess.Popen(
            [*self.within, *here, *command],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: str) -> tuple[int, str]:
        process = self.start(*command)
        try:
            output, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return process.returncode, output

    def ok(self, *command: str) -> None:
        status, output = self.run(*command)
        if status:
            raise RuntimeError(f"{' '.join(command)} ends with {status}: {output[-2000:]}")

    def until(self, runs: int, process: subprocess.Popen) -> None:
        """Wait for so many finished runs."""
        end = time.monotonic() + PATIENCE
        while len(cached(self)) < runs:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"there are {len(cached(self))} runs, {runs} were waited for")
            time.sleep(0.05)


Steps = Callable[[Place], Iterator[Place]]
Act = Callable[[Place], tuple[int, str]]


@dataclass(frozen=True)
class Fault:
    """`says`: a pattern of the line that tells. `again`: finished runs that it costs. `cold`: no run is finished."""

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
    if fault.cold:
        shutil.rmtree(state.place.root / ".cache/runs")
    steps = fault.steps(state.place)
    try:
        place = next(steps)
        there = {} if fault.cold else cached(state.place)
        status, output = fault.act(place)
        there = there or cached(place)
        half = torn(place)
        place = next(steps)
        if published(place) != state.whole or cached(place).keys() != there.keys():  # it had begun, or was to begin
            place.ok(*FIGURES)
        now = cached(place)
        again = sum(now.get(path) != changed for path, changed in there.items())
        same = published(place) == state.whole
        left = strays(place)
    except Untried as error:
        if fault.cold:
            state.place.ok(*FIGURES)
        return {"said": f"not tried: {error}", "afterwards": "", "wrong": ""}
    finally:
        steps.close()
    lines = [line.strip() for line in output.splitlines() if re.search(fault.says, line)]
    wrong = [
        f"exit status {status}" if bool(status) != fault.fails else "",
        "a traceback" if "Traceback" in output else "",
        f"{len(lines)} lines say so" if len(lines) != 1 else "",
        f"half files {half}" if half else "",
        f"left {left}" if left else "",
        "results differ" if not same else "",
        f"{again} runs done again, not {fault.again}" if again != fault.again else "",
    ]
    said = _plain((lines or output.splitlines() or ["nothing"])[-1], state)
    afterwards = f"{'the same' if same else '**not the same**'}, {again} done again"
    wrong = "; ".join(filter(None, wrong))
    return {"said": said, "afterwards": afterwards, "wrong": f"{wrong}: {output[-1500:]}" if wrong else ""}


def _plain(line: str, state: Healthy) -> str:
    """A line of output without what differs from run to run and machine to machine."""
    line = line.replace(f"{state.place.checkout.root}/", "").replace(str(state.place.checkout.root), ".")
    line = re.sub(r"\x1b\[[\d;]*m", "", re.sub(r"process \d+", "process N", line))
    line = re.sub(r"\b[0-9a-f]{18}([0-9a-f]{2})\b", r"…\1", line).replace("`", "'")
    return f"`{line if len(line) <= LONGEST else f'{line[:LONGEST]}…'}`"


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


@contextmanager
def namespace(place: Place, *kinds: str) -> Iterator[Place]:
    """The place with mounts or a network of its own."""
    command = ["unshare", "--user", "--map-root-user", *kinds, "sh", "-c", "echo ready; exec sleep infinity"]
    try:
        holder = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    except FileNotFoundError as error:
        raise Untried("there is no `unshare` here") from error
    try:
        if holder.stdout.readline() != "ready\n":
            raise Untried(holder.stderr.read().strip())
        within = ("nsenter", f"--target={holder.pid}", "--user", "--preserve-credentials", *kinds)
        yield replace(place, within=within, view=Path(f"/proc/{holder.pid}/root"))
    finally:
        holder.kill()
        holder.wait()


def _as_root(place: Place, command: str) -> None:
    status, output = place.run("sh", "-c", command)
    if status:
        raise Untried(output.strip().splitlines()[-1])


def read_only(name: str) -> Steps:
    """A folder can't be written."""

    def steps(place: Place) -> Iterator[Place]:
        with namespace(place, "--mount") as inside:
            folder = place.checkout.root / name
            _as_root(inside, f"mount --bind '{folder}' '{folder}' && mount -o remount,bind,ro '{folder}'")
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
            _as_root(inside, f"mount -t tmpfs -o size={megabytes}m none '{small}' && cp -a '{root}/.' '{small}'")
            _as_root(inside, f"mount --bind '{small}' '{root}'")
            filler = inside.root / "build/filler"
            with filler.open("wb") as file:
                _fill(file.fileno(), left * 1024)
            yield inside
            filler.unlink()
            yield inside

    return steps


def _fill(handle: int, left: int) -> None:
    """Make a file as large as the disk allows, but for `left` bytes."""
    disk = os.fstatvfs(handle)
    os.posix_fallocate(handle, 0, disk.f_bavail * disk.f_frsize - left)


def offline(place: Place) -> Iterator[Place]:
    """No network but the machine's own."""
    with namespace(place, "--net") as inside:
        _as_root(inside, "ip link set lo up")
        yield inside
        yield inside


def offline_without_sources(place: Place) -> Iterator[Place]:
    """A clone that has no packages yet, and no network to fetch them."""
    clone = place.checkout.root.with_name("clone")
    made = shutil.ignore_patterns("build", "data", "cache", "tmp")
    shutil.copytree(place.root, clone, ignore=lambda folder, names: made(folder, names) if "src" not in folder else [])
    shutil.copytree(place.root / ".cache/runs", clone / ".cache/runs", dirs_exist_ok=True)
    cloned = replace(place, checkout=Checkout(clone))
    try:
        with namespace(cloned, "--net") as inside:
            _as_root(inside, "ip link set lo up")
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


def _record(place: Place, kept: bool) -> Path:
    """The record of a run of the study that keeps files, or of one that keeps none."""
    return next(path for path in sorted(cached(place)) if path.with_suffix("").is_dir() == kept)


def _weights(place: Place) -> Path:
    return next(_record(place, True).with_suffix("").rglob("*.safetensors"))


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
        damaged(lambda place: _record(place, False), _flip),
        fails=False,
        again=1,
    ),
    Fault(
        "a finished run's record cut off",
        "damaged cache file",
        damaged(lambda place: _record(place, False), _half),
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
    Fault("disk full after some runs", "error: .*No space left on device", full_disk(400), cold=True),
    Fault("disk full when drawing", "error: .*No space left on device", full_disk(300)),
    Fault("no network", "figures/tiny: ", offline, fails=False),
    Fault("no network and no data yet", "no network", offline_without_sources),
    Fault("the same command twice at once", "is already running", untouched, second, cold=True),
    Fault("Ctrl-C", "interrupted", untouched, interrupted, cold=True),
]
