"""Figures from committed tables alone: the same bytes; and what is refused when tables and code don't fit."""

import json
import re
import subprocess
from pathlib import Path

import pytest

import runs
from common import redrawing
from common.errors import UserError
from common.redrawing import Rows
from common.sweep import Kept, grid
from common.sweep.records import Record, from_csv, to_csv
from common.sweep.workers import Job
from common.verification.study import CLAIMS, RUNS
from conftest import copied
from pipeline import MAKE, content

STUDY = "bases"  # the one that draws least


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    return copied(tmp_path_factory.mktemp("clone"))


def test_figures_drawn_from_tables_have_the_bytes_that_git_has(clone):
    before = content(clone, "figures/laptop", "results/laptop")
    for path in (clone.root / "figures/laptop" / STUDY).iterdir():
        path.unlink()
    output = clone.ok(*MAKE, "SCALE=laptop", f"STUDY={STUDY}", "FROM=tables")
    assert content(clone, "figures/laptop", "results/laptop") == before
    assert clone.ok("git", "status", "--porcelain") == ""
    assert "holds: bitwise" in output
    assert not (clone.root / "data").exists()
    assert not (clone.root / ".cache/runs").exists()


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """`redraw` of a study of which git holds two files, by a notebook that leaves those given, or fails."""
    monkeypatch.setattr(redrawing, "ROOT", tmp_path)
    monkeypatch.setattr(redrawing, "committed", lambda *place: {RUNS: b"rows", CLAIMS: b"claims"})
    (tmp_path / "figures/huge/bases").mkdir(parents=True)
    (tmp_path / "figures/huge/bases/old.svg").touch()

    def drawn(said="", **left):
        def executed(command, **options):
            for name, text in left.items():
                path = Path(command[-1]) / name.replace("__", "/").replace("_", ".")
                path.parent.mkdir(exist_ok=True)
                path.write_text(text)
            return subprocess.CompletedProcess(command, bool(said), "", f"a warning\n{said}\n")

        monkeypatch.setattr(redrawing.subprocess, "run", executed)
        redrawing.redraw("bases", "huge")
        return sorted(path.name for path in (tmp_path / "figures/huge/bases").iterdir())

    return drawn


def test_figures_take_the_place_of_others_where_rows_and_claims_are_those_of_git(drawn):
    made = {"results__runs_csv": "rows", "results__claims_json": "claims", "figures__new_svg": "<svg/>"}
    assert drawn(**made) == ["new.svg"]


@pytest.mark.parametrize(
    ("left", "says"),
    [
        ({"said": "error: no row"}, "bases can't be drawn: no row"),
        ({"results__runs_csv": "row", "results__claims_json": "claims"}, "runs.csv comes out otherwise than git"),
        ({"results__runs_csv": "rows", "results__claims_json": "claim"}, "claims.json comes out otherwise than git"),
    ],
)
def test_figures_stay_where_the_notebook_fails_or_tables_and_code_do_not_fit(drawn, tmp_path, left, says):
    with pytest.raises(UserError, match=re.escape(says)):
        drawn(**left, figures__new_svg="<svg/>")
    assert [path.name for path in (tmp_path / "figures/huge/bases").iterdir()] == ["old.svg"]


def test_a_scale_of_which_git_holds_nothing_is_one_line(clone):
    status, output = clone.run("compendium", "figures", "--scale", "tiny", "--from", "tables")
    assert status == 1
    assert output.splitlines()[-1].endswith("at the scale tiny: nothing to draw from")


def record(key, sweep, **values):
    return Record(key, "", {}, {"sweep": sweep, **values})


def rows(*records):
    return Rows({each.key: each for each in records}, "runs.csv")


def test_a_row_belongs_to_the_cell_whose_parameters_it_has():
    there = rows(
        record("a", "main", x=1, log="l", result=10, other=None),
        record("b", "main", x=2, log="l", result=20, other=None),
        record("c", "else", x=2, log="l", result=30, other=5),
    )
    found = there(runs.square, grid(x=[2, 1], log=["l"]), inputs={}, name="main")
    assert [each.key for each in found.records] == ["b", "a"]
    assert [each.metrics["result"] for each in found.records] == [20, 10]
    assert found.records[0].cell == {"x": 2, "log": "l"}
    assert "x" not in found.records[0].metrics
    assert found.computed == 0


def test_cells_of_one_grid_may_have_other_parameters_than_the_first():
    there = rows(
        record("a", "main", x=1, log="l", depth=None), record("b", "main", x=1, log="l", depth=2),
        record("c", "main", x=1, log="l", depth=3),
    )  # fmt: skip
    cells = [{"x": 1, "log": "l"}, {"x": 1, "log": "l", "depth": 3}, {"x": 1, "log": "l", "depth": 2}]
    for asked, keys in ((cells, "acb"), (cells[::-1], "bca")):
        found = there(runs.square, asked, inputs={}, name="main")
        assert [each.key for each in found.records] == [*keys]


def test_a_run_that_two_sweeps_ask_for_has_one_row_of_the_first():
    there = rows(record("a", "first", x=1, log="l"), record("b", "second", x=3, log="l"))
    there(runs.square, [{"x": 1, "log": "l"}], inputs={}, name="first")
    again = there(runs.square, grid(x=[1, 3], log=["l"]), inputs={}, name="second")
    assert [each.key for each in again.records] == ["a", "b"]
    with pytest.raises(UserError, match="0 rows of sweep third"):  # another function's runs are others
        there(runs.keeps_nothing, [{"x": 1, "log": "l"}], inputs={}, name="third")


def test_models_of_one_name_have_rows_in_the_order_in_which_they_are_asked_for():
    def kept(key):
        return Kept(Job(key, "", {}, {}), None, "models")

    there = rows(record("a", "main", x=1, log="l", model="m"), record("b", "main", x=1, log="l", model="m"))
    cells = [{"x": 1, "log": "l", "model": "m"}]
    first, second = ({"m": kept(key), "other": kept(f"{key}, too")} for key in ("base", "tuned"))
    asked = [there(runs.square, cells, inputs=inputs, name="main") for inputs in (first, second, first, second)]
    assert [each.records[0].key for each in asked] == ["a", "b", "a", "b"]
    with pytest.raises(UserError, match="0 rows of sweep main"):  # there was no third
        there(runs.square, cells, inputs={"m": kept("another")}, name="main")


def test_no_row_for_a_cell_is_refused():
    with pytest.raises(UserError, match=r"runs.csv has 0 rows of sweep main with "):
        rows()(runs.square, [{"x": 1, "log": "l"}], inputs={}, name="main")


def test_values_that_lists_and_tables_hold_are_compared_as_json():
    knobs = {"shares": {"b": 0.5, "a": [1, 2]}, "rate": 0.003}
    written = from_csv(to_csv([{"sweep": "main", "knobs": knobs, "log": "l"}]))[0]
    there = rows(Record("a", "", {}, written))
    cell = json.loads(json.dumps({"knobs": {"rate": 0.003, "shares": {"a": [1, 2], "b": 0.5}}, "log": "l"}))
    assert there(runs.square, [cell], inputs={}, name="main").records[0].key == "a"
