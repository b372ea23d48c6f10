"""Forks of every study: what they are made of, what is refused, how they differ from their parents."""

import ast
import json
import shutil
import subprocess
import sys

import pytest
import yaml
from typer.testing import CliRunner

from common import forking
from common.cli import app
from common.comparing import compared
from common.errors import UserError
from common.forking import LONGEST, fork, own_modules, parent_of
from common.notebooks import code_cells, read_notebook
from common.overview import NEEDED
from common.project import ROOT
from common.provenance import imports
from common.scales import section, studies
from common.signature import parameters_cell
from defaults import default_parameters

WRONG = json.dumps({"a": dict.fromkeys(NEEDED, 1)})


@pytest.fixture
def tree(tmp_path):
    """What a fork reads, in a repository without a commit."""
    parts = ("notebooks", "scales", "src", "results/laptop/bases")
    for part in parts:
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests").mkdir()
    for name in ("README.md", "params.yaml", "pyproject.toml", "tests/pipeline.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    for command in (["init", "--quiet"], ["add", "."]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    return tmp_path


def content(tree):
    return {path: path.read_text() for path in tree.rglob("*") if path.is_file() and ".git" not in path.parts}


def edit(tree, name, old, new):
    text = (tree / name).read_text()
    head, found, tail = text.rpartition(old)
    assert found
    (tree / name).write_text(f"{head}{new}{tail}")


def test_forks_of_all_studies_have_what_their_parents_have_and_are_green_at_once(tree):
    before, names = content(tree), {study: f"{study}_by_another_name"[:LONGEST] for study in studies()}
    made = {tree / path for study, name in names.items() for path in fork(study, name, tree)}
    assert studies(tree) == [*names, *names.values()]
    assert made == {path for path, text in content(tree).items() if before.get(path) != text}
    for study, name in names.items():
        source = read_notebook(tree / f"notebooks/{name}.ipynb")
        for scale in ("tiny", "laptop"):
            assert section(scale, name, tree) == section(scale, study)
        assert default_parameters(parameters_cell(source, name)) == section("laptop", study)
        assert parent_of(name, tree) == study
        code = [*code_cells(source), *(path.read_text() for path in own_modules(name, tree))]
        used = {imported for text in code for imported in imports(ast.parse(text))}
        assert f"common.plots.{name}" in used
        for room in ("plots", "analysis"):
            assert not [module for module in used if f"{module}.".startswith(f"common.{room}.{study}.")]
    for command in (("check",), ("format", "--check")):
        subprocess.run([sys.executable, "-m", "ruff", *command, "--no-cache", "."], cwd=tree, check=True)


def test_comments_come_along_and_those_of_the_next_section_do_not(tree):
    path = tree / "scales/tiny.yaml"
    path.write_text(path.read_text().replace("\nmerging:", "\n# What merging is about.\nmerging:"))
    old = path.read_text()
    fork("bases", "mine", tree)
    assert path.read_text().startswith(old.rstrip())
    added = path.read_text().removeprefix(old.rstrip())
    assert added.startswith("\n\nmine:\n  tables: [facts")
    assert "# share of questions: how far from half" in added
    assert "What merging is about" not in added
    assert (tree / "params.yaml").read_text() == (ROOT / "params.yaml").read_text() + "  - mine\n"


def test_a_scale_without_the_study_has_no_fork_of_it(tree):
    before = (tree / "scales/smollm2.yaml").read_text()
    fork("bases", "mine", tree)
    assert (tree / "scales/smollm2.yaml").read_text() == before
    fork("merging", "ours", tree)
    sections = yaml.safe_load((tree / "scales/smollm2.yaml").read_text())
    assert sections["ours"] == sections["merging"]


def test_rows_of_git_come_along_and_claims_and_figures_do_not(tree):
    fork("bases", "mine", tree)
    old, new = tree / "results/laptop/bases", tree / "results/laptop/mine"
    assert (new / "runs.csv").read_text() == (old / "runs.csv").read_text()
    assert {path.name for path in (new / "tables").iterdir()} == {path.name for path in (old / "tables").iterdir()}
    assert {path.name for path in new.iterdir()} == {"runs.csv", "timing.csv", "tables"}


@pytest.mark.parametrize(
    ("study", "new", "says"),
    [
        ("basis", "mine", "there is no study 'basis'; allowed: alignment, bases"),
        ("bases", "My-Study", "'My-Study' can't be the name of a study; allowed: up to 20 small letters"),
        ("bases", "class", "can't be the name"),
        ("bases", "yes", "can't be the name"),
        ("bases", "null", "can't be the name"),
        ("bases", "../mine", "can't be the name"),
        ("bases", "m" * (LONGEST + 1), "can't be the name"),
        ("bases", "merging", "there is a study 'merging' already"),
        (
            "bases",
            "tokenizer",
            r"is taken, nothing is overwritten: there is a section in scales/gpu.yaml, a section",
        ),
        ("bases", "kept", r"is taken, nothing is overwritten: there is notebooks/kept.ipynb, figures/tiny/kept$"),
    ],
)
def test_bad_names_and_overwriting_are_refused_in_one_line_and_nothing_is_written(tree, study, new, says):
    (tree / "notebooks/kept.ipynb").write_text("mine")
    (tree / "figures/tiny/kept").mkdir(parents=True)
    before = content(tree)
    with pytest.raises(UserError, match=says) as refusal:
        fork(study, new, tree)
    assert "\n" not in str(refusal.value)
    assert content(tree) == before


def test_a_write_that_fails_leaves_everything_as_it_was_and_the_next_try_succeeds(tree, monkeypatch):
    before, written, write = content(tree), [], forking.write_atomic
    folders = {path for path in tree.rglob("*") if path.is_dir() and ".git" not in path.parts}

    def full(path, text):
        if path.name == "tiny.yaml" and path not in written:
            written.append(path)
            raise UserError(f"cannot write {path}: No space left on device")
        write(path, text)

    monkeypatch.setattr(forking, "write_atomic", full)
    with pytest.raises(UserError, match="No space left"):
        fork("merging", "mine", tree)
    assert written
    assert content(tree) == before
    assert {path for path in tree.rglob("*") if path.is_dir() and ".git" not in path.parts} == folders
    fork("merging", "mine", tree)
    assert "mine" in studies(tree)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("results/laptop/bases/claims.json", "{", "results/laptop/bases/claims.json is damaged"),
        ("results/laptop/bases/claims.json", WRONG, r"claims.json is damaged \(claim a: paper is 1"),
        ("README.md", "# Ours\n", "README.md holds 0 blocks"),
    ],
)
def test_a_readme_that_can_not_be_written_is_refused_before_anything_is(tree, name, text, says):
    (tree / name).write_text(text)
    before = content(tree)
    with pytest.raises(UserError, match=says):
        fork("merging", "mine", tree)
    assert content(tree) == before


def test_a_fork_is_in_the_readme_as_not_run_yet_and_the_command_says_all_that_it_made(tree, monkeypatch):
    monkeypatch.setattr(forking.fork, "__defaults__", (tree,))
    shown = CliRunner().invoke(app, ["fork", "bases", "mine"]).output.splitlines()
    assert "| mine | not run yet |" in (tree / "README.md").read_text()
    assert {"README.md", "params.yaml", "results/laptop/mine/"} <= set(shown)
    assert len(shown) == len(set(shown))


def test_a_list_that_can_not_be_added_to_is_named(tree):
    (tree / "params.yaml").write_text("scale: tiny\nstudies: [bases]\n")
    with pytest.raises(UserError, match=r"params.yaml: studies must be a list, a line `- name` for each"):
        fork("bases", "mine", tree)


def test_a_comparison_tells_parameters_code_and_results_apart(tree):
    fork("bases", "mine", tree)
    none = compared("mine", "laptop", tree)
    assert none.count("no difference") == 2
    assert "mine has none at laptop: `dvc repro study@mine-laptop`" in none

    edit(tree, "scales/laptop.yaml", "half_margin: 0.15", "half_margin: 0.2")
    edit(tree, "scales/laptop.yaml", "steps: 1400", "steps: 1500")  # of the last section, the fork's
    edit(tree, "src/common/plots/mine.py", "training tokens", "tokens seen")
    edit(tree, "notebooks/mine.ipynb", "# What the base models know", "# What they know")
    shutil.copytree(tree / "results/laptop/bases", tree / "results/laptop/mine", dirs_exist_ok=True)
    rows = (tree / "results/laptop/mine/runs.csv").read_text().splitlines()
    (tree / "results/laptop/mine/runs.csv").write_text("\n".join([*rows[:-1], "another" + rows[-1][7:]]) + "\n")
    claims = json.loads((tree / "results/laptop/mine/claims.json").read_text())
    claims["half_finance"] |= {"verdict": "inconclusive", "estimate": -0.07}
    (tree / "results/laptop/mine/claims.json").write_text(json.dumps(claims))

    lines = [line.strip() for line in compared("mine", "laptop", tree).splitlines()]
    assert lines.index("half_margin: 0.15 → 0.2") < lines.index("Code") < lines.index("Results, bases → mine")
    assert "bases.half.steps: 1400 → 1500" in lines
    assert [line for line in lines if line.startswith("+") and "tokens seen" in line]
    assert "+# What they know" in lines
    assert "runs: 25 shared, 1 new, 1 no more" in lines
    changed = [line for line in lines if line.startswith(("claim ", "metric "))]
    assert len(changed) == 1
    assert changed[0].startswith("claim half_finance: ")
    assert '→ "inconclusive, -0.07' in changed[0]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("claims.json", "{", r"is damaged \(JSONDecodeError: "),
        ("claims.json", '{"a": {"verdict": "reproduced", "estimate": 1.0}}', r"is damaged \(KeyError: 'ci'\)"),
        ("claims.json", "[" * 100_000, r"is damaged \(RecursionError: "),
        ("claims.json", "[]", r"is damaged \(AttributeError: "),
        ("metrics.json", '{"steps": "many"}', r"is damaged \(ValueError: "),
        ("metrics.json", '{"steps": null}', r"is damaged \(TypeError: "),
        ("metrics.json", None, "is not there"),
        ("runs.csv", "one\n1\n", r"is damaged \(KeyError: 'key'\)"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_damaged_results_are_named_in_one_line(tree, name, text, says):
    fork("bases", "mine", tree)
    shutil.copytree(tree / "results/laptop/bases", tree / "results/laptop/mine", dirs_exist_ok=True)
    path = tree / "results/laptop/mine" / name
    path.unlink() if text is None else path.write_text(text)
    line = rf"^results/laptop/mine/{name} {says}.*: run `dvc repro study@mine-laptop`$"
    with pytest.raises(UserError, match=line) as refusal:
        compared("mine", "laptop", tree)
    assert "\n" not in str(refusal.value)


def test_what_is_no_fork_has_no_parent(tree):
    with pytest.raises(UserError, match=r"bases is no fork: notebooks/bases.ipynb names no parent"):
        compared("bases", "laptop", tree)
    with pytest.raises(UserError, match="there is no study 'mine'"):
        compared("mine", "laptop", tree)
    fork("bases", "mine", tree)
    fork("mine", "ours", tree)
    assert parent_of("ours", tree) == "mine"
    (tree / "notebooks/mine.ipynb").unlink()
    with pytest.raises(UserError, match="ours was forked from mine, of which there is no notebook any more"):
        compared("ours", "laptop", tree)


def test_every_section_of_a_scale_reads_the_same_after_a_fork(tree):
    before = yaml.safe_load((tree / "scales/laptop.yaml").read_text())
    fork("quantization", "mine", tree)
    assert yaml.safe_load((tree / "scales/laptop.yaml").read_text()) == before | {"mine": before["quantization"]}
