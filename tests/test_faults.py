"""A study whose processes are killed, whose sources change, whose cells fail.

The study is added to the checkout as a reader would add one: a name in params.yaml, a section in each scale, a
notebook, and a module with its run. The tests build on each other in order: each kill meets a run that resumes what the
kill before it left.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import nbformat
import psutil
import pytest

from conftest import copied

RUN = '''
"""A run that waits until it may end and writes down what it does."""

import time
from pathlib import Path


def wait(x: int, seconds: float, log: str) -> dict:
    """Return the square of `x`; from 3 on only once the file `log`.go is there, or so many seconds have passed."""
    with Path(log).open("a") as file:
        file.write(f"begin {x}\\n")
    end = time.monotonic() + seconds
    while x >= 3 and time.monotonic() < end and not Path(f"{log}.go").exists():
        time.sleep(0.02)
    with Path(log).open("a") as file:
        file.write(f"end {x}\\n")
    return {"square": x * x + x / 7, "curve": {"step": [1], "loss": [x / 3]}}
'''
PARAMETERS = """
from typing import Literal

tables: list[str] = ["sotu"]
cells: int = 6
seconds: float = 120.0
log: str = "LOG"
fault: Literal["none", "raises"] = "none"
"""
BODY = """
import matplotlib.pyplot as plt
from common.evidence import Claim
from common.probe import wait
from common.study import Study
from common.sweep import grid

study = Study("probe")
runs = study.sweep("main", wait, grid(x=range(cells), seconds=[seconds], log=[log]), {})
"""
END = """
if fault == "raises":
    raise ValueError("a bad idea")
fig, ax = plt.subplots()
ax.plot(runs["x"], runs["square"])
ax.set(xlabel="x", ylabel=f"square, {tables[0]}")
study.figure("square", fig, runs[["x", "square"]])
claim = Claim(id="up", paper=None, statement="up", ours="up", test="greater", margin=1, detectable=1, figure="square")
study.decide([claim], {"up": runs["square"]}, 2)
study.finish({"mean": runs["square"].mean()})
"""


@pytest.fixture(scope="module")
def probe(checkout):
    log = checkout.root / "log"
    log.touch()
    (checkout.root / "src/common/probe.py").write_text(RUN)
    parameters = PARAMETERS.replace("LOG", str(log))
    cells = [nbformat.v4.new_code_cell(parameters.strip(), metadata={"tags": ["parameters"]})]
    cells += [nbformat.v4.new_code_cell(source.strip()) for source in (BODY, END)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), checkout.root / "notebooks/probe.ipynb")
    checkout.study("probe")
    section = f"\nprobe: {{tables: [sotu], cells: 6, seconds: 120.0, log: {log}, fault: none}}\n"
    for path in (checkout.root / "scales").glob("*.yaml"):
        path.write_text(path.read_text() + section)
    checkout.ok("dvc", "repro", "tables@probe-tiny", "notebook@probe")
    return checkout


@pytest.fixture(autouse=True)
def afresh(probe):
    (probe.root / "log").write_text("")
    go(probe).unlink(missing_ok=True)
    # A shell's background job ignores Ctrl-C, and so would all that it starts; a handler of ours is not inherited.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    go(probe).touch()  # whatever a failed test left there comes to its end


def go(probe):
    """While this file is there, no cell waits."""
    return probe.root / "log.go"


def said(probe, word):
    return [line.split()[1] for line in (probe.root / "log").read_text().splitlines() if line.startswith(word)]


def started(probe, *command):
    """The process of `command`, its descendants by role, once two cells are under way and wait."""
    process = probe.start(*command, start_new_session=True, stdout=(probe.root / "output").open("w"))
    deadline = time.monotonic() + 120
    while not {"3", "4"} <= set(said(probe, "begin")):
        assert time.monotonic() < deadline, (probe.root / "output").read_text()
        assert process.poll() is None, (probe.root / "output").read_text()
        time.sleep(0.05)
    family = psutil.Process(process.pid).children(recursive=True)
    roles = {"runner": "common.stage", "kernel": "ipykernel", "worker": "popen_loky"}
    found = {role: next(p for p in family if mark in " ".join(p.cmdline())) for role, mark in roles.items()}
    return process, found | {"dvc": psutil.Process(process.pid)}, family


def finished_results(probe):
    return {path.name for path in (probe.root / "results/tiny/probe").glob("*")}


COMPLETE = {"runs.csv", "tables", "timing.csv", "claims.json", "metrics.json", "notebook.ipynb"}


def ended_by(process, family, seconds):
    """Wait for the process; nothing that it started may live on, and nothing is written."""
    process.wait(timeout=30)
    _, alive = psutil.wait_procs(family, timeout=seconds)
    assert [p.cmdline() for p in alive] == []
    assert process.returncode != 0


@pytest.mark.parametrize("victim", ["runner", "kernel", "dvc"])
def test_a_kill_leaves_no_writer_and_nothing_torn_and_the_next_run_resumes(probe, victim):
    process, roles, family = started(probe, "dvc", "repro", "study@probe-tiny")
    roles[victim].send_signal(signal.SIGKILL)
    ended_by(process, family, 8)
    assert finished_results(probe) == set()
    output = (probe.root / "output").read_text()
    if victim == "runner":
        assert "6 runs, 0 there, 6 to do" in output
        assert sorted(said(probe, "end")) == list("012")
    else:
        assert "6 runs, 3 there, 3 to do" in output
        assert sorted(said(probe, "begin")) == list("34")
    if victim == "kernel":
        assert "error: probe: the notebook's kernel died" in output


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killing_the_command_ends_all_it_started_and_the_scale_comes_back(probe, number):
    probe.edit("params.yaml", "scale: tiny", "scale: laptop")
    process, _, family = started(probe, "compendium", "figures", "--scale", "tiny")
    process.send_signal(number)
    ended_by(process, family, 12)
    assert finished_results(probe) == set()
    if "scale: tiny" in (probe.root / "params.yaml").read_text():
        status, output = probe.run("dvc", "repro", "study@probe-tiny", "--single-item", "--force")
        assert status != 0
        assert "error: params.yaml names the scale tiny, which a killed `make figures` left there" in output
        probe.ok("compendium", "restore")
    assert "scale: laptop" in (probe.root / "params.yaml").read_text()
    probe.edit("params.yaml", "scale: laptop", "scale: tiny")


def test_interrupting_ends_within_seconds_and_keeps_finished_runs(probe):
    process, _, family = started(probe, "dvc", "repro", "study@probe-tiny")
    begun = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    ended_by(process, family, 10)
    assert time.monotonic() - begun < 15
    assert finished_results(probe) == set()
    assert len(list((probe.root / ".cache/runs").glob("??/*.json"))) == 3


@pytest.mark.parametrize(
    ("edited", "told"),
    [
        ("probe.py", r"^error: probe: cell \d+: .*source of \w+ changed while it ran: restart"),
        ("evidence/power.py", r"^error: probe: code changed while it ran; the result is not kept"),  # of no run
    ],
)
def test_a_source_edited_while_the_study_runs_spoils_the_result(probe, edited, told):
    process, _, _ = started(probe, "dvc", "repro", "study@probe-tiny")
    source = probe.root / "src/common" / edited
    before = source.read_text()
    source.write_text(before + "\nMORE = 1\n")
    go(probe).touch()
    assert process.wait(timeout=60) != 0
    assert re.search(told, (probe.root / "output").read_text(), re.MULTILINE)
    assert finished_results(probe) == set()
    source.write_text(before)
    shutil.rmtree(probe.root / ".cache/runs")


def test_a_second_run_at_once_is_told_so_and_a_killed_worker_costs_its_cells_and_not_the_study(probe):
    process, roles, _ = started(probe, "dvc", "repro", "study@probe-tiny")
    status, output = probe.run("python", "-m", "common.stage", "study", "probe", "tiny")
    assert status == 1
    assert output.startswith("error: study probe is already running (process ")
    status, output = probe.run("dvc", "repro", "study@probe-tiny")
    assert status != 0
    assert "busy" in output or "lock" in output
    roles["worker"].send_signal(signal.SIGKILL)
    go(probe).touch()
    assert process.wait(timeout=60) == 0, (probe.root / "output").read_text()
    assert finished_results(probe) == COMPLETE
    assert all(said(probe, "begin").count(x) == 1 for x in "012")
    assert set(said(probe, "end")) == set("012345")


def test_a_notebook_run_by_hand_from_any_folder_reuses_runs_and_writes_nowhere_else(probe, tmp_path):
    assert finished_results(probe) == COMPLETE
    before = {
        path: path.stat().st_mtime_ns for part in ("results", "figures") for path in (probe.root / part).rglob("*")
    }
    source = json.loads((probe.root / "notebooks/probe.ipynb").read_text())
    copied = tmp_path / "elsewhere.ipynb"
    copied.write_text(json.dumps(source))
    process = probe.start(sys.executable, "-m", "jupyter", "execute", str(copied))
    assert process.wait(timeout=120) == 0, process.stdout.read()
    assert said(probe, "begin") == []
    after = {
        path: path.stat().st_mtime_ns for part in ("results", "figures") for path in (probe.root / part).rglob("*")
    }
    assert after == before
    assert (probe.root / "build/lab/probe/figures/square.svg").exists()


def test_in_another_checkout_a_stage_says_whose_environment_it_is_and_writes_in_neither(probe, tmp_path):
    other = copied(tmp_path / "other")
    prepared = probe.root / "build/notebooks/bases.ipynb"
    prepared.unlink(missing_ok=True)
    command = ["dvc", "repro", "notebook@bases"]
    ended = subprocess.run(command, cwd=other.root, env=probe.environment, capture_output=True, text=True, check=False)
    said = [line for line in (ended.stdout + ended.stderr).splitlines() if line.startswith("error: ")]
    assert said == [
        f"error: this environment belongs to the checkout in {probe.root}; run `make setup` here for one of its own"
    ]
    assert ended.returncode != 0
    assert not prepared.exists()
    assert not (other.root / "build/notebooks/bases.ipynb").exists()


def test_a_failing_cell_ends_in_one_line_and_its_notebook_is_kept(probe):
    for part in ("results", "figures"):
        shutil.rmtree(probe.root / part)
    probe.edit("scales/tiny.yaml", "fault: none", "fault: raises")
    status, output = probe.run("python", "-m", "common.stage", "study", "probe", "tiny")
    probe.edit("scales/tiny.yaml", "fault: raises", "fault: none")
    assert status == 1
    kept = "build/running/tiny/probe/notebook.ipynb"
    assert output.splitlines()[-1] == f"error: probe: cell 5: ValueError: a bad idea (executed notebook: {kept})"
    assert "Traceback" not in output
    executed = nbformat.read(probe.root / kept, as_version=4)
    assert any("a bad idea" in str(cell.get("outputs")) for cell in executed.cells)
    assert finished_results(probe) == set()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "fault: none",
            "fault: none, typo: 1",
            "typo is no parameter of probe; allowed: tables, cells, seconds, log, fault",
        ),
        ("cells: 6", "cells: six", "cells is 'six': Input should be a valid integer"),
        ("fault: none", "fault: flood", "fault is 'flood': Input should be 'none' or 'raises'"),
        ("cells: 6, ", "", "cells is missing; probe needs it"),
    ],
)
def test_parameters_are_refused_before_anything_starts(probe, old, new, says):
    path = probe.root / "scales/tiny.yaml"
    before = path.read_text()
    probe.edit("scales/tiny.yaml", old, new)
    status, output = probe.run("python", "-m", "common.stage", "study", "probe", "tiny")
    path.write_text(before)
    assert status == 1
    assert output.startswith("error: scales/tiny.yaml: ")
    assert says in output
    assert len(output.splitlines()) == 1
    assert said(probe, "begin") == []
