"""Code that counts as other code: runs of one stand for the other's, until anything of it changes."""

import shutil
import subprocess

import pytest
import yaml

import runs
from common import equivalence
from common.equivalence import LISTED, counted, digest_of, equivalents
from common.errors import UserError
from common.project import ROOT
from common.sweep.records import code_of

OWN, OTHER = "0" * 64, "1" * 64


@pytest.fixture
def listed(tmp_path, monkeypatch):
    def write(text):
        path = tmp_path / "equivalent.yaml"
        path.write_text(text)
        monkeypatch.setattr(equivalence, "equivalents", lambda: equivalents(path))

    equivalents.cache_clear()
    yield write
    equivalents.cache_clear()


def entry(code, other):
    return yaml.safe_dump([{"since": "abc", "functions": {"runs:square": {"code": code, "as": other}}}])


def test_a_run_has_the_key_of_the_code_that_its_own_counts_as_and_no_longer_once_it_is_another(listed):
    listed("[]")
    own, another = code_of(runs.square), code_of(runs.keeper)
    assert own != another
    listed(entry(own, OTHER))
    equivalents.cache_clear()
    assert code_of(runs.square) == OTHER
    assert code_of(runs.keeper) == another
    listed(entry(OWN, OTHER))  # what was listed is not what is there
    equivalents.cache_clear()
    assert code_of(runs.square) == own


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- functions: [", "is broken"),
        ("- functions: {a: {code: 1}}", "is broken: 'as'"),
        ("- since: abc", "is broken: 'functions'"),
        ("5", "is broken"),
        (entry(OWN, "abc"), "'abc' is no digest"),
    ],
)
def test_a_broken_list_is_one_line(listed, text, told):
    listed(text)
    with pytest.raises(UserError, match=told) as caught:
        counted(OWN)
    assert "\n" not in str(caught.value)


def test_what_is_listed_is_the_code_that_is_here_and_counts_as_no_third():
    for each in yaml.safe_load(LISTED.read_text()):
        assert {"since", "changed", "shown", "functions"} == each.keys()
        assert {name: digest_of(name) for name in each["functions"]} == {
            name: one["code"] for name, one in each["functions"].items()
        }
    assert not equivalents().keys() & equivalents().values()


def test_lines_are_printed_for_functions_that_are_otherwise_in_a_commit(tmp_path, monkeypatch, capsys, listed):
    listed("[]")
    package = tmp_path / "src/common"
    package.mkdir(parents=True)
    for name in ("__init__", "errors", "project"):
        shutil.copy(ROOT / f"src/common/{name}.py", package)
    (package / "project.py").write_text("ANSWER = 42\n")
    for command in (("init", "-q"), ("add", "."), ("-c", "user.name=a", "-c", "user.email=b", "commit", "-qm", "c")):
        subprocess.run(["git", "-C", tmp_path, *command], check=True)
    monkeypatch.setattr(equivalence, "ROOT", tmp_path)
    equivalence.main("HEAD", "common.errors:UserError", "common.project:check_own")
    before = digest_of("common.project:check_own", tmp_path / "src")
    assert capsys.readouterr().out == (
        f"    common.project:check_own: {{code: {digest_of('common.project:check_own')}, as: {before}}}\n"
    )
    listed(entry(before, OTHER))  # the commit's own code counted as other code
    equivalents.cache_clear()
    equivalence.main("HEAD", "common.project:check_own")
    assert capsys.readouterr().out.endswith(f", as: {OTHER}}}\n")
    with pytest.raises(UserError, match=r"no module common\.nothing"):
        digest_of("common.nothing:to_csv")
