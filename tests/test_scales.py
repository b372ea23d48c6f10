"""What params.yaml and the scales hold, or are told that they may not."""

import os
import shutil
import subprocess
import sys

import pytest

from common import cli, commands, ledger, scales, stage
from common.errors import UserError
from common.processes import only_one
from common.project import ROOT
from common.scales import current_scale, lend_scale, own_scale, section, studies


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "scales").mkdir()
    (tmp_path / "params.yaml").write_text("scale: tiny\nstudies: [toy]\n")
    (tmp_path / "scales/tiny.yaml").write_text("toy: {tables: [sotu]}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("params", "says"),
    [
        (b"", "must hold sections"),
        (b"scale: [tiny\n", "is not valid YAML"),
        (b"scale: tiny\nstudies: \xff\n", "is not text in UTF-8"),
        (b"scale: tiny\n", r"studies is None, allowed: a list"),
        (b"scale: tiny\nstudies: []\n", r"studies is \[\], allowed: names of notebooks, one at least"),
        (b"scale: tiny\nstudies: [no]\n", r"studies is \[False\], allowed: names"),
        (b"scale: tiny\nstudies: [a, a]\n", r"studies is \['a', 'a'\], allowed: .* each once"),
    ],
)
def test_studies_that_are_none_are_refused_in_one_line(tree, params, says):
    (tree / "params.yaml").write_bytes(params)
    with pytest.raises(UserError, match=f"params.yaml.*{says}") as refusal:
        studies(tree)
    assert "\n" not in str(refusal.value)


def test_a_scale_that_is_no_name_is_refused(tree):
    (tree / "params.yaml").write_text("scale: 3\nstudies: [toy]\n")
    with pytest.raises(UserError, match=r"scale is 3, allowed: a str"):
        current_scale(tree)
    (tree / "params.yaml").unlink()
    with pytest.raises(UserError, match=r"params.yaml can't be read: No such file"):
        current_scale(tree)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"toy: 3\n", "toy is 3, allowed: indented lines"),
        (b"toy:\n", "toy is None, allowed: indented lines"),
        (b"1: {}\n", "has no section 'toy'; it has 1"),
        (b"toy: {x: \xe9}\n", "is not text in UTF-8"),
    ],
)
def test_a_section_that_holds_no_knobs_is_refused_in_one_line(tree, text, says):
    (tree / "scales/tiny.yaml").write_bytes(text)
    with pytest.raises(UserError, match=says) as refusal:
        section("tiny", "toy", tree)
    assert "\n" not in str(refusal.value)


def test_a_scale_may_have_some_studies_only():
    assert cli._chosen("smollm2", "") == ["alignment", "merging"]
    assert cli._chosen("tiny", "") == studies()
    says = "scales/smollm2.yaml has no section 'bases'; it has machine, hub, tokenizer, merging, alignment"
    with pytest.raises(UserError, match=says):
        cli._chosen("smollm2", "bases")
    for study in ("", "bases"):
        with pytest.raises(UserError, match="there is no scale 'nosuch'; allowed: gpu, laptop"):
            cli._chosen("nosuch", study)


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        ({"x": 1}, r"toy: tables is None: Input should be a valid array"),
        ({"tables": "sotu"}, r"toy: tables is 'sotu': Input should be a valid array"),
        ({"tables": [1]}, r"toy: tables.0 is 1: Input should be a valid string"),
    ],
)
def test_tables_of_a_study_that_are_no_names_are_refused(monkeypatch, knobs, says):
    monkeypatch.setattr(stage, "section", lambda scale, study: knobs)
    with pytest.raises(UserError, match=says):
        stage.tables("toy", "tiny")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"vocab_size": "many"}, "vocab_size is 'many'"),
        ({"characters": -1}, "characters is -1"),
        ({"size": 3}, "size is no knob; allowed: tables, vocab_size, characters"),
        ({"tables": None}, "tables is None"),
    ],
)
def test_knobs_of_the_tokenizer_are_checked_before_it_is_made(monkeypatch, change, says):
    knobs = {"tables": ["sotu"], "vocab_size": 512, "characters": 1000} | change
    monkeypatch.setattr(stage, "section", lambda scale, study: knobs)
    with pytest.raises(UserError, match=f"scales/tiny.yaml: tokenizer: {says}"):
        stage.tokenizer("tiny")


@pytest.mark.parametrize("torn", ["", "study,sc", "\0\0\0", "study,scale,planned,took,finished\na,b,c,d,e,f,g\n"])
def test_torn_notes_on_plans_keep_no_run_from_its_end(tmp_path, monkeypatch, torn):
    monkeypatch.setattr(ledger, "PLANS", tmp_path)
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny/toy.json").write_text(torn)
    (tmp_path / "ledger.csv").write_text(torn)
    assert ledger.last("toy", "tiny") is None
    assert ledger.settle("toy", "tiny", {}, 1.5) == ""
    ledger.write_plan("toy", "tiny", {}, 2.0, 3.0)
    assert ledger.settle("toy", "tiny", {}, 2.5) in {", planned 2.0", ", planned 3.0"}
    assert ledger.last("toy", "tiny").endswith("min, took 2.5")


def test_what_the_system_refuses_is_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()

    def command():
        with only_one(tmp_path / "file/lock", "this"):
            pass

    with pytest.raises(SystemExit) as ended:
        commands.run(command)
    assert str(ended.value).startswith(f"error: {tmp_path}/file: ")
    assert "\n" not in str(ended.value)


LEND = """
import resource

from common.scales import ROOT, lend_scale

with lend_scale("mini"):
    assert (ROOT / "params.yaml").read_text() == "scale: mini  # ours\\nstudies: [toy]\\n"
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))  # no byte more, as on a full disk
    raise SystemExit("what went wrong")
"""


def test_a_disk_that_filled_up_keeps_no_lent_scale_and_hides_no_error(tree):
    shutil.copytree(ROOT / "src/common", tree / "src/common", ignore=shutil.ignore_patterns("__pycache__"))
    before = "scale: tiny  # ours\nstudies: [toy]\n"
    (tree / "params.yaml").write_text(before)
    environment = os.environ | {"PYTHONPATH": str(tree / "src")}
    ended = subprocess.run([sys.executable, "-c", LEND], env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (1, "what went wrong\n")
    assert (tree / "params.yaml").read_text() == before
    assert list((tree / "build/locks").iterdir()) == []


@pytest.fixture
def lending(tree, monkeypatch):
    """A checkout whose params.yaml can be lent another scale, and the place of the note of that."""
    note = tree / "build/locks/scale"
    for name, value in {"ROOT": tree, "NOTE": note, "SPARE": note.with_name("params.yaml")}.items():
        monkeypatch.setattr(scales, name, value)
    for module in (scales, cli):
        monkeypatch.setattr(module, "current_scale", lambda: current_scale(tree))
    monkeypatch.setattr(cli, "studies", lambda: studies(tree))
    monkeypatch.setattr(cli, "BUILD", tree / "build")
    return note


def test_commands_that_only_read_use_the_scale_that_is_the_users_own_while_another_is_lent(lending, monkeypatch):
    asked = []
    monkeypatch.setattr(cli, "_chosen", lambda scale, study: [study])
    monkeypatch.setattr("common.verification.report.verify", lambda names, scale, ref: asked.append(scale) or [])
    monkeypatch.setattr("common.verification.report.show", lambda found, scale, ref: 0)
    monkeypatch.setattr("common.comparing.compared", lambda new, scale: asked.append(scale) or "")

    def read():
        asked.clear()
        with pytest.raises(cli.typer.Exit):
            cli.verify("toy", "", "HEAD")
        cli.diff("toy", "")
        return set(asked)

    assert read() == {"tiny"}
    with lend_scale("mini"):
        assert "scale: mini" in (scales.ROOT / "params.yaml").read_text()
        assert read() == {"tiny"}
        scales._name_scale("other")  # which someone chose meanwhile
        assert read() == {"other"}


def test_of_a_scale_that_lacks_studies_the_others_are_verified(monkeypatch):
    asked = []
    monkeypatch.setattr("common.verification.report.verify", lambda names, scale, ref: asked.extend(names) or [])
    monkeypatch.setattr("common.verification.report.show", lambda found, scale, ref: 0)
    with pytest.raises(cli.typer.Exit):
        cli.verify("", "smollm2", "HEAD")
    assert sorted(asked) == ["alignment", "merging"]
    with pytest.raises(UserError, match=r"smollm2.yaml has no section 'bases'"):
        cli.verify("bases", "smollm2", "HEAD")


def test_what_a_running_command_was_lent_is_not_restored_under_it(lending):
    with only_one(lending.with_name("figures"), "figures"), lend_scale("mini"):
        with pytest.raises(UserError, match=r"compendium is already running \(process \d+\)"):
            cli.restore()
        assert current_scale(scales.ROOT) == "mini"
    cli.restore()
    assert current_scale(scales.ROOT) == "tiny"


@pytest.mark.parametrize("torn", [b"", b"tiny", b"tiny mini more", b"\xff"])
def test_a_damaged_note_of_a_lent_scale_is_one_line_and_restore_removes_it(lending, capsys, torn):
    before = (scales.ROOT / "params.yaml").read_text()
    lending.parent.mkdir(parents=True)
    lending.write_bytes(torn)
    with pytest.raises(UserError, match=r"scale is damaged.*: run `compendium restore`") as refusal:
        own_scale()
    assert "\n" not in str(refusal.value)
    assert lending.exists()
    cli.restore()
    told = capsys.readouterr()
    assert told.out == "params.yaml: scale tiny\n"
    assert told.err.count("\n") == 1
    assert "was damaged and is removed" in told.err
    assert not lending.exists()
    assert (scales.ROOT / "params.yaml").read_text() == before
    assert own_scale() == "tiny"


def test_a_mistake_in_the_code_is_told_whole():
    with pytest.raises(ZeroDivisionError):
        commands.run(lambda: 1 / 0)


def test_who_holds_the_lock_is_named_by_its_verb(tmp_path, monkeypatch):
    lock = tmp_path / "lock"
    assert cli._holder(lock) == "compendium"
    lock.write_text(str(os.getpid()))
    assert cli._holder(lock) == "compendium"  # these tests are no such command
    holder = [sys.executable, "/somewhere/bin/compendium", "plan", "bases"]
    monkeypatch.setattr(cli.psutil.Process, "cmdline", lambda process: holder)
    assert cli._holder(lock) == "compendium plan"
