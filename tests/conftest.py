"""A checkout of its own for the tests that run the pipeline."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.transforms import Bbox

from common.corpus import build_corpus
from common.project import CACHE, ROOT
from common.sources import fetch, load_sources
from common.sweep.workers import Pool
from published import Project, new_project

pytest.register_assert_rewrite("pipeline")

SOURCES = CACHE / "sources"
# Of a large table every so many-th row, where the whole is more than the tiny scale needs.
EVERY = {
    "benign_prompts": 5, "facts": 2, "judged_responses": 6, "mnist": 10, "movie_reviews": 40, "sotu": 8,
    "unsafe_prompts": 5,
}  # fmt: skip

# Workers have this from the process that starts them. Where each of them has as many threads as there are cores, these
# wait for one another, and training a tiny model takes ten times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What tests expect are a CPU's numbers.
os.environ.setdefault("ACCELERATE_TORCH_DEVICE", "cpu")

# How long an example takes says how busy the machine is, and nothing about the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_collection_modifyitems(items):
    """The files that run the pipeline take longest and come first, the longest for each worker; the others fill up."""
    first = ("make_figures", "alignment_study", "expansion_study", "hallucination_study", "merging_study", "faults")
    first = [f"test_{name}" for name in first]
    items.sort(key=lambda item: first.index(item.path.stem) if item.path.stem in first else len(first))


@dataclass(frozen=True)
class Checkout:
    """A clone of the tree as it stands, run with this environment's programs and its own source."""

    root: Path

    @property
    def environment(self) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith(("COMPENDIUM_", "DVC_"))}
        own.pop("PYTHONDONTWRITEBYTECODE", None)  # its many processes would each compile all of its source
        return own | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{own['PATH']}",
            "PYTHONPATH": str(self.root / "src"),
            "COMPENDIUM_SOURCES": str(SOURCES),
            "OMP_NUM_THREADS": "1",
        }

    def start(self, *command: str, **options) -> subprocess.Popen:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} | options
        return subprocess.Popen(command, cwd=self.root, env=self.environment, **pipes)

    def run(self, *command: str) -> tuple[int, str]:
        """Exit status and all output of a command."""
        process = self.start(*command)
        output, _ = process.communicate()
        return process.returncode, output

    def ok(self, *command: str) -> str:
        status, output = self.run(*command)
        assert status == 0, f"{' '.join(command)}\n{output}"
        return output

    def commit(self, *paths: str) -> None:
        self.ok("git", "add", "--force", *(paths or (".",)))
        self.ok("git", "rm", "-r", "--cached", "--force", "--quiet", "--ignore-unmatch", "*.pyc")
        who = ("-c", "user.name=test", "-c", "user.email=test@test")
        self.ok("git", *who, "commit", "--quiet", "--allow-empty", "-m", "a step")

    def study(self, *names: str) -> None:
        """Have these studies alone in params.yaml."""
        path = self.root / "params.yaml"
        head, _ = path.read_text().split("studies:\n")
        path.write_text(head + "studies:\n" + "".join(f"  - {name}\n" for name in names))

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.root / name).read_text()
        assert old in text
        (self.root / name).write_text(text.replace(old, new))


def made_checkout(folder: Path) -> Checkout:
    for source in load_sources(ROOT / "sources.yaml").values():
        fetch(source)
    return copied(folder)


def copied(folder: Path) -> Checkout:
    """The tree as it stands in a repository of its own, without sources, data or anything built."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in listed:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    checkout = Checkout(folder)
    checkout.ok("git", "init", "--quiet")
    checkout.commit(".")
    return checkout


def made_once(tmp_path_factory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first worker of this test run to ask for it makes for all of them."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            half = folder.with_suffix(".half")
            make(half)
            half.rename(folder)
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """The tables of all pinned sources."""
    return made_once(tmp_path_factory, "corpus", lambda folder: build_corpus(folder, ROOT / "sources.yaml", SOURCES))


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, corpus) -> Path:
    """A checkout at the tiny scale, with thin tables and the tokenizer: ready for a study, of which nothing is made.

    At this scale most of a run's time would go by reading whole tables. They stand in no order: any rows will do.
    """

    def prepare(folder: Path) -> None:
        checkout = made_checkout(folder)
        (folder / "build/corpus").mkdir(parents=True)
        for path in corpus.iterdir():
            rows = path.read_text().splitlines(keepends=True)
            (folder / "build/corpus" / path.name).write_text("".join(rows[:: EVERY.get(path.stem, 1)]))
        checkout.ok("dvc", "commit", "--force", "corpus")
        checkout.edit("params.yaml", "scale: laptop", "scale: tiny")
        checkout.ok("dvc", "repro", "tokenizer@tiny")

    return made_once(tmp_path_factory, "prepared", prepare)


@pytest.fixture(scope="module")
def checkout(prepared, tmp_path_factory) -> Checkout:
    """A copy of it for one file's tests."""
    return Checkout(shutil.copytree(prepared, tmp_path_factory.mktemp("checkout") / "root"))


@pytest.fixture(scope="session")
def published(tmp_path_factory) -> Project:
    """A small checkout with results; nobody changes it."""
    return new_project(tmp_path_factory.mktemp("published") / "root")


@pytest.fixture
def project(published, tmp_path) -> Project:
    """A copy of it, to be altered."""
    shutil.copytree(published.root, tmp_path / "root")
    return Project(tmp_path / "root")


@pytest.fixture
def in_this_process(monkeypatch):
    """Sweeps run here: for tests of what runs give, each worker would first import for seconds."""

    def done(pool, jobs):
        for job in jobs:
            _, reason = pool._cell(job, os.getpid())
            assert reason is None, reason
            yield job

    monkeypatch.setattr(Pool, "done", done)


@pytest.fixture
def texts(monkeypatch):
    """Every line of text that is drawn into a picture, with the box it fills."""
    drawn = []
    draw_text = RendererAgg.draw_text

    def record(renderer, gc, x, y, s, prop, angle, ismath=False, mtext=None):
        width, height, descent = renderer.get_text_width_height_descent(s, prop, ismath)
        box = (x, y - height + descent, x + width, y + descent)
        if angle == 90:
            box = (x - height + descent, y - width, x + descent, y)
        drawn.append((s, Bbox.from_extents(*box)))
        draw_text(renderer, gc, x, y, s, prop, angle, ismath, mtext)

    monkeypatch.setattr(RendererAgg, "draw_text", record)
    return drawn
