"""What holds of every study that was run in a checkout at the tiny scale."""

import csv
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

from common.files import digest
from common.project import ROOT
from common.sweep.records import decode

# With what runs the tests, nothing installed.
MAKE = ("make", "figures", f"VENV={sys.prefix}", f"READY={sys.executable}")
TIMED = {"timing.csv"}  # outside every comparison


def blocks(page, language, scale="laptop"):
    """Blocks of code in one of docs/, speaking of this scale."""
    found = re.findall(rf"(?ms)^```{language}\n(.*?)^```", (ROOT / "docs" / page).read_text())
    return [block.replace("-laptop", f"-{scale}") for block in found]


def carried_out(checkout, block):
    """What each command of a block of a document prints, carried out one after another."""
    commands = [shlex.split(line, comments=True) for line in block.splitlines()]
    return [
        checkout.ok(*(MAKE + tuple(words[2:]) if words[:2] == ["make", "figures"] else words)) for words in commands
    ]


def content(checkout, *folders):
    found = {}
    for folder in folders:
        for path in sorted((checkout.root / folder).rglob("*")):
            if path.is_file() and path.name not in TIMED:
                found[str(path.relative_to(checkout.root))] = digest(path)
    return found


def published(checkout):
    """Digests of what was made at the tiny scale; not of the manifest, which holds the seconds that it took."""
    made = content(checkout, "results/tiny", "figures/tiny")
    return {name: value for name, value in made.items() if not name.endswith("manifest.json")}


def cached(checkout):
    return {path: path.stat().st_mtime_ns for path in (checkout.root / ".cache/runs").glob("??/*.json")}


def rows_of(folder, table="runs"):
    """Rows of a table as text, but for keys: one that is all digits is quoted, so that it stays text."""
    with (folder / f"{table}.csv").open() as file:
        return [row | {"key": decode(row["key"])} for row in csv.DictReader(file)]


def keeps_contract(checkout, study, runs):
    folder = checkout.root / "results/tiny" / study
    keys = [row["key"] for row in rows_of(folder)]
    assert len(set(keys)) == len(keys) == runs
    assert [row["key"] for row in rows_of(folder, "timing")] == keys
    claims = json.loads((folder / "claims.json").read_text())
    fields = {"paper", "statement", "ours", "test", "margin", "n_seeds", "estimate", "ci", "verdict", "figure"}
    for claim in claims.values():
        assert fields <= claim.keys()
        assert claim["verdict"] in {"reproduced", "not reproduced", "inconclusive"}
        assert (checkout.root / "figures/tiny" / study / f"{claim['figure']}.svg").exists()
    assert all(isinstance(value, float | int) for value in json.loads((folder / "metrics.json").read_text()).values())


def stamped_and_clean(checkout, study):
    text = (checkout.root / "results/tiny" / study / "notebook.ipynb").read_text()
    stamp = json.loads(text)["metadata"]["compendium"]
    digests = {"code digest", "data digest", "parameters digest"}
    assert {"source", "scale", "versions", "hardware", *digests} <= stamp.keys()
    assert stamp["scale"] == "tiny"
    for progress in ("run/s", "stderr", str(checkout.root)):
        assert progress not in text


def forget_some(checkout):
    """Take an eighth of the runs of each function out of the cache, at least one."""
    by_function = {}
    for path in sorted(cached(checkout)):
        by_function.setdefault(json.loads(path.read_text().partition("\n")[2])["run"], []).append(path)
    for paths in by_function.values():
        for path in paths[::8]:
            path.unlink()
            shutil.rmtree(path.with_suffix(""), ignore_errors=True)
    return by_function.keys()


def makes_the_same_again(checkout, runs):
    """In one process of its own, runs that are lost among them, and from git's rows alone: see perturb.py.

    `runs`: how many each study has.
    """
    checkout.commit("results/tiny")
    assert len(forget_some(checkout)) > len(runs)
    program = Path(__file__).parent / "perturb.py"
    output = checkout.ok(sys.executable, str(program), "tiny", *runs)
    there = {path.stem for path in cached(checkout)}  # among them models that other studies export
    for study, number in runs.items():
        keys = {row["key"] for row in rows_of(checkout.root / "results/tiny" / study)}
        assert len(keys) == number
        assert keys <= there, study
    for study, found in json.loads(output.strip().splitlines()[-1]).items():
        assert found["changed"] == [], study
        assert found["redrawn"] == [], study
        assert found["on_gpu"], study
        # In another order of operations a choice that is a close one may turn, and a share of few with it.
        assert {name: share for name, share in found["on_gpu"].items() if share > 0.2} == {}, study
        assert len(found["effects"]) > 15
        assert [name for name, effect in found["effects"].items() if effect is None] == [], study
