"""Two processes train as one does, and go on from each other's checkpoints; run on CPUs by gloo.

Sums over rows are made in another order, so that numbers agree to float32's rounding, which some steps of training
amplify: 1e-5 is what losses may differ by, 1e-4 weights.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from common.distributed import predicted, shared_loss
from common.errors import UserError
from together import CUT, STEPS, trained

PROGRAM = Path(__file__).with_name("together.py")


@pytest.fixture(scope="module")
def two(folder):
    """What each of two processes found."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(PROGRAM)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    ended = subprocess.run([*command, str(folder)], env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def agree(found, expected):
    for name in ("step", "tokens"):
        assert [row[name] for row in found["curve"]] == [row[name] for row in expected["curve"]]
    losses = [[row["loss"] for row in each["curve"]] for each in (found, expected)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert found["head"] == pytest.approx(expected["head"], abs=1e-4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With the checkpoint that one process left half way, three times: who goes on from one writes to it."""
    folder = tmp_path_factory.mktemp("together")
    assert trained(folder / "one", CUT)["curve"] is None
    for copy in ("one, to shard", "one, kept"):
        shutil.copytree(folder / "one", folder / copy)
    return folder


@pytest.fixture(scope="module")
def one():
    """One process, undisturbed; it learns, or equal curves would say little."""
    found = trained()
    assert found["curve"][-1]["loss"] < found["curve"][0]["loss"] - 0.5
    return found


def test_two_processes_have_the_curve_and_the_weights_of_one(one, two):
    for found in two:
        agree(found["whole"], one)


def test_a_seed_draws_the_same_weights_in_every_process(one, two):
    assert [found["whole"]["drawn"] for found in two] == [one["drawn"]] * 2


def test_a_checkpoint_of_one_process_is_gone_on_from_by_two(one, two):
    for found in two:
        agree(found["gone on"], one)


def test_a_checkpoint_of_two_processes_is_gone_on_from_by_one(one, two, folder, tmp_path):
    assert [found["cut"]["curve"] for found in two] == [None, None]
    assert json.loads((folder / "two/state.json").read_text())["step"] == STEPS // 2
    agree(trained(shutil.copytree(folder / "two", tmp_path / "two")), one)


def test_two_processes_that_share_the_weights_have_the_curve_and_the_weights_of_one(one, two):
    assert sum(found["sharded"]["held"] for found in two) == one["held"]  # each has a part: weights were sharded
    for found in two:
        agree(found["sharded"], one)


def test_a_checkpoint_of_one_process_is_gone_on_from_by_two_that_share_the_weights(one, two):
    assert sum(found["sharded, gone on"]["held"] for found in two) == one["held"]
    for found in two:
        agree(found["sharded, gone on"], one)


def test_a_checkpoint_of_shared_weights_is_gone_on_from_by_one_and_by_two(one, two, folder, tmp_path):
    assert [found["sharded, cut"]["curve"] for found in two] == [None, None]
    assert [found["gone on from shares"]["held"] for found in two] == [one["held"]] * 2  # no longer shared
    for found in two:
        agree(found["gone on from shares"], one)
    agree(trained(shutil.copytree(folder / "sharded", tmp_path / "sharded")), one)


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize("other", ["two", "sharded"])
def test_a_checkpoint_is_the_same_file_whoever_writes_it(two, folder, file, other):
    with safe_open(folder / "one, kept" / file, "pt") as expected, safe_open(folder / other / file, "pt") as found:
        assert found.metadata() == expected.metadata()  # names the tied weights
        assert found.keys() == expected.keys()
        for name in expected.keys():  # noqa: SIM118 - no mapping
            torch.testing.assert_close(found.get_tensor(name), expected.get_tensor(name), rtol=0, atol=1e-4)


def test_no_other_process_leaves_files(two, folder):
    kept = {"one", "one, kept", "one, to shard", "two", "sharded", "sharded, for two", "undisturbed"}
    assert {path.name for path in folder.iterdir() if path.is_dir()} == kept


def test_a_checkpoint_under_the_first_fsdp_is_refused(two):
    for found in two:
        assert found["refused"] == "FSDP of version 1 has no checkpoint: set fsdp_version: 2, or train without one"


def mean_of_rows(model, batch):
    counted = batch["labels"][:, 1:] != -100
    return (model(batch["input_ids"])[:, 1:] * counted).sum() / counted.sum()


@pytest.mark.parametrize(("processes", "unlabelled"), [(2, []), (3, []), (2, [1, 3]), (3, [0, 3])])
def test_shares_of_unequal_numbers_of_tokens_have_the_mean_and_the_gradient_of_the_whole(
    monkeypatch, processes, unlabelled
):
    batch = {
        "input_ids": torch.arange(20.0).reshape(5, 4),
        "labels": torch.tensor([[0, 1, 1, 1], [0, 1, -100, -100], [0, 1, 1, -100], [0, 1, 1, 1], [0, 1, -100, -100]]),
    }
    batch["labels"][unlabelled] = -100  # all rows of one process
    layer = torch.nn.Linear(4, 4)
    whole = mean_of_rows(layer, batch)
    expected = torch.autograd.grad(whole, layer.weight)[0]
    parts: list[torch.Tensor] = []
    monkeypatch.setattr("torch.distributed.all_reduce", lambda value: parts.append(value.clone()))
    shares = [shared_loss(mean_of_rows, rank, processes)(layer, batch) for rank in range(processes)]
    assert sum(parts).item() / processes == pytest.approx(whole.item(), rel=1e-6)
    gradients = [torch.autograd.grad(share, layer.weight)[0] for share in shares]
    torch.testing.assert_close(sum(gradients) / processes, expected)


def test_tokens_that_count_are_those_of_labels_or_all_but_the_first():
    ids = torch.zeros(3, 5, dtype=torch.long)
    assert predicted({"input_ids": ids}) == 12
    assert predicted({"input_ids": ids, "labels": torch.tensor([[1, 1, -100, 1, -100]])}) == 2


def test_a_batch_of_fewer_rows_than_processes_is_refused():
    with pytest.raises(UserError, match="a batch of 2 rows cannot be shared by 3 processes"):
        shared_loss(mean_of_rows, 0, 3)(None, {"input_ids": torch.zeros(2, 4)})
