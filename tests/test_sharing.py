"""A study's share of the runs' cache, taken out and put into another."""

import pytest

from common.errors import UserError
from common.files import digest
from common.sharing import copy_out, unpack
from common.sweep.records import Cache, Record


def cache_with(folder, *keys, kept=()):
    cache = Cache(folder)
    for key in keys:
        files = None
        if key in kept:
            cache.files(key).mkdir(parents=True)
            (cache.files(key) / "model").write_text(key)
            files = digest(cache.files(key))
        cache.write(Record(key, "run", {"x": 1}, {"loss": 0.5}, kept=files))
    return cache


def silent(line):
    raise AssertionError(line)


def test_another_cache_has_the_runs_and_their_files_and_keeps_its_own(tmp_path):
    cache = cache_with(tmp_path / "one", "aa1", "bb2", "cc3", kept=["bb2"])
    assert copy_out(["aa1", "bb2", "dd4"], cache, tmp_path / "packed") == 2
    other = cache_with(tmp_path / "other", "aa1", "ee5")
    before = other.path("aa1").stat().st_mtime_ns
    assert unpack(tmp_path / "packed", other) == 1
    assert other.path("aa1").stat().st_mtime_ns == before
    for key in ("aa1", "bb2"):
        assert other.read(key, silent) == cache.read(key, silent)
    assert (other.files("bb2") / "model").read_text() == "bb2"
    assert other.read("cc3", silent) is None
    assert other.read("ee5", silent)
    assert unpack(tmp_path / "packed", other) == 0


def test_what_is_damaged_is_not_shared_and_not_believed(tmp_path, capsys):
    cache = cache_with(tmp_path / "one", "aa1", "bb2", kept=["bb2"])
    (cache.files("bb2") / "model").write_text("altered")
    assert copy_out(["aa1", "bb2"], cache, tmp_path / "packed") == 1
    assert "bb2.json (the files kept with it are damaged or gone)" in capsys.readouterr().err
    record = tmp_path / "packed/aa1.json"
    record.write_text(record.read_text().replace("0.5", "0.4"))
    other = Cache(tmp_path / "other")
    with pytest.raises(UserError, match=r"aa1.json is damaged \(its checksum differs\): remove") as refusal:
        unpack(tmp_path / "packed", other)
    assert "\n" not in str(refusal.value)
    assert other.read("aa1", silent) is None


def test_a_record_whose_files_did_not_come_is_not_put_there(tmp_path):
    cache = cache_with(tmp_path / "one", "bb2", kept=["bb2"])
    copy_out(["bb2"], cache, tmp_path / "packed")
    (tmp_path / "packed/bb2/model").unlink()
    (tmp_path / "packed/bb2").rmdir()
    other = Cache(tmp_path / "other")
    with pytest.raises(UserError, match=r"packed/bb2 is not there, which run bb2 kept: pull again"):
        unpack(tmp_path / "packed", other)
    assert not other.path("bb2").exists()
