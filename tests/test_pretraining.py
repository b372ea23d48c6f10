"""One quantised pre-training run, alone and in a sweep that is killed in the middle of training."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from common.errors import UserError
from common.quantization.pretraining import pretrain
from common.quantization.recipe import COMPONENTS
from common.sweep import grid, sweep
from common.tokenizer import encode_documents, train_tokenizer

SHAPE = {"family": "gpt2", "hidden": 16, "layers": 1, "heads": 2, "context": 16, "tied": False, "embedding_std": 0.3}
SCHEDULE = {
    "steps": 40, "batch_size": 4, "warmup": 5, "weight_decay": 0.1, "log_every": 4, "precision": "no",
    "curve_windows": 8, "validation_windows": 8,
}  # fmt: skip
PLAIN, W8, M2 = "full precision", "W8 channel", "m2 8 tensor"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    words = np.random.default_rng(0).choice(["law", "peace", "the", "of", "union", "and", "state", "war"], (300, 40))
    texts = [" ".join(row) + "." for row in words]
    train_tokenizer(texts, 280, folder / "tokenizer")
    np.save(folder / "train.npy", encode_documents(texts[:250], folder / "tokenizer"))
    np.save(folder / "held.npy", encode_documents(texts[250:], folder / "tokenizer"))
    return {"tokenizer": folder / "tokenizer", "train": folder / "train.npy", "validation_held": folder / "held.npy"}


def run(inputs, tmp_path, recipe, seed=0, learning_rate=0.01, **schedule):
    scratch = tmp_path / "scratch"
    return pretrain(recipe, SHAPE, SCHEDULE | schedule, learning_rate, seed, scratch=scratch, **inputs)


def test_a_run_learns_and_reports_what_it_used(inputs, tmp_path):
    result = run(inputs, tmp_path, W8)
    losses = result["curve"]["loss_held"]
    assert result["setting"] == "W8 channel"
    assert losses[-1] == result["loss_held"] < losses[0] - 0.5
    assert result["tokens"] == 40 * 4 * 16 == result["curve"]["tokens"][-1]
    assert result["quantized_layers"] == 5  # attention in and out, two of the feed-forward, the head
    assert 0 < result["error_weights"] < 0.01
    assert result["error_activations"] is None
    assert result["diverged_at"] is None


def test_a_seed_fixes_a_run_and_a_recipe_or_another_seed_changes_it(inputs, tmp_path):
    first = run(inputs, tmp_path / "a", PLAIN)
    assert run(inputs, tmp_path / "b", PLAIN) == first
    assert run(inputs, tmp_path / "c", PLAIN, seed=1)["loss_held"] != first["loss_held"]
    assert run(inputs, tmp_path / "d", W8)["loss_held"] != first["loss_held"]
    assert first["quantized_layers"] == 0


def test_a_diverging_run_is_reported_without_a_loss(inputs, tmp_path):
    result = run(inputs, tmp_path, M2, learning_rate=0.05)
    assert result["diverged_at"] is not None
    assert result["loss_held"] is None


def test_of_a_diverged_run_the_quantiser_is_measured_where_it_began(inputs, tmp_path):
    diverged = run(inputs, tmp_path / "a", M2, learning_rate=0.05)
    one = run(inputs, tmp_path / "b", M2, learning_rate=1e-12, steps=1, log_every=1)
    assert diverged["error_second_moment"] == one["error_second_moment"] > 0


@pytest.mark.parametrize("recipe", ["A8 token", "G4 token", M2])
def test_a_run_that_ends_without_a_finite_number_is_reported_as_diverged(inputs, tmp_path, recipe):
    result = run(inputs, tmp_path, recipe, learning_rate=1e20, warmup=0)
    assert result["diverged_at"] is not None
    assert result["loss_held"] is None
    assert sum(result[f"error_{name}"] is not None for name in COMPONENTS) == 1


@pytest.mark.parametrize("recipe", ["W5 tensor", "weights", "W8", "W8 channel + W4 tensor", ""])
def test_a_recipe_that_makes_no_sense_is_refused(inputs, tmp_path, recipe):
    with pytest.raises(UserError):
        run(inputs, tmp_path, recipe)


@pytest.mark.usefixtures("in_this_process")
def test_a_sweep_killed_in_the_middle_of_training_gives_the_table_of_an_uninterrupted_one(inputs, tmp_path):
    schedule = SCHEDULE | {"steps": 400, "log_every": 5}
    cells = grid(recipe=[PLAIN, W8], shape=[SHAPE], schedule=[schedule], learning_rate=[0.01], seed=[0])
    program = (
        "import sys, json; from pathlib import Path\n"
        "from common.sweep import sweep; from common.quantization.pretraining import pretrain\n"
        "cells, inputs, cache = json.loads(sys.argv[1])\n"
        "inputs = {name: Path(path) for name, path in inputs.items()}\n"
        "sweep(pretrain, cells, inputs=inputs, name='killed', cache=Path(cache), workers=2)\n"
    )
    cache = tmp_path / "killed"
    arguments = json.dumps([cells, {name: str(path) for name, path in inputs.items()}, str(cache)])
    process = subprocess.Popen([sys.executable, "-c", program, arguments], env=os.environ | {"OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while len(list(cache.glob("scratch/*/checkpoint/state.json"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(1)  # its workers notice and end
    assert list(cache.glob("??/*.json")) == []
    reached = [json.loads(path.read_text())["step"] for path in cache.glob("scratch/*/checkpoint/state.json")]
    assert all(0 < step < 400 for step in reached)
    resumed = sweep(pretrain, cells, inputs=inputs, name="resumed", cache=cache)
    whole = sweep(pretrain, cells, inputs=inputs, name="whole", cache=tmp_path / "whole")
    assert [(r.key, r.metrics, r.tables) for r in resumed.records] == [
        (r.key, r.metrics, r.tables) for r in whole.records
    ]
    assert not list(Path(cache).glob("scratch/*"))
