"""The manifest of figures: each row is a figure's, says what made it, and is caught where it no longer does."""

import csv
import hashlib
import json
import shutil

import pytest

from common.errors import UserError
from common.project import ROOT
from common.verification.manifest import path_of, problems, read_manifest, write_manifest


def rewrite(project, change):
    rows = read_manifest("tiny", project.root)
    change(rows)
    path_of("tiny", project.root).write_text(json.dumps(rows))


def test_a_row_says_what_a_figure_was_made_with(project):
    row = read_manifest("tiny", project.root)["toy/arms"]
    assert row["data"] == "figures/tiny/toy/arms.csv"
    content = (project.root / row["data"]).read_bytes()
    assert row["sha256"]["csv"] == hashlib.sha256(content).hexdigest()
    source = json.loads((project.root / row["notebook"]).read_text())
    assert "study.figure('arms'" in "".join(source["cells"][row["cell"] - 1]["source"])
    with project.file("results/timing.csv").open() as file:
        assert row["seconds"] == pytest.approx(sum(float(run["seconds"]) for run in csv.DictReader(file)))
    assert row["versions"]["torch"] == "2.13.0"
    assert (row["runs"], row["cpu_capability"], row["hardware"]) == (15, "AVX2", "Linux x86_64")
    assert row["parameters"] == "scales/tiny.yaml: toy"
    assert problems("tiny", project.root) == []


def test_a_study_that_ran_again_leaves_the_rows_of_others_as_they_were(project):
    for part in ("results", "figures"):
        shutil.copytree(project.file(part), project.root / part / "tiny/another")
    write_manifest("tiny", project.root)
    before = read_manifest("tiny", project.root)
    assert before.keys() == {"another/arms", "toy/arms"}
    again = path_of("tiny", project.root).read_bytes()
    write_manifest("tiny", project.root)
    assert path_of("tiny", project.root).read_bytes() == again
    project.publish(noise=0.01)
    after = read_manifest("tiny", project.root)
    assert after["another/arms"] == before["another/arms"]
    assert after["toy/arms"]["sha256"] != before["toy/arms"]["sha256"]


@pytest.mark.parametrize("name", ["notebook.ipynb", "timing.csv"])
def test_torn_results_of_one_study_keep_no_other_from_its_rows_and_are_named(project, name):
    for part in ("results", "figures"):
        shutil.copytree(project.file(part), project.root / part / "tiny/another")
    (project.root / "results/tiny/another" / name).write_text("{")
    project.publish()
    assert read_manifest("tiny", project.root).keys() == {"toy/arms"}
    expected = [f"another/arms: {says}" for says in ("the figure has no row", "its study's results can't be read")]
    assert problems("tiny", project.root) == expected


def change_row(name, value):
    return lambda project: rewrite(project, lambda rows: rows["toy/arms"].update({name: value}))


def lose_row(project):
    rewrite(project, dict.clear)


def lose_figure(project):
    for path in project.file("figures").iterdir():
        path.unlink()


def paint(project):
    content = project.file("figures/arms.png").read_bytes()
    project.file("figures/arms.png").write_bytes(content + b" ")


def lay_tiny_results_at_the_laptop(project):
    for part in ("results", "figures"):
        shutil.rmtree(project.root / part / "laptop", ignore_errors=True)
        shutil.copytree(project.root / part / "tiny", project.root / part / "laptop")
    write_manifest("laptop", project.root)


def forge_the_scale(project):
    lay_tiny_results_at_the_laptop(project)
    path = project.root / "results/laptop/toy/notebook.ipynb"
    path.write_text(path.read_text().replace('"scale": "tiny"', '"scale": "laptop"'))
    write_manifest("laptop", project.root)


@pytest.mark.parametrize(
    ("fault", "scale", "says"),
    [
        (lose_row, "tiny", "toy/arms: the figure has no row"),
        (lose_figure, "tiny", "toy/arms: the row has no figure"),
        (lambda p: p.file("figures/arms.svg").unlink(), "tiny", "toy/arms: there is no svg"),
        (lambda p: p.edit("figures/arms.csv", "wide", "broad"), "tiny", "toy/arms: the csv is not the one"),
        (paint, "tiny", "toy/arms: the png is not the one that was drawn"),
        (change_row("code_digest", "0" * 16), "tiny", "toy/arms: code_digest is '0000000000000000'"),
        (change_row("cell", 4), "tiny", "toy/arms: cell is 4, its results say 3"),
        (change_row("seconds", 3), "tiny", "toy/arms: seconds is 3, its results say 22.5"),
        (
            lambda p: (p.root / "src/common/toy.py").write_text("ANSWER = 43\n"),
            "tiny",
            "toy: code: not what it was made with",
        ),
        (
            lambda p: (p.root / "scales/tiny.yaml").write_text("toy: {tables: [sotu], steps: 6}\n"),
            "tiny",
            "toy: parameters: not what it was made with",
        ),
        (lay_tiny_results_at_the_laptop, "laptop", "toy: results of the scale tiny lie where those of laptop should"),
        (forge_the_scale, "laptop", "toy: parameters: not what it was made with"),
        (
            lambda p: p.edit("results/notebook.ipynb", "drawn from", "beside"),
            "tiny",
            "toy/arms: cell is 3, its results say None",
        ),
    ],
)
def test_what_is_wrong_is_named(project, fault, scale, says):
    fault(project)
    assert any(line.startswith(says) for line in problems(scale, project.root)), problems(scale, project.root)


@pytest.mark.parametrize(
    ("content", "says"), [(None, "there is no figures/tiny/manifest.json"), ("{", "is not JSON"), ("[]", "must hold")]
)
def test_a_manifest_that_can_not_be_read_is_refused_in_one_line(project, content, says):
    path = path_of("tiny", project.root)
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UserError, match=says) as refusal:
        problems("tiny", project.root)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("scale", sorted(path.name for path in (ROOT / "figures").glob("*") if path.name != "tiny"))
def test_every_figure_of_this_checkout_is_what_its_row_and_the_code_say(scale):
    assert problems(scale) == []
