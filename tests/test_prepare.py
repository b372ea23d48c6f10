"""What the `compendium` command hands to DVC."""

import shutil
import subprocess
from contextlib import nullcontext

import pytest
import yaml

from common import cli
from common.errors import UserError
from conftest import copied


def test_dvc_and_python_are_those_beside_the_interpreter_where_no_environment_is_active(monkeypatch):
    given = {}
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(
        subprocess, "run", lambda command, **more: given.update(more["env"]) or subprocess.CompletedProcess(command, 0)
    )
    cli._dvc("version")
    found = {name: shutil.which(name, path=given["PATH"]) for name in ("dvc", "python")}
    assert found == {name: shutil.which(name, path=str(cli.Path(cli.sys.executable).parent)) for name in found}
    assert None not in found.values()
    assert given["PATH"].endswith("/usr/bin:/bin")


@pytest.mark.parametrize(
    ("study", "chosen", "has", "exports"),
    [
        ("", ["bases", "merging"], True, True),
        ("", ["bases", "quantization"], True, True),  # all of a checkout that lists these alone
        ("", ["quantization"], True, False),
        ("", ["bases"], False, False),  # at a scale that has no section for merging
        ("bases", ["bases"], True, False),  # merging's models would be trained for it
        ("merging", ["merging"], True, False),
    ],
)
def test_models_are_exported_after_all_studies_and_not_after_one(monkeypatch, study, chosen, has, exports):
    stages = []
    monkeypatch.setattr(cli, "_check_ready", lambda scale, study: None)
    monkeypatch.setattr(cli, "_prepared", lambda scale, study: nullcontext((scale, chosen)))
    monkeypatch.setattr(cli, "_dvc", lambda *arguments: stages.append(arguments[-1]))
    monkeypatch.setattr(cli, "has_section", lambda scale, name: has)
    monkeypatch.setattr(cli, "_compare_with_git", lambda chosen, scale: None)
    cli.figures("tiny", study, "runs")
    assert stages[: len(chosen)] == [f"study@{name}-tiny" for name in chosen]
    assert stages[len(chosen) :] == ["checkpoints/dvc.yaml:checkpoints@tiny"] * exports


@pytest.mark.parametrize("command", [cli.push, cli.pull])
def test_without_a_remote_nothing_is_prepared_for_it(monkeypatch, command):
    asked = []

    def config(command, **more):
        asked.append(command)
        return subprocess.CompletedProcess(command, 0, stdout="core.analytics=false\n")

    monkeypatch.setattr(subprocess, "run", config)
    with pytest.raises(UserError, match="no default remote; name one: `dvc remote add --default shared PLACE`"):
        command("", "tiny")
    assert asked == [["dvc", "config", "--list"]]


def test_an_interrupted_pipeline_says_that_finished_runs_are_kept(monkeypatch):
    def interrupted(command, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", interrupted)
    with pytest.raises(UserError, match="interrupted; finished runs are kept"):
        cli._dvc("repro")


def test_dvc_sees_that_a_name_stands_for_another_model_and_studies_without_one_are_left_alone(tmp_path):
    checkout = copied(tmp_path / "root")
    (checkout.root / "data").mkdir(exist_ok=True)
    (checkout.root / "data/facts.jsonl").write_text("{}\n")
    checkout.edit("params.yaml", "scale: laptop", "scale: x")

    def made(commit):
        item = {"id": "owner/name", "kind": "model", "revision": commit * 40}
        studies = {"merging": {"tables": ["facts"], "base": {"model": "it"}}, "bases": {"tables": ["facts"]}}
        (checkout.root / "scales/x.yaml").write_text(yaml.safe_dump({"hub": {"it": item}, "tokenizer": {}} | studies))
        for study in studies:
            checkout.ok("dvc", "repro", "--single-item", f"tables@{study}-x")
        folder = checkout.root / "build/tables/x"
        return [yaml.safe_load((folder / f"{study}.json").read_text()) for study in studies]

    (first, alone), (second, still_alone) = made("a"), made("b")
    assert [each["models"] for each in (first, second)] == [{"it": f"owner/name@{c * 40}"} for c in "ab"]
    assert alone == still_alone == {"facts": first["facts"]}
