"""Results against those that git holds: at which level they agree, what is caught, what is said to be the cause."""

import re
import shutil

import nbformat
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import provenance
from common.errors import UserError
from common.project import ROOT
from common.verification import stamps
from common.verification.arms import Measured, arms_of, means_apart
from common.verification.levels import Level
from common.verification.report import show, verify
from common.verification.tables import compare, read
from common.verification.texts import close, numbers_of, svg_labels, words_of
from common.verification.tolerances import Tolerance, tolerance_of
from published import SEEDS, VERSIONS

OTHER_KERNELS = {"cpu capability": "DEFAULT"}


def verified(project, ref="HEAD"):
    (one,) = verify(["toy"], "tiny", ref, project.root)
    return one


def notes(one):
    return {finding.name: " ".join(finding.notes) for finding in one.findings if finding.level is not Level.BITWISE}


@pytest.mark.parametrize(
    ("making", "level"),
    [
        ({}, Level.BITWISE),
        ({"stamp": {"hardware": "Linux aarch64"}}, Level.NUMERICAL),  # the notebook's first cell says so
        ({"noise": 1e-6, "stamp": OTHER_KERNELS}, Level.NUMERICAL),
        ({"noise": 0.03, "stamp": OTHER_KERNELS}, Level.STATISTICAL),
        ({"shift": 0.2}, Level.VERDICTS),  # four seeds' spreads away, and width still helps
        ({"shift": -0.4}, Level.NONE),  # width helps no longer
    ],
)
def test_the_level_is_the_strongest_that_holds_of_every_file(project, making, level):
    project.publish(**making)
    assert verified(project).level is level
    project.commit()
    assert verified(project).level is Level.BITWISE
    assert verified(project, "HEAD~").level is level


def test_a_later_commit_of_other_things_changes_nothing_and_a_new_making_is_bitwise(project):
    (project.root / "other").write_text("x")
    project.commit()
    shutil.rmtree(project.root / "results")
    project.publish()
    assert verified(project).level is Level.BITWISE
    assert project.git("status", "--porcelain") == ""


ALTERED = {
    "a figure's number": (
        "figures/arms.csv",
        r"(plain,)\d",
        r"\g<1>9",
        Level.VERDICTS,
        "estimate moved and the runs did",
    ),
    "a figure's least sure number": (
        "figures/arms.csv",
        r",1\.\d+\n$",
        ",1.5\n",
        Level.VERDICTS,
        "worst moved and the runs did",
    ),
    "a figure's estimate within its interval": (
        "figures/arms.csv",
        r"(plain,\d\.\d)\d",
        r"\g<1>5",
        Level.VERDICTS,
        "estimate moved and the runs did not",
    ),
    "the end of a figure's interval": (
        "figures/arms.csv",
        r"(plain,[\d.]+,\d\.\d)\d",
        r"\g<1>1",
        Level.VERDICTS,
        "moved and the runs did not",
    ),
    "a figure's last digit": (  # as another CPU draws from the same tables
        "figures/arms.csv",
        r"(plain,\d\.\d{6})\d",
        r"\g<1>0",
        Level.NUMERICAL,
        "within tolerance, estimate differs by up to",
    ),
    "a figure's word": ("figures/arms.csv", "wide", "broad", Level.VERDICTS, "arm, row 2: wide → broad"),
    "a figure's label": ("figures/arms.svg", "<!-- loss -->", "<!-- gain -->", Level.VERDICTS, "labels: loss → gain"),
    "a number on a figure's axis": (
        "figures/arms.svg",
        r"<!-- (\d\.\d)\d* -->",
        r"<!-- \g<1>7 -->",
        Level.VERDICTS,
        "labels: .* → .*7",
    ),
    "a figure's line": (
        "figures/arms.svg",
        r"<path d=\"M 0 ",
        '<path d="M 1 ',
        Level.VERDICTS,
        "the drawing differs; its data and its picture do not",
    ),
    "a figure's colours": (
        "figures/arms.svg",
        r"fill: #(?!000|fff)\w{6}",
        "fill: #ff0000",
        Level.VERDICTS,
        "the drawing differs; its data and its picture do not",
    ),
    "a table's number": ("results/tables/curve.csv", r"2\.", "7.", Level.VERDICTS, "loss of main"),
    "a table's word": ("results/tables/curve.csv", "all", "one", Level.VERDICTS, "part, row 1: all → one"),
    "a run's metric": ("results/runs.csv", r"(wide_10.*,)1\.", r"\g<1>6.", Level.VERDICTS, "loss of main"),
    "a run's count": (
        "results/runs.csv",
        ",110\n",
        ",111\n",
        Level.VERDICTS,
        "statistical, and .* tokens: 1 of 15 num",
    ),
    "a run's metric, by little": (
        "results/runs.csv",
        r"(plain_10.*,2\.0)\d",
        r"\g<1>9",
        Level.VERDICTS,
        "^statistical, and the same bytes were due loss: 1 of 15 numbers",
    ),
    "a run's last digit": (
        "results/runs.csv",
        r"(plain_10.*,2\.\d{5})\d",
        r"\g<1>0",
        Level.VERDICTS,
        "^numerical, and the same bytes were due",
    ),
    "a run's seed": ("results/runs.csv", ",10,", ",9,", Level.VERDICTS, "seed, row 1: 10 → 9"),
    "a run's name": ("results/runs.csv", "plain_10", "plain_9", Level.VERDICTS, "plain_10 → plain_9"),
    "a verdict": ("results/claims.json", '"reproduced"', '"inconclusive"', Level.NONE, "reproduced → inconclusive"),
    "a claim's words": ("results/claims.json", "width helps", "width hurts", Level.VERDICTS, "wide.statement"),
    "a claim's margin": (
        "results/claims.json",
        '"margin": 0.1',
        '"margin": 0.2',
        Level.VERDICTS,
        "wide.margin: 0.1 → 0.2",
    ),
    "an estimate": (
        "results/claims.json",
        r'"estimate": 0\.',
        '"estimate": 3.',
        Level.VERDICTS,
        "wide.estimate: .*, and the runs did not move",
    ),
    "an estimate within its interval": (
        "results/claims.json",
        r'("estimate": 0\.\d)\d',
        r"\g<1>7",
        Level.VERDICTS,
        "wide.estimate: .*, and the runs did not move",
    ),
    "the end of an interval": (
        "results/claims.json",
        r'("ci": \[\s*0\.3)\d',
        r"\g<1>1",
        Level.VERDICTS,
        "wide.ci: .*, and the runs did not move",
    ),
    "a metric": ("results/metrics.json", '"steps": 5', '"steps": 6', Level.VERDICTS, "steps: 5 → 6"),
    "a number in prose": ("results/notebook.ipynb", r"helps \(\+0\.4\d\)", "helps (+0.91)", Level.VERDICTS, r"\+0.91"),
    "the last digit of a number in prose": (
        "results/notebook.ipynb",
        r"helps \(\+0\.4\d\)",
        "helps (+0.47)",
        Level.VERDICTS,
        r"1 numbers, first \+0.4\d → \+0.47",
    ),
    "a word in prose": (
        "results/notebook.ipynb",
        "Width helps",
        "Width hurts",
        Level.VERDICTS,
        "Width helps .* → .*Width hurts",
    ),
    "a printed table": ("results/notebook.ipynb", "<td>reproduced", "<td>inconclusive", Level.VERDICTS, "inconclusive"),
    "its stamp": (
        "results/notebook.ipynb",
        r"torch 2.13.0, matplotlib 3.11.2` ",
        "torch 2 ",
        Level.VERDICTS,
        "cell 0: ",
    ),
    "its source": ("results/notebook.ipynb", "# A toy", "# The toy", Level.VERDICTS, "“# A toy” → “# The toy”"),
}


@pytest.mark.parametrize("what", ALTERED)
def test_what_is_altered_by_hand_is_caught_and_named(project, what):
    name, old, new, level, says = ALTERED[what]
    path = project.file(name)
    text, number = re.subn(old, new, path.read_text(), count=1)
    assert number == 1
    path.write_text(text)
    one = verified(project)
    assert one.level is level
    assert notes(one).keys() == {name}
    assert re.search(says, notes(one)[name]), notes(one)
    assert any("not the one that was drawn" in line for line in one.altered) == name.startswith("figures/")


def test_a_picture_that_is_changed_alone_is_caught_in_the_figure_and_in_the_notebook(project):
    path = project.file("figures/arms.png")
    path.write_bytes(path.read_bytes() + b" ")
    found = notes(verified(project))
    assert found["figures/arms.png"] == "the picture differs and its drawing does not"
    assert found["results/notebook.ipynb"] == "cell 4 shows a picture that is no figure of the study"


def test_a_picture_and_its_drawing_that_are_changed_together_are_not_drawn_otherwise_from_the_same_data(project):
    def paint():
        project.edit("figures/arms.svg", '<path d="M 0 ', '<path d="M 1 ')
        path = project.file("figures/arms.png")
        path.write_bytes(path.read_bytes() + b" ")

    paint()
    one = verified(project)
    told = notes(one)
    for kind in ("svg", "png"):
        assert told[f"figures/arms.{kind}"].startswith("numerical, and the same bytes were due")
    assert one.level is Level.VERDICTS
    project.publish(stamp={"versions": VERSIONS.replace("matplotlib 3.11.2", "matplotlib 3.12.0")})
    paint()  # as another version draws
    assert notes(verified(project))["figures/arms.svg"] == "drawn otherwise from the same data"


@pytest.mark.parametrize(
    "name", ["results/runs.csv", "results/claims.json", "figures/arms.csv", "results/notebook.ipynb"]
)
def test_a_file_that_is_gone_or_new_is_a_difference(project, name):
    project.file(name).unlink()
    expected = Level.NONE if "claims" in name else Level.VERDICTS
    one = verified(project)
    assert (one.level, notes(one)[name]) == (expected, "it is not there now")
    project.commit()
    project.git("checkout", "--quiet", "HEAD~", "--", "results", "figures")
    one = verified(project)
    assert (one.level, notes(one)[name]) == (expected, "it was not there")


@pytest.mark.parametrize("content", ["", "{", "key\n", "[]", pytest.param("[" * 100_000, id="deep")])
@pytest.mark.parametrize(
    "name",
    ["results/claims.json", "results/metrics.json", "results/runs.csv", "results/notebook.ipynb", "figures/arms.csv"],
)
def test_a_torn_file_is_named_in_one_line_and_the_others_are_compared(project, name, content):
    project.file(name).write_text(content)
    one = verified(project)
    told = notes(one)
    assert "\n" not in told[name]
    if name.endswith(".csv") and content:  # a table, if a poor one
        assert one.level is Level.VERDICTS
        return
    assert one.level is Level.NONE
    assert told[name].startswith("can't be read: ")
    assert {finding.name for finding in one.findings} >= {"results/runs.csv", "figures/arms.svg", "figures/arms.png"}
    assert [found for found in told if found != name and found.startswith("figures/")] == []


def test_torn_results_in_the_commit_never_pass_either(project):
    project.file("results/claims.json").write_text("{")
    project.commit()
    project.git("checkout", "--quiet", "HEAD~", "--", "results", "figures")
    assert notes(verified(project))["results/claims.json"].startswith("can't be read: ")


def test_a_torn_manifest_is_a_line_of_its_own(project):
    (project.root / "figures/tiny/manifest.json").write_text("{")
    one = verified(project)
    assert one.level is Level.BITWISE
    assert ["manifest.json is not JSON" in line for line in one.altered] == [True]


def test_studies_that_are_in_one_of_the_two_alone_have_rows_and_the_others_are_compared(project, capsys):
    (project.root / "scales/tiny.yaml").write_text("toy: {steps: 5}\nnew: {steps: 5}\ngone: {steps: 5}\n")
    for part in ("results", "figures"):
        shutil.copytree(project.file(part), project.root / part / "tiny/gone")
    project.commit()
    for part in ("results", "figures"):
        (project.root / part / "tiny/gone").rename(project.root / part / "tiny/new")
    found = verify(["toy", "new", "gone"], "tiny", "HEAD", project.root)
    assert [one.level for one in found] == [Level.BITWISE, None, Level.NONE]
    assert show(found, "tiny", "HEAD") is Level.NONE
    shown = " ".join(capsys.readouterr().out.split())
    assert "new everything – HEAD has nothing of it to compare with" in shown
    assert "gone everything none results: not here: run `make figures`" in shown
    assert shown.endswith("holds: none (toy bitwise, new not compared, gone none)")


@pytest.mark.parametrize(
    ("change", "ref", "says"),
    [
        (lambda p: None, "nowhere", "--against nowhere: git knows no such commit"),
        (lambda p: None, "--all", "--against --all: git knows no such commit"),
        (lambda p: shutil.rmtree(p.file("results")) or shutil.rmtree(p.file("figures")), "HEAD", "they are not here"),
        (lambda p: p.git("rm", "-rq", "results", "figures") or p.commit(), "HEAD", "HEAD holds no results of toy"),
        (lambda p: shutil.rmtree(p.root / ".git"), "HEAD", "git"),
    ],
)
def test_what_can_not_be_compared_is_an_error_in_one_line(project, change, ref, says):
    change(project)
    with pytest.raises(UserError, match=re.escape(says)) as refusal:
        verified(project, ref)
    assert "\n" not in str(refusal.value)


def test_the_table_names_what_differs_and_why_the_gravest_first(project, capsys):
    elsewhere = {"versions": "python 3.12, torch 2.14.0, matplotlib 3.11.2", "cpu capability": "DEFAULT"}
    project.publish(noise=0.03, stamp=elsewhere)
    assert show([verified(project)], "tiny", "HEAD") is Level.STATISTICAL
    shown = " ".join(capsys.readouterr().out.split())
    assert "tiny, compared with HEAD" in shown
    assert "torch 2.13.0 → 2.14.0; CPU kernels AVX2 → DEFAULT; python 3.11 → 3.12" in shown
    assert re.search(r"runs.csv statistical loss: 1\d of 15 numbers", shown)
    assert shown.endswith("holds: statistical (toy statistical)")


def test_another_stamp_is_not_the_same_bytes_and_what_it_says_is_told(project, capsys):
    project.publish(stamp={"code digest": "another"})
    (one,) = found = [verified(project)]
    assert notes(one) == {"results/notebook.ipynb": "nothing but its stamp"}
    assert show(found, "tiny", "HEAD") is Level.NUMERICAL
    assert "made with other code" in " ".join(capsys.readouterr().out.split())


def test_a_notebook_that_was_written_otherwise_with_the_same_stamp_is_held_for_altered(project):
    path = project.file("results/notebook.ipynb")
    path.write_text(path.read_text() + "\n")
    one = verified(project)
    assert one.level is Level.VERDICTS
    assert notes(one) == {"results/notebook.ipynb": "numerical, and the same bytes were due"}


def test_runs_of_other_code_with_the_same_numbers_are_told_as_that(project, capsys):
    project.publish(stamp={"code digest": "another"})
    for name in ("results/runs.csv", "results/timing.csv", "results/tables/curve.csv"):
        text = project.file(name).read_text()
        project.file(name).write_text(re.sub(r"(?m)^(plain|wide|tall)(?=\d)", r"new\1", text))
    assert verified(project).level is Level.NUMERICAL
    show([verified(project)], "tiny", "HEAD")
    shown = " ".join(capsys.readouterr().out.split())
    assert "numerical every number the same: runs.csv" in shown
    assert "numerical every number the same: tables/curve.csv" in shown


def test_what_nothing_noted_explains_is_told_as_that(project, capsys):
    project.edit("results/runs.csv", ",110\n", ",111\n")
    show([verified(project)], "tiny", "HEAD")
    assert "made with nothing that could explain it: altered by hand?" in " ".join(capsys.readouterr().out.split())
    project.publish(noise=0.03, stamp=OTHER_KERNELS)
    show([verified(project)], "tiny", "HEAD")
    assert "altered by hand" not in capsys.readouterr().out


def test_sources_that_moved_on_since_are_told_and_the_level_is_that_of_the_results(project, capsys):
    assert show([verified(project)], "tiny", "HEAD") is Level.BITWISE
    assert "work tree" not in capsys.readouterr().out
    (project.root / "src/common/toy.py").write_text("ANSWER = 43\n")
    (project.root / "scales/tiny.yaml").write_text("toy: {tables: [sotu], steps: 6}\n")
    (one,) = found = [verified(project)]
    assert one.outdated == ["code", "parameters"]
    assert show(found, "tiny", "HEAD") is Level.BITWISE
    shown = capsys.readouterr().out
    for part in one.outdated:
        assert f"made with other {part} than the work tree's: toy; `dvc repro` makes them anew\n" in shown
    (project.root / "src/common/toy.py").write_text("ANSWER = \n")  # no Python
    (told,) = verified(project).outdated
    assert told.startswith("sources (")


def test_another_revision_of_a_given_model_is_a_source_that_moved_on_and_a_cause(project):
    def start_from(commit):
        item = f"{{id: owner/name, kind: model, revision: '{commit * 40}'}}"
        knobs = "{tables: [sotu], steps: 5, model: it}"
        (project.root / "scales/tiny.yaml").write_text(f"hub:\n  it: {item}\ntoy: {knobs}\n")
        (project.root / "models.yaml").write_text("[]\n")

    start_from("a")
    project.publish()
    project.commit()
    assert verified(project).outdated == []
    start_from("b")
    assert verified(project).outdated == ["models"]
    project.publish()
    assert verified(project).causes == ["other models"]


def test_other_code_is_told_by_module(project):
    (project.root / "src/common/toy.py").write_text("ANSWER = 43\n")
    project.publish(shift=0.2)
    assert verified(project).causes == ["other code (toy)"]


def stamped(**stamp):
    notebook = nbformat.v4.new_notebook(metadata={"compendium": stamp})
    source = f"# Parameters\nsteps = {stamp.get('steps', 1)}\nrate = 0.1"
    notebook.cells.append(nbformat.v4.new_code_cell(source, metadata={"tags": ["injected-parameters"]}))
    return notebook


def test_causes_are_ranked_by_severity():
    one = {"code digest": "a", "data digest": "a", "parameters digest": "a", "cpu capability": "AVX2", "hardware": "x"}
    other = {name: f"{value}2" for name, value in one.items()}
    found = stamps.differences(
        stamped(**one, versions="numpy 1, torch 2", steps=1), stamped(**other, versions="numpy 2, torch 3", steps=2)
    )
    assert found == [
        "other code",
        "other parameters: steps",
        "other data",
        "torch 2 → 3",
        "CPU kernels AVX2 → AVX22",
        "numpy 1 → 2",
        "hardware x → x2",
    ]
    assert stamps.differences(stamped(**one), stamped(**one)) == []


def test_libraries_beside_those_in_keys_are_stamped_and_older_stamps_that_lack_them_do_not_differ():
    noted = stamps.versions_stamped()
    assert noted.keys() >= {"scikit-learn", "bitsandbytes", "matplotlib", "torch"}
    assert not {"scikit-learn", "bitsandbytes"} & provenance.versions().keys()  # keys of runs stay
    now = stamped(versions=stamps.versions_text(noted))
    before = stamped(versions=stamps.versions_text(provenance.versions()))
    assert stamps.differences(before, now) == stamps.differences(now, before) == []
    other = stamped(versions=stamps.versions_text(noted | {"bitsandbytes": "0.1"}))
    assert stamps.differences(other, now) == [f"bitsandbytes 0.1 → {noted['bitsandbytes']}"]


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_a_tolerance_is_the_same_both_ways_and_allows_what_is_equal(one, other):
    allowed = Tolerance(1e-3, 1e-4)
    assert allowed.allows(one, other) == allowed.allows(other, one)
    assert allowed.allows(one, one)


def test_a_metric_has_its_own_tolerance_and_whole_numbers_have_none():
    assert not tolerance_of("accuracy").allows(0.5, 0.502)
    assert tolerance_of("sharpness").allows(0.5, 0.502)
    assert compare(b"p,loss\n0.0100,1.0\n", b"p,loss\n0.0101,1.0\n").notes == []
    assert compare(b"measure,estimate\np,0.01\n", b"measure,estimate\np,0.0105\n").notes == []
    assert compare(b"measure,estimate\ncosine,0.01\n", b"measure,estimate\ncosine,0.0105\n").off.keys() == {"estimate"}
    assert compare(b"tokens\n1000000\n", b"tokens\n1000001\n").off.keys() == {"tokens"}
    assert compare(b"loss,x\n1.0,a\n,b\n", b"loss,x\n1.0,a\n2.0,b\n").off == {
        "loss": "loss: of 2 numbers 1 in one of them alone"
    }
    assert compare(b"loss\n1.0\n\n", b"loss\n1.0\n2.0\n").length


def test_rows_that_are_sorted_by_a_number_are_compared_by_their_words():
    old, new = b"arm,loss\na,1.0\nb,1.0001\n", b"arm,loss\nb,1.0\na,1.0001\n"
    assert compare(old, new).notes == []
    assert compare(old, new.replace(b"a,1", b"a,2")).off.keys() == {"loss"}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("0.65", "0.66", True),
        ("0.65", "0.67", False),
        ("+0.650", "+0.66", True),
        ("-0.00", "+0.00", True),
        ("12", "13", False),
        ("1e-05", "2e-05", True),
        ("1,024", "1,024", True),
        ("−0.5", "-0.5", True),
    ],
)
def test_printed_numbers_may_differ_by_one_in_the_last_digit(one, other, same):
    assert close(one, other) == close(other, one) == same


def test_digits_in_names_are_words():
    assert numbers_of("W8 and GPT-2 lose +0.10, [−0.05, 1,024] of 92%") == ["+0.10", "−0.05", "1,024", "92"]
    assert words_of("W8 loses 0.1\n  nats") == "W8 loses # nats"
    assert svg_labels(b"<!-- gain 0.5 -->\n<!-- 0.5 -->\n<!-- W8 -->") == {"gain #": 1, "W8": 1}


@pytest.mark.parametrize(
    ("study", "sweep", "arms", "seeds"),
    [
        ("merging", "merges", 8 * 2, 10),  # MergeAlign and seven methods, two domains
        ("merging", "rivals", 6 * 2, 10),
        ("quantization", "main", 16, 5),
        ("quantization", "llama", 6, 5),
        ("bases", "bases", 2, 5),
    ],
)
def test_arms_of_committed_runs_are_found_without_being_told_which_columns_are_settings(study, sweep, arms, seeds):
    runs = read((ROOT / "results/laptop" / study / "runs.csv").read_bytes())
    rows = runs[runs["sweep"] == sweep]
    counts = arms_of(rows, list(rows)).value_counts()
    assert len(counts) == arms
    assert set(counts) == {seeds}


def measured(values, arms):
    return Measured(pd.DataFrame({"loss": values}), pd.Series(arms))


def test_means_are_held_against_each_others_intervals():
    rng = np.random.default_rng(0)
    arms = np.repeat([f"arm {n}" for n in range(200)], len(SEEDS))
    draws = rng.normal(size=(3, len(arms)))
    assert means_apart(measured(draws[0], arms), measured(draws[0] + 0.1 * draws[1], arms))[0] == 0
    apart, tried, _ = means_apart(measured(draws[0], arms), measured(draws[0] + 5, arms))
    assert (apart, tried) == (200, 200)
    one_row = np.array([*arms, "single"])
    values = np.append(draws[0], 0.0)
    for shift, expected in ((1.5, 0), (4.0, 1)):  # the spread within arms is one
        moved = np.append(draws[0], shift)
        assert means_apart(measured(values, one_row), measured(moved, one_row))[0] == expected
    assert means_apart(measured([1.0], ["a"]), measured([1.1], ["a"]))[0] == 1  # no spread is known
    assert means_apart(measured([1.0], ["a"]), measured([1.0], ["b"]))[0] == 2  # each is in one making alone


def test_columns_in_another_order_are_the_same_columns():
    found = compare(b"key,loss,method\na,1.0,sft\nb,2.0,dpo\n", b"key,method,loss\na,sft,1.0\nb,dpo,2.0\n")
    assert found.notes == found.small == []
    moved = compare(b"key,loss,method\na,1.0,sft\nb,2.0,dpo\n", b"key,method,loss\na,sft,1.0\nb,dpo,7.0\n")
    assert [line.split(":")[0] for line in moved.notes] == ["loss"]
    assert compare(b"key,loss\na,1.0\n", b"key,lost\na,1.0\n").notes == ["columns: gone loss, new lost"]
