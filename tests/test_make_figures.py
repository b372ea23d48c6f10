"""From a clone to figures, as a reader would do it, at the tiny scale. The tests build on each other in order."""

import json
import re
import shutil
from itertools import product
from pathlib import Path

import pytest
import torch
import yaml

from common import zoo
from common.verification.manifest import problems
from conftest import Checkout, made_checkout
from pipeline import (
    MAKE,
    blocks,
    cached,
    carried_out,
    content,
    keeps_contract,
    makes_the_same_again,
    rows_of,
    stamped_and_clean,
)

STUDY = "bases"  # the one that draws least
RUNS = {
    "bases": 1 + 2 + 2 + 4 + 4 + 1,  # tokenizer, pilot, its evaluation, reported, their evaluation, judges
    "quantization": 32 + 32 + 4 + 4,  # pilot, reported, Llama, with outliers
}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A clone with two studies, of which nothing is made.

    Others have files of their own, such as test_merging_study.py, for another worker to run.
    """
    checkout = made_checkout(tmp_path_factory.mktemp("checkout"))
    checkout.study(*RUNS)
    checkout.commit("params.yaml")
    return checkout


def test_one_command_makes_every_figure_from_a_clone(checkout):
    output = checkout.ok(*MAKE, "SCALE=tiny")
    assert "rates: 16 runs, 0 there, 16 to do" in output
    for folder, kinds in (("figures", ("svg", "png", "csv")), ("results", ("csv", "json", "ipynb"))):
        for study, kind in product(RUNS, kinds):
            assert list((checkout.root / folder / "tiny" / study).glob(f"*.{kind}")), (folder, study, kind)
    assert "scale: laptop" in (checkout.root / "params.yaml").read_text()
    changed = {line[3:] for line in checkout.ok("git", "status", "--porcelain").splitlines()}
    assert changed <= {"dvc.lock", "checkpoints/dvc.lock"}
    assert "not compared: HEAD holds no results of bases, quantization at the scale tiny" in output
    assert problems("tiny", checkout.root) == []


def test_models_and_what_is_merged_are_exported_and_open(checkout):
    folder = checkout.root / "build/checkpoints/tiny"
    states = {name: zoo.load(name, root=folder)[0].state_dict() for name in ("half-0", "base-0", "generalist-0")}
    states["expert"] = zoo.load("expert_finance-0", root=folder)[0].state_dict()
    same = {
        name: all(torch.equal(states["base-0"][key], state[key]) for key in state) for name, state in states.items()
    }
    assert same == {"half-0": True, "base-0": True, "generalist-0": False, "expert": False}


@pytest.mark.parametrize("study", RUNS)
def test_results_keep_the_contract(checkout, study):
    keeps_contract(checkout, study, RUNS[study])


def test_rows_say_what_was_really_used(checkout):
    rows = rows_of(checkout.root / "results/tiny/quantization")
    scale = yaml.safe_load((checkout.root / "scales/tiny.yaml").read_text())
    assert {row["setting"] for row in rows} == set(scale["quantization"]["recipes"])
    used = {row["setting"]: row for row in rows if not row["diverged_at"]}
    assert float(used["W4 tensor"]["error_weights"]) > float(used["W8 channel"]["error_weights"]) > 0
    assert used["full precision"]["quantized_layers"] == "0" != used["W8 channel"]["quantized_layers"]
    trained = [row for row in rows_of(checkout.root / "results/tiny/bases") if row["sweep"] in {"pilot", "bases"}]
    steps = {json.dumps(base, sort_keys=True): base["steps"] for base in scale["bases"]["bases"].values()}
    assert [int(row["examples"]) for row in trained] == [8 * steps[row["base"]] for row in trained]
    assert {row["device"] for row in trained} == {"cpu"}


@pytest.mark.parametrize("study", RUNS)
def test_the_executed_notebook_is_stamped_and_free_of_progress(checkout, study):
    stamped_and_clean(checkout, study)


def test_dvc_shows_metrics_plots_and_parameters(checkout):
    checkout.edit("params.yaml", "scale: laptop", "scale: tiny")
    assert "baseline_loss" in checkout.ok("dvc", "metrics", "show")
    drawn = [str(path) for path in (checkout.root / "figures/tiny").rglob("*.png")]
    page = checkout.ok("dvc", "plots", "show", *drawn).strip().splitlines()[-1]
    assert "loss_curves" in Path(page.removeprefix("file://")).read_text()
    checkout.commit("params.yaml", "dvc.lock")
    checkout.edit("scales/tiny.yaml", "margin: 0.02", "margin: 0.03")
    changed = json.loads(checkout.ok("dvc", "params", "diff", "--json"))
    assert changed["scales/tiny.yaml"]["quantization.margin"].items() >= {"old": 0.02, "new": 0.03}.items()
    checkout.edit("scales/tiny.yaml", "margin: 0.03", "margin: 0.02")


def test_a_second_repro_runs_nothing(checkout):
    assert "up to date" in checkout.ok("dvc", "repro")


def test_tampered_and_deleted_data_are_restored(checkout):
    before = content(checkout, "data")
    table = checkout.root / "data/sotu.jsonl"
    table.write_text(table.read_text().replace("Congress", "congress"))
    assert content(checkout, "data") != before
    checkout.ok("dvc", "repro")
    assert content(checkout, "data") == before
    shutil.rmtree(checkout.root / "data")
    checkout.ok("dvc", "repro")
    assert content(checkout, "data") == before
    assert "data.dvc" not in checkout.ok("git", "status", "--porcelain")


def test_what_does_not_matter_reruns_nothing(checkout):
    notebook = checkout.root / "notebooks" / f"{STUDY}.ipynb"
    opened = json.loads(notebook.read_text())
    opened["cells"][2].update(execution_count=3, outputs=[{"output_type": "stream", "name": "stdout", "text": "1"}])
    notebook.write_text(json.dumps(opened))
    source = checkout.root / "src/common/training.py"
    source.write_text(f"# a comment\n{source.read_text()}")
    output = checkout.ok("dvc", "repro")
    assert f"Running stage 'notebook@{STUDY}'" in output
    assert "Running stage 'study@" not in output
    checkout.ok("git", "checkout", "--", "notebooks", "src")


def test_a_changed_plot_cell_is_redrawn_from_committed_rows_without_training(checkout):
    before = content(checkout, "results/tiny", "figures/tiny")
    checkout.commit("results/tiny", "figures/tiny", "params.yaml", "dvc.lock")
    assert "holds: bitwise" in checkout.ok("compendium", "verify", "--scale", "tiny")
    runs = checkout.root / ".cache/runs"
    runs.rename(runs.with_name("aside"))
    checkout.edit("src/common/plots/bases.py", "training tokens", "tokens seen")
    assert "Running stage 'study@" in checkout.ok("dvc", "repro")
    assert cached(checkout) == {}
    after = content(checkout, "results/tiny", "figures/tiny")
    changed = {Path(name).name for name in before if before[name] != after[name]}
    assert changed == {"learning_curves.svg", "learning_curves.png", "notebook.ipynb", "manifest.json"}
    assert before.keys() == after.keys()
    status, output = checkout.run("compendium", "verify", STUDY)
    assert status == 5  # nothing but the verdicts, as a label says something else
    assert "labels: training tokens → tokens seen" in " ".join(output.split())
    assert "made with other code" in " ".join(output.split())
    checkout.commit("results/tiny", "figures/tiny")
    assert checkout.run("compendium", "verify", STUDY, "--against", "HEAD~")[0] == 5
    checkout.commit("src")
    shutil.rmtree(runs, ignore_errors=True)
    runs.with_name("aside").rename(runs)


def test_another_scale_stands_beside_and_what_the_cache_lacks_is_done_although_git_holds_the_rows(checkout):
    tiny = content(checkout, "results/tiny", "figures/tiny")
    shutil.copy(checkout.root / "scales/tiny.yaml", checkout.root / "scales/mini.yaml")
    checkout.edit("scales/mini.yaml", "half_margin: 0.15", "half_margin: 0.16")
    shutil.copytree(checkout.root / "results/tiny" / STUDY, checkout.root / "results/mini" / STUDY)
    checkout.commit("results/mini")
    there = cached(checkout)
    keys = [row["key"] for row in rows_of(checkout.root / "results/tiny" / STUDY) if row["sweep"] == "knowledge"]
    lost = checkout.root / ".cache/runs" / keys[-1][:2] / f"{keys[-1]}.json"
    lost.unlink()
    output = checkout.ok(*MAKE, "SCALE=mini", f"STUDY={STUDY}")
    assert "knowledge: 4 runs, 3 there, 1 to do" in output
    assert cached(checkout).keys() == there.keys()
    assert {path for path, time in cached(checkout).items() if time != there[path]} == {lost}
    assert content(checkout, "results/tiny", "figures/tiny") == tiny
    mini = content(checkout, "results/mini", "figures/mini")
    assert len(mini) == 1 + len([name for name in tiny if f"/{STUDY}/" in name])  # and the manifest
    same = [name for name, found in mini.items() if tiny[name.replace("/mini/", "/tiny/", 1)] == found]
    assert {f"results/mini/{STUDY}/runs.csv", f"figures/mini/{STUDY}/rules.svg"} <= set(same)
    assert "Running stage" not in checkout.ok("dvc", "repro")
    checkout.edit("params.yaml", "scale: tiny", "scale: mini")
    assert "up to date" in checkout.ok("dvc", "repro", f"study@{STUDY}-mini")
    assert content(checkout, "results/mini", "figures/mini") == mini
    assert content(checkout, "results/tiny", "figures/tiny") == tiny


def test_runs_done_again_and_rows_of_git_give_the_same_and_every_parameter_reaches_it(checkout):
    makes_the_same_again(checkout, RUNS)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["SCALE=huge"],
            "error: there is no scale 'huge'; allowed: gpu, laptop, mini, openwebtext, paper, smollm2, tiny",
        ),
        (["STUDY=quantisation"], "error: there is no study 'quantisation'; allowed: bases, quantization"),
    ],
)
def test_what_is_not_there_is_refused_before_anything_starts(checkout, arguments, says):
    status, output = checkout.run(*MAKE, *arguments)
    assert status != 0
    assert says in output
    assert "Running stage" not in output


def test_a_scale_lent_by_a_killed_run_is_put_back_unless_someone_chose_another(checkout):
    note, scale = checkout.root / "build/locks/scale", "scale: mini"
    assert scale in (checkout.root / "params.yaml").read_text()
    note.write_text("tiny mini")
    checkout.ok("compendium", "restore")
    assert "scale: tiny" in (checkout.root / "params.yaml").read_text()
    note.write_text("mini laptop")
    checkout.ok("compendium", "restore")
    assert "scale: tiny" in (checkout.root / "params.yaml").read_text()
    assert not note.exists()


def test_the_worked_example_of_a_fork_shares_what_it_does_not_change(checkout):
    start, go_on = blocks("fork.md", "sh", scale="tiny")
    assert "scale: tiny" in (checkout.root / "params.yaml").read_text()
    checkout.ok("git", "config", "user.name", "test")
    checkout.ok("git", "config", "user.email", "test@test")
    *made, plan = start.splitlines()
    carried_out(checkout, "\n".join(made))
    checkout.commit("results/tiny")  # which git ignores, other than those of larger scales
    runs = checkout.root / ".cache/runs"
    runs.rename(runs.with_name("aside"))
    (planned,) = carried_out(checkout, plan)
    shutil.rmtree(runs, ignore_errors=True)
    runs.with_name("aside").rename(runs)
    assert "three_answers at tiny: the notebook runs again: there are no results yet; " in planned
    assert "14 runs, 0 in the cache, 14 in git\n  0 to do" in planned
    assert "no row of git counts: 14 to do" in planned

    (knob,) = blocks("fork.md", "diff")
    old, new = (line[1:] for line in knob.splitlines())
    head, _, tail = (checkout.root / "scales/tiny.yaml").read_text().rpartition(old)
    (checkout.root / "scales/tiny.yaml").write_text(head + new + tail)
    there = cached(checkout)
    planned, repeated, compared = carried_out(checkout, go_on)
    assert "14 runs, 8 in the cache, 8 in git\n  6 to do" in planned
    assert re.findall(r"(\w+) +(\d) +[\d.]+  parameter candidates\n", planned) == [
        ("pilot_knowledge", "2"),
        ("knowledge", "4"),
    ]
    assert "times of past runs most like them: 6 by runs here" in planned
    assert sorted(re.findall(r"(\w+): \d runs, 0 there, (\d) to do", repeated)) == [
        ("knowledge", "4"),
        ("pilot_knowledge", "2"),
    ]
    assert re.search(r"three_answers: done in [\d.]+ min, planned [\d.]+\n", repeated)
    assert {path: time for path, time in cached(checkout).items() if path in there} == there
    assert "candidates: 4 → 3\n" in compared
    assert "Code\n  no difference\n" in compared
    assert "runs: 8 shared, 6 new, 6 no more\n" in compared


def test_what_one_clone_pushes_another_pulls_and_computes_nothing(checkout, tmp_path):
    push, pull = blocks("sharing.md", "sh")
    carried_out(checkout, push.replace("REMOTE", str(tmp_path / "remote")))
    other = Checkout(tmp_path / "other")
    checkout.ok("git", "clone", "--quiet", str(checkout.root), str(other.root))
    pulled, made = carried_out(other, pull)
    assert f"{STUDY} at tiny: {RUNS[STUDY]} runs new to this machine" in pulled
    keys = {row["key"] for row in rows_of(checkout.root / "results/tiny" / STUDY)}
    assert {path.stem for path in cached(other)} == keys
    assert "to do" not in made
    assert "Running stage 'tokenizer" not in made
    folders = (f"results/tiny/{STUDY}", f"figures/tiny/{STUDY}")
    assert content(other, *folders) == content(checkout, *folders)
