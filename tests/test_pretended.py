"""The pretended GPU refuses what a GPU refuses, and computes what the CPU does."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

TRAINED = """
    from common.models import new_language_model
    from common.training import Plan, adamw, language_loss, train

    def trained():
        model = new_language_model(
            family="llama", hidden=16, layers=2, heads=2, context=32, embedding_std=0.3, tied=True, vocab_size=64,
            seed=0,
        )
        ids = torch.arange(128).remainder(64).view(8, 16)
        plan = Plan(10, 1e-2, 2, log_every=5)
        optimizer = adamw(model, weight_decay=0.1)
        return train(model, language_loss, lambda step: {"input_ids": ids}, plan, optimizer=optimizer)
"""


REFUSED = {
    "torch.ones(3, device=GPU) + torch.ones(3)": "on the CPU are (3,)",
    "torch.nn.Linear(3, 2).to(GPU)(torch.ones(1, 3))": "on the CPU are (1, 3)",
    "torch.zeros(3).index_select(0, torch.arange(2).to(GPU))": "on the CPU are (3,)",
    "torch.ones(3, device=GPU).numpy()": "numpy",
    "torch.ones(3, device=GPU) + torch.ones(())": "",
    "torch.ones(3, device=GPU)[torch.arange(2)]": "",
    "torch.ones(3, device=GPU).cpu().numpy()": "",
}
WAITED = {
    "x.sum().item()": True,
    "x.tolist()": True,
    "1 if x.any() else 0": True,
    "[1, 2, 3][i[0]]": True,
    "x[: i[0]]": True,
    "x.cpu()": True,
    "x.to('cpu', non_blocking=True)": True,
    "torch.zeros(3).copy_(x)": True,
    "torch.ones(3).to(GPU)": True,
    "torch.ones(3).to(GPU, non_blocking=True)": False,
    "torch.tensor([1.0], device=GPU)": True,
    "torch.tensor([], device=GPU)": False,
    "torch.zeros(3, device=GPU)": False,
    "x.copy_(torch.ones(3))": True,
    "x.copy_(torch.ones(3), non_blocking=True)": False,
    "x[x > 0]": True,
    "x[torch.tensor([True, False, True])]": True,
    "x[[0, 1]]": True,
    "x[i]": False,
    "x[1:]": False,
    "x.index_put_((x > 0,), x[:1])": True,
    "x.index_put((i,), x[:1])": False,
    "x.masked_select(x > 0)": True,
    "x.masked_fill(x > 0, x[0])": True,
    "x.masked_fill(x > 0, 0.0)": False,
    "x.where(x > 0, torch.tensor(1.0))": True,
    "x.where(x > 0, 1.0)": False,
    "x.nonzero()": True,
    "x.unique()": True,
    "x.equal(x)": True,
    "torch.allclose(x, x)": True,
    "x.repeat_interleave(i)": True,
    "x.repeat_interleave(i, output_size=3)": False,
    "x.repeat_interleave(2)": False,
    "x * torch.tensor(2.0)": False,
    "torch.nn.functional.cross_entropy(x, i[1])": False,
}
TRIED = """
    found = {}
    for code in CODES:
        try:
            with pretended():
                eval(code)
            found[code] = ""
        except (RuntimeError, TypeError) as error:
            found[code] = str(error)
    waited = {}
    with pretended():
        x, i = torch.ones(3, device=GPU), torch.arange(3, device=GPU)
        for code in WAITED:
            WAITS.clear()
            eval(code)
            waited[code] = WAITS.total()
"""


@pytest.fixture(scope="module")
def told():
    """What a process of its own says of the codes that may be refused, of training on both devices, of waits."""
    lines = ["import json", "import torch", "from pretended import GPU, pretended", "from waited import WAITS"]
    lines += [f"CODES = {list(REFUSED)}", f"WAITED = {list(WAITED)}"]
    both = ["with pretended():", "    there = trained()"]
    both += ["print(json.dumps([found, [[one.used['device'], one.curve] for one in (there, trained())], waited]))"]
    lines += [*map(textwrap.dedent, (TRIED, TRAINED)), *both]
    command = [sys.executable, "-c", "\n".join(lines)]
    ended = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.parametrize(("code", "refused"), REFUSED.items())
def test_what_forgets_where_its_tensors_are_fails_as_on_a_gpu(told, code, refused):
    assert bool(told[0][code]) == bool(refused)
    assert refused in told[0][code]


@pytest.mark.parametrize(("code", "waits"), WAITED.items())
def test_what_a_gpu_makes_the_host_wait_for_is_noted(told, code, waits):
    assert bool(told[2][code]) == waits


def test_training_there_says_so_and_gives_the_cpus_losses(told):
    (device, curve), (other, expected) = told[1]
    assert (device, other) == ("pretended", "cpu")
    assert [row["loss"] for row in curve] == pytest.approx([row["loss"] for row in expected], rel=1e-5)
    assert curve[-1]["loss"] < curve[0]["loss"] - 1  # it has learnt something
