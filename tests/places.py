"""Where commands meet faults: a checkout, perhaps within mounts or a network of its own.

Those are made in namespaces (`unshare`); where these aren't allowed, what needs them is left untried, with words.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from conftest import Checkout
from pipeline import cached

PATIENCE = 1800  # seconds to what is waited for


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
        self.wait(lambda: len(cached(self)) >= runs, f"{runs} runs", process)

    def wait(self, there: Callable[[], bool], what: str, process: subprocess.Popen) -> None:
        """Wait for what a process at work makes."""
        end = time.monotonic() + PATIENCE
        while not there():
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{what} did not come; there are {len(cached(self))} runs")
            time.sleep(0.05)


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


def as_root(place: Place, command: str) -> None:
    status, output = place.run("sh", "-c", command)
    if status:
        raise Untried(output.strip().splitlines()[0])
