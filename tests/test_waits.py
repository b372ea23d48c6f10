"""A training step leaves the host free: on a pretended GPU it waits where losses are looked at, and nowhere else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

# transformers looks whether rows hold several texts, wherever it is given neither a mask nor a cache. Either would cost
# more than the wait: a mask takes attention off its fast path, a cache copies all keys and values.
THEIRS = "_local_scalar_dense in find_packed_sequence_indices, masking_utils.py"


@pytest.fixture(scope="module")
def waits():
    """Of each training, what it waits for in its steps; in a process of its own."""
    program = Path(__file__).with_name("waiting.py")
    ended = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_a_step_that_asks_for_its_loss_is_found_to_wait(waits):
    assert waits["a loss that asks"] == ["_local_scalar_dense in asking, waiting.py"] * 2


def test_no_training_waits_in_its_steps(waits):
    ours = {name: set(found) - {THEIRS} for name, found in waits.items() if name != "a loss that asks"}
    assert len(ours) > 30
    assert {name: found for name, found in ours.items() if found} == {}
