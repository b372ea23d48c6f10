"""Two processes train as one does, and go on from each other's checkpoints; run on CPUs by gloo.

Sums over rows are made in another order, so that numbers agree to float32's rounding, which some steps of training
amplify: 1e-5 is what losses may differ by, 1e-4 weights.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from common.distributed import predicted, shared_loss
from common.errors import UserError
from together import STEPS

PROGRAM = Path(__file__).with_name("together.py")


def trained(processes, out, *arguments):
    """What each process left."""
    alone = [sys.executable]
    together = [*alone, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [*(alone if processes == 1 else together), str(PROGRAM), str(out), *map(str, arguments)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return [json.loads(out.with_suffix(f".{rank}.json").read_text()) for rank in range(processes)]


def agree(found, expected):
    assert [row["step"] for row in found["curve"]] == [row["step"] for row in expected["curve"]]
    assert [row["tokens"] for row in found["curve"]] == [row["tokens"] for row in expected["curve"]]
    losses = [[row["loss"] for row in each["curve"]] for each in (found, expected)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert found["head"] == pytest.approx(expected["head"], abs=1e-4)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """One process, undisturbed; it learns, or equal curves would say little."""
    found = trained(1, tmp_path_factory.mktemp("one") / "out", STEPS, "plain")[0]
    assert found["curve"][-1]["loss"] < found["curve"][0]["loss"] - 0.1
    return found


def test_two_processes_have_the_curve_and_the_weights_of_one(one, tmp_path):
    for found in trained(2, tmp_path / "out", STEPS, "plain"):
        agree(found, one)


@pytest.mark.parametrize(("first", "second"), [(2, 1), (1, 2)])
def test_a_checkpoint_of_some_processes_is_gone_on_from_by_others(one, tmp_path, first, second):
    checkpoint = tmp_path / "checkpoint"
    cut = trained(first, tmp_path / "cut", STEPS // 2 + 1, "plain", checkpoint)
    assert all(each["curve"] is None for each in cut)
    assert json.loads((checkpoint / "state.json").read_text())["step"] == STEPS // 2
    for found in trained(second, tmp_path / "out", STEPS, "plain", checkpoint):
        agree(found, one)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["checkpoint"]


def mean_of_rows(model, batch):
    counted = batch["labels"][:, 1:] != -100
    return (model(batch["input_ids"])[:, 1:] * counted).sum() / counted.sum()


@pytest.mark.parametrize("processes", [2, 3])
def test_shares_of_unequal_numbers_of_tokens_have_the_mean_and_the_gradient_of_the_whole(monkeypatch, processes):
    batch = {
        "input_ids": torch.arange(20.0).reshape(5, 4),
        "labels": torch.tensor([[0, 1, 1, 1], [0, 1, -100, -100], [0, 1, 1, -100], [0, 1, 1, 1], [0, 1, -100, -100]]),
    }
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
