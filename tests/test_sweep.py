"""Sweeps: what a grid gives, what the cache spares, what faults cost."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from distributed import LocalCluster
from hypothesis import given
from hypothesis import strategies as st
from joblib.externals.loky.process_executor import BrokenProcessPool

import runs
from common import gpu_workers
from common.environment import DEVICE
from common.errors import UserError
from common.project import ROOT
from common.provenance import SOURCE, hardware
from common.sweep import SweepError, folders, grid, sweep
from common.sweep.records import (
    Cache,
    Record,
    code_of,
    committed_records,
    content_of,
    decode,
    encode,
    from_csv,
    publish,
    to_csv,
)
from common.sweep.workers import Job, Pool

TESTS = Path(__file__).parent


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log"
    path.touch()
    return path


def cells(log, **more):
    return [{"x": x, "log": str(log), **more} for x in range(4)]


def do(run, grid_cells, tmp_path, inputs=None, **more):
    return sweep(run, grid_cells, inputs=inputs or {}, name="test", cache=tmp_path / "cache", workers=2, **more)


def lines(log):
    return log.read_text().splitlines()


def test_a_sweep_gives_what_the_function_gives_in_the_order_of_the_grid(tmp_path, log):
    swept = do(runs.square, cells(log), tmp_path)
    assert [record.metrics for record in swept.records] == [{"square": x * x, "third": x / 3} for x in range(4)]
    assert swept.records[3].tables == {"curve": {"step": [1, 2], "loss": [3 / 7, 3 / 9]}}
    assert swept.records[2].cell == {"x": 2, "log": str(log)}
    assert list(swept.records[2].metrics) == ["square", "third"]
    assert list(swept.records[2].cell) == ["x", "log"]


def test_finished_cells_are_not_run_again_and_new_ones_are(tmp_path, log):
    first = do(runs.square, cells(log)[:3], tmp_path)
    again = do(runs.square, cells(log), tmp_path)
    assert (first.computed, again.computed) == (3, 1)
    assert sorted(lines(log)) == ["0", "1", "2", "3"]
    assert again.records[:3] == first.records


def test_one_worker_and_two_give_the_same_records(tmp_path, log):
    one = sweep(runs.square, cells(log), inputs={}, name="one", cache=tmp_path / "one", workers=1)
    two = sweep(runs.square, cells(log), inputs={}, name="two", cache=tmp_path / "two", workers=2)
    assert [(r.key, r.metrics, r.tables) for r in one.records] == [(r.key, r.metrics, r.tables) for r in two.records]


@pytest.mark.parametrize("damage", ["torn", "altered", "emptied"])
def test_a_damaged_cache_file_is_noticed_and_only_its_cell_runs_again(tmp_path, log, damage, capsys):
    swept = do(runs.square, cells(log), tmp_path)
    path = Cache(tmp_path / "cache").path(swept.records[2].key)
    text = path.read_text()
    path.write_text(
        {"torn": text[: len(text) // 2], "altered": text.replace('"square": 4', '"square": 5'), "emptied": ""}[damage]
    )
    again = do(runs.square, cells(log), tmp_path)
    assert again.computed == 1
    assert [(r.key, r.metrics) for r in again.records] == [(r.key, r.metrics) for r in swept.records]
    assert lines(log).count("2") == 2
    assert len(lines(log)) == 5
    assert f"damaged cache file {path.name}" in capsys.readouterr().err


def test_a_damaged_cache_file_that_another_process_has_removed_meanwhile_is_not_there(tmp_path, log):
    swept = do(runs.square, cells(log), tmp_path)
    cache = Cache(tmp_path / "cache")
    path = cache.path(swept.records[2].key)
    path.write_text("torn")
    assert cache.read(swept.records[2].key, lambda line: path.unlink()) is None


def checked(body):
    return f"{hashlib.sha256(body.encode()).hexdigest()}\n{body}\n"


@pytest.mark.parametrize("text", ["", "torn", "x\n[1]", "x\n{}", checked("[1]"), checked('{"run": "square"}'), None])
def test_times_of_the_past_are_those_of_whole_records(tmp_path, log, monkeypatch, text):
    first = do(runs.square, cells(log)[:3], tmp_path)
    cache = Cache(tmp_path / "cache")
    path = cache.path(first.records[1].key)
    if text is None:  # gone once it was listed
        listed = list(cache.folder.glob("*/*.json"))
        monkeypatch.setattr(Path, "glob", lambda *_: listed)
        path.unlink()
    else:
        path.write_text(text)
    found = sorted(cell["x"] for cell, _ in cache.timings("square"))
    assert found == [0, 2]


def test_a_cache_file_under_another_runs_name_is_not_believed(tmp_path, log):
    swept = do(runs.square, cells(log), tmp_path)
    cache = Cache(tmp_path / "cache")
    cache.path(swept.records[1].key).write_text(cache.path(swept.records[2].key).read_text())
    assert [r.metrics["square"] for r in do(runs.square, cells(log), tmp_path).records] == [0, 1, 4, 9]


def test_a_worker_killed_once_costs_one_repetition_of_what_it_ran(tmp_path, log):
    swept = do(runs.faulty, cells(log, fault="killed once", at=2), tmp_path)
    assert [record.metrics["square"] for record in swept.records] == [0, 1, 4, 9]
    assert lines(log).count("2") == 2
    assert lines(log).count("0") == 1


def test_a_cell_that_kills_its_worker_twice_is_named_and_all_others_finish(tmp_path, log):
    with pytest.raises(SweepError, match=r"1 of 4 runs failed; x=2: its worker was killed twice"):
        do(runs.faulty, cells(log, fault="killed always", at=2), tmp_path)
    assert len(list((tmp_path / "cache").glob("??/*.json"))) == 3


@pytest.mark.parametrize(
    ("fault", "reason"), [("raises", "UserError: the disk of this cell is full"), ("nan", "metric square is nan")]
)
def test_a_failing_cell_is_listed_with_its_reason_after_the_rest_is_done(tmp_path, log, fault, reason):
    with pytest.raises(SweepError, match=f"1 of 4 runs failed; x=1: .*{reason}.*traceback: ") as failure:
        do(runs.faulty, cells(log, fault=fault, at=1), tmp_path)
    traceback = Path(str(failure.value).rpartition("traceback: ")[2].rstrip(")"))
    assert "Traceback" in traceback.read_text()
    assert sorted(lines(log)) == ["0", "1", "2", "3"]
    assert len(list((tmp_path / "cache").glob("??/*.json"))) == 3


def test_killing_the_sweep_leaves_no_worker_and_the_next_one_resumes(tmp_path, log):
    program = (
        "import runs; from pathlib import Path; from common.sweep import sweep\n"
        f"cells = [{{'x': x, 'log': {str(log)!r}, 'seconds': 0.2 if x < 3 else 60.0}} for x in range(6)]\n"
        f"sweep(runs.slow_square, cells, inputs={{}}, name='t', cache=Path({str(tmp_path / 'cache')!r}), workers=2)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": str(TESTS)})
    deadline = time.monotonic() + 60
    while sum("begin 3" in line or "begin 4" in line for line in lines(log)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=5)
    assert not alive
    assert not any("end 3" in line or "end 4" in line for line in lines(log))
    before = lines(log)
    assert len(list((tmp_path / "cache").glob("??/*.json"))) == 3
    quick = [{"x": x, "log": str(log), "seconds": 0.2} for x in range(6)]
    swept = do(runs.slow_square, quick, tmp_path)
    assert [record.metrics["square"] for record in swept.records] == [0, 1, 4, 9, 16, 25]
    after = lines(log)[len(before) :]
    assert {line.split()[1] for line in after if line.startswith("begin")} == {"3", "4", "5"}


def test_of_two_sweeps_at_once_one_does_each_run_and_both_have_it(tmp_path, log):
    program = (
        "import runs; from pathlib import Path; from common.sweep import sweep\n"
        f"cells = [{{'x': x, 'log': {str(log)!r}}} for x in range(3)]\n"
        f"cache = Path({str(tmp_path / 'cache')!r})\n"
        "swept = sweep(runs.waiting_keeper, cells, inputs={}, name='t', cache=cache, workers=2)\n"
        "print([record.metrics['square'] for record in swept.records])\n"
    )
    own, outputs = os.environ | {"PYTHONPATH": f"{SOURCE}{os.pathsep}{TESTS}"}, [tmp_path / "one", tmp_path / "two"]
    both = [
        subprocess.Popen([sys.executable, "-c", program], env=own, stdout=path.open("w"), stderr=subprocess.STDOUT)
        for path in outputs
    ]
    deadline = time.monotonic() + 60
    while not all("3 to do" in path.read_text() for path in outputs) and time.monotonic() < deadline:
        time.sleep(0.05)
    Path(f"{log}.go").touch()
    assert [process.wait(timeout=60) for process in both] == [0, 0], [path.read_text() for path in outputs]
    assert all(path.read_text().endswith("[0, 1, 4]\n") for path in outputs)
    assert sorted(lines(log)) == ["0", "1", "2"]
    assert not [path for place in ("locks", "started", "scratch") for path in (tmp_path / "cache" / place).glob("*")]


def test_a_key_changes_with_parameters_and_content_and_not_with_places(tmp_path, log):
    def keys(text, folder, x=1):
        path = tmp_path / folder / "text"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        grid_cells = [{"x": x, "log": str(log)}]
        swept = sweep(runs.count_text, grid_cells, inputs={"text": path}, name="t", cache=tmp_path / "c", workers=1)
        return swept.records[0].key

    first = keys("abc", "a")
    assert keys("abc", "b") == first
    assert keys("abcd", "b") != first
    assert keys("abc", "a", x=2) != first


def test_rows_known_from_elsewhere_spare_their_runs(tmp_path, log):
    swept = do(runs.square, cells(log), tmp_path)
    known = {r.key: Record(r.key, "", {}, {**r.cell, **r.metrics, "sweep": "old"}, r.tables) for r in swept.records[:3]}
    again = sweep(runs.square, cells(log), inputs={}, name="t", cache=tmp_path / "empty", committed=known, workers=2)
    assert again.computed == 1
    assert [(r.cell, r.metrics, r.tables) for r in again.records] == [
        (r.cell, r.metrics, r.tables) for r in swept.records
    ]


@pytest.mark.parametrize(
    ("bad", "says"), [([], "the grid is empty"), ([{"x": 1, "log": ""}] * 2, "holds a cell twice")]
)
def test_a_grid_that_makes_no_sense_is_refused_before_anything_runs(tmp_path, bad, says):
    with pytest.raises(UserError, match=says):
        do(runs.square, bad, tmp_path)


def test_rows_kept_in_git_do_not_stand_for_runs_where_they_are_not_trusted(tmp_path, log, capsys):
    swept = do(runs.square, cells(log), tmp_path)
    timing = {"seconds": 300.0}
    known = {r.key: Record(r.key, "", {}, {**r.cell, "square": -1}, {}, timing) for r in swept.records}
    settings = {"committed": known, "trust_committed": False, "workers": 2}
    again = sweep(runs.square, cells(log), inputs={}, name="t", cache=tmp_path / "empty", **settings)
    assert again.computed == 4
    assert [r.metrics["square"] for r in again.records] == [0, 1, 4, 9]
    assert "4 to do, about 10 min, by runs elsewhere" in capsys.readouterr().err


def test_the_estimate_takes_runs_like_these_and_no_others(tmp_path, log, capsys):
    settings = {"log": str(log), "seconds": 0.1}
    do(runs.slow_square, [{"x": x, **settings} for x in range(2)], tmp_path)
    assert "no past run to tell how long" in capsys.readouterr().err
    do(runs.slow_square, [{"x": 7, **settings}], tmp_path)
    assert "1 to do, less than a minute" in capsys.readouterr().err
    do(runs.slow_square, [{"x": 8, **settings, "seconds": 0.2}], tmp_path)
    assert "no past run to tell how long" in capsys.readouterr().err


def test_a_dask_cluster_gives_the_same_records(tmp_path, log):
    here = do(runs.square, cells(log), tmp_path)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        there = sweep(runs.square, cells(log), inputs={}, name="t", cache=tmp_path / "dask", cluster=address)
    assert there.computed == 4
    assert [(r.key, r.metrics, r.tables) for r in there.records] == [(r.key, r.metrics, r.tables) for r in here.records]


def test_a_clusters_only_worker_is_not_this_process_and_what_kills_it_is_named_when_all_others_are_done(tmp_path, log):
    asked = cells(log, fault="killed always", at=1)
    with gpu_workers.workers(["0"]) as address, pytest.raises(SweepError, match=r"1 of 4 runs failed; x=1: its worker"):
        sweep(runs.faulty, asked, inputs={}, name="t", cache=tmp_path / "cache", cluster=address)
    assert len(list((tmp_path / "cache").glob("??/*.json"))) == 3
    # Twice by the scheduler's own choice, twice alone; no other cell was begun twice.
    assert sorted(lines(log)) == ["0", "1", "1", "1", "1", "2", "3"]


def test_a_clusters_worker_killed_once_costs_one_repetition_of_what_it_ran(tmp_path, log):
    asked = cells(log, fault="killed once", at=2)
    with gpu_workers.workers(["0", "1"]) as address:
        swept = sweep(runs.faulty, asked, inputs={}, name="t", cache=tmp_path / "cache", cluster=address)
    assert [record.metrics["square"] for record in swept.records] == [0, 1, 4, 9]
    assert sorted(lines(log)) == ["0", "1", "2", "2", "3"]


def test_a_clusters_worker_computes_where_each_sweep_says_or_is_refused_when_it_has_chosen(tmp_path, monkeypatch):
    def told(cell, choose, device=None):
        monkeypatch.setenv(DEVICE, device) if device else monkeypatch.delenv(DEVICE, raising=False)
        asked = [{"cell": cell, "choose": choose}]
        swept = sweep(runs.computed_on, asked, inputs={}, name="t", cache=tmp_path, cluster=address)
        return swept.records[0].metrics

    monkeypatch.delenv(DEVICE)  # nor does the worker have any
    with gpu_workers.workers(["0"]) as address:
        assert told(0, False, "meta") == {"told": "meta", "device": None}
        assert told(1, False) == {"told": None, "device": None}
        assert told(2, True, "meta") == {"told": "meta", "device": "meta"}
        with pytest.raises(UserError, match=r"computes on meta by now, not on cpu: restart the cluster's workers"):
            told(3, True)
        with pytest.raises(UserError, match=r"computes on meta by now, not on cpu"):
            told(3, True, "cpu")
        assert told(4, True, "meta") == {"told": "meta", "device": "meta"}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process can't forget its peak")
def test_the_memory_of_a_run_is_its_own_and_not_that_of_the_run_before_in_its_worker(tmp_path):
    with gpu_workers.workers(["0"]) as address:
        several = [
            sweep(runs.filling, [{"megabytes": size}], inputs={}, name="t", cache=tmp_path, cluster=address).records[0]
            for size in (10, 400, 20)
        ]
    little, much, again = (record.timing["memory_mb"] for record in several)
    assert len({record.metrics["worker"] for record in several}) == 1
    assert much - little == pytest.approx(390, abs=40)
    assert again - little == pytest.approx(10, abs=40)


def test_workers_that_die_before_they_begin_stop_the_sweep(tmp_path, log):
    job = Job("key", "", {"x": 1, "log": str(log)}, {})
    pool = Pool(runs.square, Cache(tmp_path), 2)

    def broken(*_):
        raise BrokenProcessPool("a worker died")
        yield

    object.__setattr__(pool, "_batch", broken)
    with pytest.raises(RuntimeError, match="worker processes die before they begin a run"):
        list(pool.done([job]))


def test_a_missing_input_is_named(tmp_path, log):
    with pytest.raises(UserError, match=r"missing input .*nowhere"):
        sweep(runs.count_text, cells(log), inputs={"text": tmp_path / "nowhere"}, name="t", cache=tmp_path)


def test_the_grid_is_every_combination():
    assert grid(a=[1, 2], b="xy") == [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"}]


values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@given(values | st.dictionaries(st.text(), values) | st.lists(values))
def test_a_field_of_a_table_comes_back_as_what_it_was(value):
    back = decode(encode(value))
    assert back == value
    assert type(back) is type(value)


@given(st.lists(st.fixed_dictionaries({"a": values, "b, with\nbreak": values}), min_size=1))
def test_tables_kept_in_git_come_back_exactly(rows):
    rows = [
        {name: value.replace("\r", "") if isinstance(value, str) else value for name, value in row.items()}
        for row in rows
    ]
    assert from_csv(to_csv(rows)) == rows


def test_committed_rows_are_read_from_the_last_commit_and_not_from_the_work_tree(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "runs.csv").write_text(to_csv([{"key": "k1", "sweep": "s", "x": 1, "loss": 0.1}]))
    (folder / "timing.csv").write_text(to_csv([{"key": "k1", "seconds": 2.5}]))
    (folder / "tables").mkdir()
    (folder / "tables" / "curve.csv").write_text(to_csv([{"key": "k1", "step": 1}, {"key": "k1", "step": 2}]))
    assert committed_records("results", tmp_path) == {}
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@t"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "rows"]):
        subprocess.run([*git, *arguments], check=True)
    (folder / "runs.csv").unlink()
    expected = Record("k1", "", {}, {"sweep": "s", "x": 1, "loss": 0.1}, {"curve": {"step": [1, 2]}}, {"seconds": 2.5})
    assert committed_records("results", tmp_path) == {"k1": expected}


def test_committed_text_is_what_was_written_whatever_the_locale(tmp_path):
    row = {"key": "k1", "sweep": "s", "said": "é\r\nnext", "loss": 0.1}
    (tmp_path / "results").mkdir()
    (tmp_path / "results/runs.csv").write_bytes(to_csv([row]).encode())
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@t", "-c", "core.autocrlf=false"]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "rows"]):
        subprocess.run([*git, *arguments], check=True)
    ask = "import sys; from pathlib import Path; from common.sweep.records import committed_records as read"
    ask += "; print(ascii(read('results', Path(sys.argv[1]))['k1'].metrics['said']))"
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", ask, str(tmp_path)]
    ended = subprocess.run(command, env=os.environ | locale, capture_output=True, text=True, check=False)
    assert ended.stdout.strip() == ascii(row["said"]), ended.stderr


@pytest.mark.parametrize("place", ["cache", "git"])
def test_runs_that_had_a_gpu_are_told_where_the_process_is_held_to_the_cpu(tmp_path, log, monkeypatch, capsys, place):
    own = do(runs.square, cells(log), tmp_path)
    assert {record.timing["hardware"].rpartition(", ")[2] for record in own.records} == {"no GPU"}
    records = [replace(own.records[0], timing={"hardware": "Linux x86_64, 16 cores, Some GPU"}), *own.records[1:]]
    for record in records:
        Cache(tmp_path / place).write(record)
    known = {record.key: record for record in records} if place == "git" else {}
    options = {"inputs": {}, "name": "test", "cache": tmp_path / "cache", "committed": known}
    says = "test: 1 runs that are there had a GPU (Some GPU): their numbers may not be a CPU's"
    for device, told in (("cpu", True), ("cuda", False)):
        monkeypatch.setenv(DEVICE, device)
        capsys.readouterr()
        assert sweep(runs.square, cells(log), **options).computed == 0
        assert (says in capsys.readouterr().err) == told


def test_a_run_that_is_held_to_the_cpu_had_no_gpu_whatever_the_machine_has(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "Some GPU")
    for device, told in (("cpu", "no GPU"), ("cuda", "Some GPU")):
        monkeypatch.setenv(DEVICE, device)
        assert hardware().endswith(f", {told}")


def test_hardware_names_the_kernels_that_libraries_take():
    program = "import numpy; from common.provenance import hardware; print(hardware())"
    for kernels in ("Haswell", "Nehalem"):
        environment = os.environ | {"OPENBLAS_CORETYPE": kernels, "ATEN_CPU_CAPABILITY": "default"}
        told = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        ).stdout
        assert f" cores, DEFAULT, openblas {kernels}, " in told


def test_files_that_a_run_keeps_stay_with_its_record(tmp_path, log):
    done = do(runs.keeper, cells(log), tmp_path)
    assert [(folder / "0.txt").read_text() for folder in folders(done.kept)] == [str(c["x"]) for c in cells(log)]
    assert do(runs.keeper, cells(log), tmp_path).computed == 0


@pytest.mark.parametrize("damage", ["altered", "gone"])
def test_a_run_whose_kept_files_are_damaged_is_done_again(tmp_path, log, damage, capsys):
    file = do(runs.keeper, cells(log), tmp_path).kept[1].folder / "0.txt"
    file.write_text("torn") if damage == "altered" else file.unlink()
    again = do(runs.keeper, cells(log), tmp_path)
    assert again.computed == 1
    assert (again.kept[1].folder / "0.txt").read_text() == str(cells(log)[1]["x"])
    assert "damaged or gone" in capsys.readouterr().err


def test_a_run_that_keeps_nothing_in_the_folder_it_took_has_failed(tmp_path, log):
    with pytest.raises(SweepError, match="the run kept no file"):
        do(runs.keeper, cells(log, files=0), tmp_path)


def test_where_a_row_in_git_stands_for_a_run_its_files_are_made_when_another_run_needs_them(tmp_path, log):
    def both(folder, xs, **known):
        first = do(runs.keeper, cells(log), folder, **known)
        reads = [{"x": x, "log": str(log)} for x in xs]
        return first, do(runs.reader, reads, folder, {"model": first.kept[1]}, **known)

    first, second = both(tmp_path / "a", [1])
    known = {record.key: record for record in (*first.records, *second.records)}
    again, after = both(tmp_path / "b", [1], committed=known)
    assert (again.computed, after.computed) == (0, 0)
    assert not again.kept[1].folder.exists()
    again, more = both(tmp_path / "b", [1, 2], committed=known)
    assert (again.computed, more.computed) == (0, 1)
    made = [kept.folder.exists() for kept in again.kept]
    assert made == [False, True, *[False] * (len(made) - 2)]
    assert [record.metrics["read"] for record in more.records] == [cells(log)[1]["x"], 2 * cells(log)[1]["x"]]
    assert both(tmp_path / "b", [1], committed=known, trust_committed=False)[0].computed == len(first.records) - 1


def test_a_run_is_given_and_keyed_by_the_kept_inputs_that_its_cell_names(tmp_path, log):
    first = do(runs.keeper, cells(log), tmp_path)
    models = {f"m{number}": kept for number, kept in enumerate(first.kept)}
    asks = [{"model": "m1", "log": str(log)}, {"model": "m3", "log": str(log)}]
    few = do(runs.named, asks, tmp_path, {name: models[name] for name in ("m1", "m3")})
    assert [record.metrics for record in few.records] == [{"read": cells(log)[n]["x"], "given": 1} for n in (1, 3)]
    more = do(
        runs.named, [{"model": "m0", "log": str(log)}, *asks], tmp_path, {n: models[n] for n in ("m0", "m1", "m3")}
    )
    assert [record.key for record in more.records[1:]] == [record.key for record in few.records]
    swapped = do(runs.named, asks[:1], tmp_path, {"m1": models["m2"]})
    assert swapped.records[0].metrics["read"] == cells(log)[2]["x"]
    with pytest.raises(UserError, match="no cell names the input m2"):
        do(runs.named, asks, tmp_path, {name: models[name] for name in ("m1", "m2", "m3")})


def test_damaged_files_among_a_runs_inputs_are_made_again(tmp_path, log):
    first = do(runs.keeper, cells(log), tmp_path)
    (first.kept[0].folder / "0.txt").write_text("7777")
    read = do(runs.reader, [{"x": 1, "log": str(log)}], tmp_path, {"model": first.kept[0]})
    assert read.records[0].metrics["read"] == cells(log)[0]["x"]


def test_an_input_that_cannot_be_made_fails_the_sweep_with_its_own_reason(tmp_path, log):
    first = do(runs.keeper, cells(log), tmp_path)
    known = {record.key: record for record in first.records}
    job, pool = first.kept[0].job, first.kept[0].pool
    pool = replace(pool, cache=Cache(tmp_path / "b"), run=runs.keeps_nothing)
    ill = replace(first.kept[0], job=replace(job, code=code_of(runs.keeps_nothing)), pool=pool)
    with pytest.raises(SweepError, match="the run kept no file"):
        do(runs.reader, [{"x": 1, "log": str(log)}], tmp_path / "b", {"model": ill}, committed=known)


def test_a_published_folder_counts_by_the_run_it_is_of_and_an_altered_one_is_refused(tmp_path, log):
    done = do(runs.keeper, cells(log), tmp_path)
    for number, place in enumerate(("a", "b", "c")):
        publish(done.kept[number // 2].folder, tmp_path / place)
    a, b, c = (content_of({"model": tmp_path / place})["model"] for place in ("a", "b", "c"))
    assert a == b == content_of({"model": done.kept[0].folder})["model"] == f"run {done.records[0].key}" != c
    (tmp_path / "a" / "0.txt").write_text("another")
    with pytest.raises(UserError, match="is not what its run left there"):
        content_of({"model": tmp_path / "a"})


EDITED = """\
from pathlib import Path
from common.edited_factor import FACTOR

FILE = Path(__file__).with_name("edited_factor.py")

def times(x: int) -> dict:
    return {"product": x * FACTOR}

def saved_over(x: int, keep: Path) -> dict:
    (keep / "file").write_text("something")
    FILE.write_text("FACTOR = 100")
    return times(x)
"""
ASKED = """\
from pathlib import Path
from common import edited
from common.errors import UserError
from common.sweep import sweep

def ask(run):
    try:
        swept = sweep(run, [{"x": x} for x in (1, 2)], inputs={}, name="t", cache=Path("cache"), workers=2)
        print([record.metrics["product"] for record in swept.records])
    except UserError as error:
        print(error)

"""


@pytest.fixture
def edited(tmp_path):
    """What a program prints that asks for runs whose source it edits; in a package of its own."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(SOURCE / "common", tmp_path / "src/common", ignore=ignored)
    shutil.copy(ROOT / "equivalent.yaml", tmp_path)
    (tmp_path / "src/common/edited.py").write_text(EDITED)
    (tmp_path / "src/common/edited_factor.py").write_text("FACTOR = 1")

    def printed(program):
        command = [sys.executable, "-c", ASKED + program]
        own = os.environ | {"PYTHONPATH": str(tmp_path / "src")}
        ended = subprocess.run(command, cwd=tmp_path, env=own, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.splitlines()

    return printed


def test_code_that_is_edited_between_two_sweeps_is_not_kept_under_the_key_of_what_it_has_become(edited):
    told = edited(
        "ask(edited.times)\n"
        "edited.FILE.write_text('# a comment\\nFACTOR = 1')\n"
        "ask(edited.times)\n"
        "edited.FILE.write_text('FACTOR = 10')\n"
        "ask(edited.times)\n"  # the workers are there, and have what was imported before
        "ask(edited.times)\n"
    )
    changed = "the source of times changed while it ran: restart the kernel, or the command"
    assert told == ["[1, 2]", "[1, 2]", changed, "[10, 20]"]


def test_code_that_is_edited_while_a_run_goes_on_is_kept_under_no_key(edited, tmp_path):
    (told,) = edited("ask(edited.saved_over)\n")
    assert told == "the source of saved_over changed while it ran: restart the kernel, or the command"
    assert not [path for path in (tmp_path / "cache").glob("??/*") if not path.name.startswith(".")]
