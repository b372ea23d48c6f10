"""The tree itself: style, floors, clean notebooks, no hosts."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from common.project import ROOT
from common.provenance import SOURCE, imports

# Each floor imports only from floors below it, and from its own.
FLOORS = (
    {"environment", "errors", "project"},
    {"commands", "files", "git", "parameters", "processes", "provenance", "rows", "scales"},
    {"equivalence", "hub", "machine", "signature", "sources"},
    {"gpu_workers", "notebooks"},
    {"architectures", "corpus", "knowledge", "tables", "tokenizer", "models", "batches", "documents", "zoo", "units"},
    {"packaged", "sharded", "texts", "training", "scoring", "judges"},
    {"converted", "landscape", "connectivity", "digits", "distributed", "tasks"},
    {"sweep"},
    {"bases", "expansion", "hallucination", "merging", "pairs", "preference", "quantization"},
    {"alignment", "experts", "footprint", "predictors"},
    {"devices", "growing"},
    {"evidence", "figures"},
    {"analysis", "plots", "scorecard"},
    {"study"},
    {"verification", "cells"},
    {"export", "forking", "ledger", "overview", "runner", "sharing"},
    {"comparing", "redrawing", "stage"},
    {"planning"},
    {"cli"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted(
    path for path in (SOURCE / "common").rglob("*.py") if path.name != "__init__.py" or path.parent.name != "common"
)


def tracked(*patterns):
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    return [ROOT / name for name in shown if name and (ROOT / name).is_file()]


def room(module):
    return module.split(".")[1]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_arrows_between_modules_point_down(path):
    own = room(".".join(path.relative_to(SOURCE).with_suffix("").parts))
    used = {room(name) for name in imports(ast.parse(path.read_text())) if name.startswith("common.")}
    assert {name for name in used if name in FLOOR and FLOOR[name] > FLOOR[own]} == set()


def test_every_module_has_a_floor():
    rooms = {path.relative_to(SOURCE / "common").parts[0].removesuffix(".py") for path in MODULES}
    assert rooms == FLOOR.keys()


@pytest.mark.parametrize("command", [("check",), ("format", "--check")])
def test_ruff_finds_nothing(command):
    ended = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "."], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout


def test_the_lock_names_versions_and_neither_hosts_nor_torch():
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!]+( ; .*)?", line) for line in lines), [x for x in lines if "==" not in x]
    assert not any(line.startswith("torch==") for line in lines)


def test_no_file_is_large_or_names_a_place_on_a_machine():
    for path in tracked():
        assert path.stat().st_size < 2_000_000, path
        if path.suffix in {".py", ".md", ".yaml", ".toml", ".ipynb", ".json", ".csv", ".lock", ".dvc"}:
            text = path.read_text()
            for name in {str(ROOT.parent), str(Path.home())} - {"/", "/home"}:
                assert f"{name}/" not in text, (path, name)
