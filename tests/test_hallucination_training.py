"""Models of a world, from nothing and tuned: what a run reports, what its seed fixes, what it keeps."""

import subprocess
import sys

import pandas as pd
import pytest
import torch
from transformers import AutoTokenizer

from common.architectures import FAMILIES, Shape, build
from common.errors import UserError
from common.hallucination.pretraining import Schedule, instruct, pretrain, probes
from common.hallucination.reading import World, prose, texts_of
from common.hallucination.texts import EXERCISES
from common.hallucination.world import QUARTILES
from common.sweep.records import Record, check
from common.zoo import load
from worlds import WORLD, made_tokenizer, write_tables

SHAPE = {"hidden": 16, "layers": 2, "heads": 2, "blocks": ["recurrent", "attention"]}
ARCHITECTURE = {"family": "llama", "shape": SHAPE, "parameters": 30_000, "context": 128}
SHARES = {"facts": 0.5, "stories": 0.3, "proverbs": 0.1, "prose": 0.1}
SCHEDULE = {"shares": SHARES, "steps": 10, "tokens": 100, "warmup": 3, "weight_decay": 0.1}
TUNING = SCHEDULE | {"shares": dict.fromkeys(EXERCISES, 1.0)}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_tables(tmp_path_factory.mktemp("tables"))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory, files):
    return made_tokenizer(tmp_path_factory.mktemp("words") / "tokenizer", files)


def run(folder, tokenizer, files, seed=0, rate=0.01, learnt=9.0, **architecture):
    (folder / "kept").mkdir(parents=True)
    own = {"keep": folder / "kept", "scratch": folder / "scratch"}
    known = {"tokenizer": tokenizer, **files, **own}
    return pretrain(ARCHITECTURE | architecture, WORLD, SCHEDULE, rate, learnt, seed, **known)


def as_a_record(result):
    """Raise where a sweep could not keep the result."""
    tables = {name: value for name, value in result.items() if isinstance(value, dict)}
    check(Record("key", "run", {}, {name: result[name] for name in result.keys() - tables.keys()}, tables))


def weights(folder):
    return load(str(folder))[0].state_dict()


@pytest.fixture(scope="module")
def base(tokenizer, files, tmp_path_factory):
    """A run's folder and result."""
    folder = tmp_path_factory.mktemp("base")
    return folder, run(folder, tokenizer, files)


def test_a_run_learns_keeps_a_model_and_tells_what_it_used(base):
    folder, result = base
    as_a_record(result)
    curve = result["curve"]
    assert curve["step"] == list(range(1, 11))
    assert curve["recall, most frequent"][-1] == result["loss of recall, most frequent"]
    assert curve["recall, most frequent"][-1] < curve["recall, most frequent"][0]
    assert abs(result["parameters"] - 30_000) <= 600
    model, words = load(str(folder / "kept"))
    assert len(words) == model.config.vocab_size
    assert result["parameters"] == sum(parameter.numel() for parameter in model.parameters())


def test_a_seed_fixes_a_run_and_every_architecture_reads_the_same(base, tokenizer, files, tmp_path):
    _, first = base
    limit = first["loss of recall, most frequent"]
    again = run(tmp_path / "b", tokenizer, files, learnt=limit)
    assert first["learnt_facts"]
    assert again == first | {"learnt_facts": False}  # ended at the limit, not below
    other = run(tmp_path / "d", tokenizer, files, seed=1, family="lstm")
    assert other["curve"]["loss"] != first["curve"]["loss"]
    same = run(tmp_path / "e", tokenizer, files, family="lstm")
    assert same["curve"]["tokens"] == first["curve"]["tokens"]
    assert same["curve"]["loss"] != other["curve"]["loss"]


def test_tuning_starts_from_the_named_model_and_learns_the_exercises(base, files, tmp_path):
    folder, result = base
    (tmp_path / "kept").mkdir()
    own = {"keep": tmp_path / "kept", "scratch": tmp_path / "scratch"}
    named = {"llama_0": folder / "kept"}
    tuned = instruct("llama_0", WORLD, TUNING, 0.01, 0, 128, **files, **own, **named)
    as_a_record(tuned)
    assert tuned["loss of exercises"] < result["loss of exercises"]
    before, after = weights(named["llama_0"]), weights(tmp_path / "kept")
    assert before.keys() == after.keys()
    assert not torch.equal(before["lm_head.weight"], after["lm_head.weight"])
    with pytest.raises(UserError, match="no model 'llama_1'; there are llama_0"):
        instruct("llama_1", WORLD, TUNING, 0.01, 0, 128, **files, **own, **named)


def test_probes_ask_for_the_objects_of_each_quartile(files):
    table, texts = texts_of(World(**WORLD), 0, **files)
    found = probes(table, texts)
    for quartile in QUARTILES:
        own = table[table["quartile"] == quartile]
        assert [text[1] for text in found[f"recall, {quartile}"]] == [(f" {obj}", True) for obj in own["object"]]
    assert len(found["exercises"]) == 8 * len(EXERCISES)


def test_kinds_that_there_are_not_and_too_little_prose_are_refused(files):
    with pytest.raises(ValueError, match="shares: gossip, allowed: facts"):
        Schedule(**(SCHEDULE | {"shares": {"gossip": 1.0}}))
    with pytest.raises(UserError, match="the addresses have 64 sentences of 6 to 20 words, wanted: 65"):
        prose(files["sotu"], 65)
    pieces = prose(files["sotu"], 5)
    text = pd.read_json(files["sotu"], lines=True)["text"][0]
    assert all(piece in text and 6 <= len(piece.split()) <= 20 for piece in pieces)


OPENING = """
import sys
from common.hallucination.evaluation import load
print(*(type(load(folder)[0]).__name__ for folder in sys.argv[1:]))
"""


def test_a_fresh_worker_opens_kept_models_of_every_family(tmp_path, files):
    """A sweep of which only evaluations are missing starts workers that have built no model."""
    words = AutoTokenizer.from_pretrained(made_tokenizer(tmp_path / "tokenizer", files))
    for family in FAMILIES:
        size = {"vocab_size": len(words), "context": 128, "parameters": 60_000}
        for part in (build(family, Shape(hidden=32, layers=2, heads=2), **size, seed=0), words):
            part.save_pretrained(tmp_path / family)
    command = [sys.executable, "-c", OPENING, *(str(tmp_path / family) for family in FAMILIES)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    classes = ("Llama", "LSTM", "Mamba2", "RecurrentGemma", "SlicedxLSTM")
    assert said == [f"{name}ForCausalLM" for name in classes]
