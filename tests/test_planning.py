"""Plans: runs looked up without being done, stood in for, timed and explained; what came of them."""

import csv
import os
import subprocess
from dataclasses import replace

import nbformat
import pytest

import runs
from common import ledger, planning, runner
from common.environment import FRESH
from common.planning import reasons
from common.planning import rehearsal as rehearsing
from common.planning.rehearsal import Library, Rehearsal
from common.sweep import grid, sweep, workers
from common.sweep.records import Cache, Record

WORDS = {"text": "yes", "size": 3}


def in_this_process(pool, jobs):
    for job in jobs:
        _, reason = pool._cell(job, os.getpid())
        assert reason is None, reason
        yield job


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setattr(workers.Pool, "done", in_this_process)
    (tmp_path / "log").touch()
    return str(tmp_path / "log")


def done(run, cells, tmp_path, **inputs):
    return sweep(run, cells, inputs=inputs, name="main", cache=tmp_path / "cache")


def committed(swept):
    """The records as git's rows give them: parameters among the metrics, no name of the function."""
    return {
        record.key: replace(
            record, run="", cell={}, metrics={"sweep": "main", **record.cell, **record.metrics}, kept=None
        )
        for record in swept.records
    }


def rehearsal(tmp_path, rows=None):
    return Rehearsal(Library(rows or {}, Cache(tmp_path / "cache")))


@pytest.mark.parametrize("place", ["cache", "git"])
def test_runs_that_are_there_are_told_and_others_stood_in_for_by_the_most_alike(tmp_path, log, place):
    swept = done(runs.square, grid(x=[1, 2], log=[log]), tmp_path)
    rows = committed(swept) if place == "git" else {}
    asked = rehearsal(tmp_path if place == "cache" else tmp_path / "nowhere", rows)
    told = asked(runs.square, grid(x=[2, 5], log=[log]), inputs={}, name="main")
    there, new = told.records
    assert there.key == swept.records[1].key
    assert there.metrics == {"square": 4, "third": 2 / 3}
    assert new.cell["x"] == 5
    assert new.key not in {record.key for record in swept.records}
    like = [(record.metrics, record.tables) for record in swept.records]
    assert (new.metrics, new.tables) in like  # two are as much alike; which comes first their keys decide
    entry = asked.account[new.key]
    assert entry["differs"] == ["x"]
    assert entry["done_before"]
    assert entry["timed_here"] == (place == "cache")
    assert entry["seconds"] == pytest.approx(sum(record.timing["seconds"] for record in swept.records) / 2)
    assert entry["memory_mb"] == max(record.timing["memory_mb"] for record in swept.records)
    assert [(asked.account[key]["git"], asked.account[key]["cache"]) for key in (there.key, new.key)] == [
        (place == "git", place == "cache"),
        (False, False),
    ]
    assert (tmp_path / "log").read_text() == "1\n2\n"


def test_of_a_function_that_never_ran_nothing_is_known(tmp_path, log):
    asked = rehearsal(tmp_path)
    (record,) = asked(runs.square, grid(x=[1], log=[log]), inputs={}, name="main").records
    assert record.metrics == {}
    entry = asked.account[record.key]
    assert (entry["done_before"], entry["seconds"], entry["memory_mb"]) == (False, None, None)


def test_files_of_runs_that_git_has_are_needed_where_a_run_that_reads_them_is_to_be_done(tmp_path, log):
    models = done(runs.keeper, grid(x=[1, 2], log=[log]), tmp_path)
    rows = committed(models)
    for place, needed in ((tmp_path / "nowhere", {models.records[0].key}), (tmp_path, set())):
        asked = rehearsal(place, rows)
        kept = asked(runs.keeper, grid(x=[1, 2], log=[log]), inputs={}, name="main").kept
        cells = grid(model=["first"], log=[log])
        (read,) = asked(runs.named, cells, inputs={"first": kept[0]}, name="read").records
        assert asked.account[read.key]["inputs"] == [models.records[0].key]
        assert asked.files_needed() == needed


def entry(**changed):
    known = {"sweep": "main", "module": "common.here", "differs": [], "done_before": True, "inputs": ["a"]}
    return known | {"seconds": 60.0, "memory_mb": 500, "timed_here": True} | changed


@pytest.fixture
def changes(tmp_path, monkeypatch):
    """Of a study whose results are committed and whose code has changed since."""
    for name, text in (("here", "from common import there\n"), ("there", "X = 1\n"), ("aside", "Y = 1\n")):
        (tmp_path / "src/common").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"src/common/{name}.py").write_text(text)
    (tmp_path / "results/tiny/some").mkdir(parents=True)
    (tmp_path / "results/tiny/some/runs.csv").write_text("key\na\n")
    who = ["-c", "user.name=test", "-c", "user.email=test@test"]
    for command in (["init", "--quiet"], ["add", "."], [*who, "commit", "--quiet", "-m", "a step"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(reasons, "_closure", lambda module: {"common.here", "common.there"})
    found = reasons.Changes("some", "tiny", dict.fromkeys(reasons.STAMP, "0" * 64), tmp_path)
    found.parts = []
    return found


def test_code_that_changed_since_the_results_is_named_and_comments_are_no_code(changes, tmp_path):
    (tmp_path / "src/common/there.py").write_text("# a comment\nX = 1\n")
    assert changes.modules() == set()
    again = reasons.Changes("some", "tiny", dict.fromkeys(reasons.STAMP, "0" * 64), tmp_path)
    (tmp_path / "src/common/there.py").write_text("X = 2\n")
    (tmp_path / "src/common/aside.py").write_text("Y = 2\n")
    assert again.modules() == {"common.there", "common.aside"}
    again.parts = []
    assert again.of_run(entry(), {"a"}) == "code there"


@pytest.mark.parametrize(
    ("run", "parts", "there", "says"),
    [
        (entry(done_before=False, differs=["x"]), [], {"a"}, "missing"),
        (entry(differs=["x", "seed"]), ["data"], {"a"}, "parameter x, seed"),
        (entry(), [], set(), "inputs"),
        (entry(), ["data"], {"a"}, "data"),
        (entry(), ["notebook", "versions"], {"a"}, "versions"),
        (entry(), [], {"a"}, "code"),  # by elimination
    ],
)
def test_a_run_is_explained_by_what_differs(changes, run, parts, there, says):
    changes.parts = parts
    assert changes.of_run(run, there) == says


def test_a_study_without_results_says_so(changes):
    assert changes.of_notebook() == ["there are no results yet"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_torn_executed_notebook_is_a_reason_to_run_again(changes, tmp_path, text):
    (tmp_path / "results/tiny/some/notebook.ipynb").write_text(text)
    again = reasons.Changes("some", "tiny", dict.fromkeys(reasons.STAMP, "0" * 64), tmp_path)
    assert again.of_notebook() == ["its results can't be read"]


@pytest.fixture
def stamped(tmp_path, monkeypatch):
    """What has changed since the runner published results here, told by `Changes` of the same sources."""
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    monkeypatch.setattr(runner, "write_manifest", lambda scale: None)
    monkeypatch.setattr(reasons, "BUILD", tmp_path / "build")
    (tmp_path / "build/notebooks").mkdir(parents=True)
    (tmp_path / "build/notebooks/some.code.json").write_text("{}")
    (tmp_path / "scales").mkdir()
    (tmp_path / "scales/tiny.yaml").write_text("some: {}\n")
    (tmp_path / "dvc.lock").write_text("stages: {}\n")
    same = dict.fromkeys(reasons.STAMP, "0" * 64)
    executed(tmp_path / "work", "key,hardware\na,Linux\n").publish(same)
    return lambda: reasons.Changes("some", "tiny", same, tmp_path)


def executed(work, timing):
    (work / "results").mkdir(parents=True)
    (work / "figures").mkdir()
    (work / "results/timing.csv").write_text(timing)
    told = nbformat.v4.new_output("stream", text="AVX512\n")
    last = nbformat.v4.new_code_cell("", outputs=[told])
    nbformat.write(nbformat.v4.new_notebook(cells=[last]), work / "notebook.ipynb")
    return runner.Executed("some", "tiny", work)


@pytest.mark.parametrize(
    ("timing", "says"),
    [("key\na\n", "not known"), ("key,hardware\na,\nb,Linux\n", "Linux"), ("key,hardware\na,X\nb,B\n", "B; X")],
)
def test_hardware_is_told_as_far_as_rows_of_git_have_it(tmp_path, monkeypatch, timing, says):
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    monkeypatch.setattr(runner, "write_manifest", lambda scale: None)
    executed(tmp_path / "work", timing).publish({})
    stamp = nbformat.read(tmp_path / "results/tiny/some/notebook.ipynb", 4).metadata["compendium"]
    assert stamp["hardware"] == says


def test_of_what_was_just_made_nothing_runs_again(stamped):
    assert stamped().of_notebook() == []
    assert stamped().of_run(entry(), {"a"}) == "code"  # versions explain nothing


@pytest.mark.parametrize(
    ("library", "notebook", "run"),
    [
        ("torch", "versions", "versions"),
        ("matplotlib", "version of matplotlib", "code"),
        ("scikit-learn", "version of scikit-learn", "code"),
    ],
)
def test_another_version_runs_the_notebook_again_and_explains_runs_if_numbers_depend_on_it(
    stamped, monkeypatch, library, notebook, run
):
    here = reasons.versions_stamped() | {library: "0.1"}
    monkeypatch.setattr(reasons, "versions_stamped", lambda: here)
    assert stamped().of_notebook() == [notebook]
    assert stamped().of_run(entry(), {"a"}) == run


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """A plan's text by an account of runs, whose notebook runs again."""
    monkeypatch.setattr(ledger, "PLANS", tmp_path / "plans")

    class Unchanged:
        def __init__(self, study, scale, digests):
            pass

        def of_notebook(self):
            return ["code"]

        def of_run(self, run, there):
            return "parameter x"

    def text(account, by_then=()):
        account = {"files_needed": [], "absent": [], "ended": None, "after": []} | account
        monkeypatch.setattr(planning, "_rehearsed", lambda study, scale: account)
        monkeypatch.setattr(planning, "fingerprint", lambda study, scale: WORDS)
        monkeypatch.setattr(planning, "Changes", Unchanged)
        return planning.plan("some", "tiny", 2, set(by_then))

    return text


def test_sweeps_follow_each_other_and_the_longest_run_bounds_each(planned):
    there = {"git": True, "cache": True}
    todo = {"git": False, "cache": False}
    account = {
        "a": entry() | there,
        **{f"b{number}": entry() | todo for number in range(4)},  # 4 minutes by two workers
        "c": entry(sweep="long", seconds=600.0) | todo,  # cannot be halved
        "d": entry(sweep="long", seconds=None, memory_mb=None, done_before=False, timed_here=False) | todo,
    }
    text = planned({"runs": account})
    assert "7 runs, 1 in the cache, 1 in git" in text
    assert "6 to do, about 12.5 min with 2 workers, 1.7 GB, besides 1 of whose like there is no past run" in text
    assert "main      4   2.0  parameter x" in text
    assert "long      2  10.0  parameter x" in text
    assert "5 by runs here" in text
    text = planned({"runs": account}, by_then=["b0", "b1", "b2", "b3"])
    assert "2 to do, about 10.5 min" in text


def test_what_git_has_is_done_for_its_files_and_by_make_figures(planned):
    account = {"a": entry(git=True, cache=False), "b": entry(git=True, cache=False), "c": entry(git=True, cache=True)}
    text = planned({"runs": account, "files_needed": ["a"]})
    assert "main      1  1.0  its files are needed" in text
    assert "no row of git counts: 2 to do, about 1.5 min" in text


def test_a_rehearsal_that_ended_early_says_what_may_follow(planned):
    text = planned({"runs": {}, "ended": "nothing is known yet of x", "after": ["late"]})
    assert "more may follow (last time: late), which depends on these runs: nothing is known yet of x" in text


def test_models_that_are_not_here_are_named(planned):
    says = "not on this machine, so that it is not known which runs from it are there: a, b"
    assert says in planned({"runs": {}, "absent": ["a", "b"]})
    assert "not on this machine" not in planned({"runs": {}})


NEW = {"seconds": None, "memory_mb": None, "done_before": False, "timed_here": False, "git": False, "cache": False}


@pytest.mark.parametrize(
    ("run", "ended", "says"),
    [
        ({}, "nothing is known yet of x", "at least 3 to do, minutes not known\n"),
        (NEW, "nothing is known yet of x", "at least 3 to do, minutes not known\n"),
        (NEW, None, " 3 to do, minutes not known: there is no past run like them\n"),
    ],
)
def test_what_is_not_known_is_not_told_in_minutes_and_not_held_against_what_it_took(
    planned, tmp_path, monkeypatch, run, ended, says
):
    runs_asked = {name: entry(git=False, cache=False) | run for name in "abc"}
    text = planned({"runs": runs_asked, "ended": ended}) + "\n"
    assert text.count(says) == 2
    assert "about" not in text
    assert ("at least 3 runs, 0 in the cache" in text) == bool(ended)
    assert ("main      3    ?  parameter x" in text) == bool(run)
    for fresh in (False, True):
        planned({"runs": runs_asked, "ended": ended})
        monkeypatch.setenv(FRESH, "1") if fresh else monkeypatch.delenv(FRESH, raising=False)
        assert ledger.settle("some", "tiny", WORDS, 9.0) == ""
    assert ledger.last("some", "tiny") is None


def test_minutes_of_runs_like_none_before_are_missing_from_both_estimates(planned):
    account = {"a": entry(git=False, cache=False), "b": entry() | NEW}
    assert planned({"runs": account}).count("besides 1 of whose like there is no past run") == 2


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("{}['train_loss']", "nothing is known yet of train_loss"),
        ("__import__('pandas').DataFrame({'a': [1]})[['b', 'a']]", "nothing is known yet of ['b'] not in index"),
        ("raise ValueError('no seed')", "no seed"),
        ("assert False", "nothing fits in their place"),
    ],
)
def test_why_a_notebook_went_no_further_is_told_without_the_name_of_an_exception(monkeypatch, tmp_path, cell, says):
    monkeypatch.setattr(rehearsing, "checked_cells", lambda study, scale: ([cell], 0, {}))
    monkeypatch.setattr(rehearsing, "committed_records", lambda folder, root: {})
    monkeypatch.setattr(rehearsing, "_without_runs", lambda study, asked, committed: None)
    monkeypatch.setattr(rehearsing, "_without_fetching", lambda folder: set())
    monkeypatch.setattr(rehearsing, "CACHE", tmp_path)
    ended = rehearsing.rehearse("some", "tiny", tmp_path)["ended"]
    assert says in ended
    assert "Error" not in ended


def test_a_plan_is_held_against_what_it_took_once_and_only_of_the_same_sources(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "PLANS", tmp_path / "plans")
    monkeypatch.delenv(FRESH, raising=False)
    assert ledger.settle("some", "tiny", WORDS, 1.0) == ""
    ledger.write_plan("some", "tiny", WORDS, 3.0, 5.0)
    assert ledger.settle("some", "tiny", WORDS, 3.26) == ", planned 3.0"
    assert ledger.settle("some", "tiny", WORDS, 3.0) == ""
    ledger.write_plan("some", "tiny", WORDS, 3.0, 5.0)
    assert ledger.settle("some", "tiny", WORDS | {"size": 4}, 3.0) == ""
    assert ledger.last("some", "tiny") == "last planned 3.0 min, took 3.26"
    monkeypatch.setenv(FRESH, "1")
    ledger.write_plan("some", "tiny", WORDS, 3.0, 5.0)
    assert ledger.settle("some", "tiny", WORDS, 4.0) == ", planned 5.0"
    assert ledger.last("some", "laptop") is None
    rows = list(csv.DictReader((tmp_path / "plans/ledger.csv").open()))
    assert [(row["planned"], row["took"]) for row in rows] == [
        ("", "1.0"), ("3.0", "3.26"), ("", "3.0"), ("", "3.0"), ("5.0", "4.0"),
    ]  # fmt: skip


def test_a_damaged_record_is_not_there(tmp_path, log):
    swept = done(runs.square, grid(x=[1, 2], log=[log]), tmp_path)
    path = Cache(tmp_path / "cache").path(swept.records[0].key)
    path.write_text(path.read_text().replace("1", "2"))
    library = Library({}, Cache(tmp_path / "cache"))
    assert [library.there(record.key) for record in swept.records] == [False, True]
    assert library.get(swept.records[0].key) == Record(swept.records[0].key, "", {}, {})
    assert path.exists()  # a plan removes nothing
