"""Scales for GPUs and hubs, without either: what they need is computed, and what is missing is one line beforehand."""

import os
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig, RobertaConfig

import runs
from common import cli, devices, hub, machine, stage
from common import footprint as foot
from common.architectures import Shape, build
from common.cells import checked_cells
from common.cli import _check_ready
from common.environment import CLUSTER
from common.errors import UserError
from common.footprint import (
    GIB,
    OF_STUDY,
    Training,
    examination,
    examining,
    footprint,
    largest,
    on_meta,
    studies,
    trainings,
)
from common.gpu_workers import CONTEXT, packed, workers
from common.machine import VISIBLE, Gpu, check_machine, needs
from common.models import new_language_model, parameter_count
from common.preference import recomputing
from common.preference.adapters import Lora, attach
from common.preference.examples import Example
from common.preference.finetuning import tuning_batches
from common.preference.tuning import Method, Tuning
from common.project import ROOT
from common.quantization.memory import training_memory
from common.quantization.recipe import Recipe
from common.scales import has_section, section
from common.scales import studies as every_study
from common.sweep import sweep
from given_models import FURTHER, LIMIT, give_model

LARGE = ("gpu", "openwebtext", "paper", "smollm2")
EVERY = [(scale, study) for scale in LARGE for study in OF_STUDY if has_section(scale, study)]


def gpu(memory_gb, device="0"):
    return Gpu(device, "toy", int(memory_gb * GIB))


def listed(scale):
    """GB of each training and of an examination, by study and name, on the page of computed memory."""
    page = (ROOT / "benchmarks/gpu.md").read_text()
    cells = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith(f"| {scale} |")]
    return {(study, name): float(total) for _, study, name, *_, total, _, _, _ in cells}


@pytest.mark.parametrize(("scale", "study"), EVERY)
def test_notebooks_take_the_parameters_of_large_scales(scale, study):
    checked_cells(study, scale)


def test_models_of_the_gpu_scale_have_the_stated_sizes():
    sizes = {
        (each.study, each.name): parameter_count(on_meta(each))
        for study in OF_STUDY
        for each in trainings(study, "gpu")
    }
    assert set(listed("gpu")) == set(sizes) | {(study, "examination") for study in OF_STUDY}
    assert all(10e6 <= size <= 124e6 for (study, _), size in sizes.items() if study == "quantization")
    assert all(50e6 <= size <= 60e6 for (study, _), size in sizes.items() if study in ("bases", "merging", "alignment"))
    arms = {name: size for (study, name), size in sizes.items() if study == "hallucination"}
    for name, size in arms.items():
        wanted = {"small": 8e6, "middle": 30e6}.get(name.rpartition(", ")[2], 100e6)
        assert size == pytest.approx(wanted, rel=0.02), name
    grown = [size for (study, name), size in sizes.items() if study == "expansion" and "ff" in name]
    assert len(grown) == 10
    assert len(set(grown)) == 1  # strictly equal
    assert grown[0] > 3 * sizes["expansion", "base"]


def test_models_of_the_smollm2_scale_are_the_packaged_one_and_every_training_fits():
    found = [each for study in ("merging", "alignment") for each in trainings(study, "smollm2")]
    assert len(found) == 12
    examined = {(study, "examination") for study in ("merging", "alignment")}
    assert set(listed("smollm2")) == {(each.study, each.name) for each in found} | examined
    assert {parameter_count(on_meta(each)) for each in found} == {134_515_008}
    most = max(footprint(each).total for each in found if each.rows >= 32)
    assert most > GIB
    assert packed(gpu(needs("smollm2").memory_gb), most, cores=1) == 1


def test_gpt_2_on_the_papers_text_fits_the_stated_memory_and_no_gigabyte_less():
    found = {each.name: parameter_count(on_meta(each)) for each in trainings("quantization", "openwebtext")}
    assert found["gpt2"] == 124_439_808 + 50257 * 768  # GPT-2 small, and a head of its own
    taken, stated = largest("quantization", "openwebtext"), needs("openwebtext").memory_gb
    assert packed(gpu(stated), taken, cores=1) == 1
    with pytest.raises(UserError, match="a run takes"):
        packed(gpu(stated - 1), taken, cores=1)


@pytest.fixture
def papers(monkeypatch):
    """The papers' models have the sizes of the first 7B of Mistral, which are that class's defaults."""
    sizes = MistralConfig(max_position_embeddings=256, rope_theta=1e4, dtype="float32")
    monkeypatch.setattr(studies, "config_of", lambda given, scale: sizes)
    judges = {"toxicity": RobertaConfig(), "refusals": RobertaConfig(num_hidden_layers=6)}
    monkeypatch.setattr(examining, "named_config", lambda name, scale: judges[name])


@pytest.mark.usefixtures("papers")
def test_adapters_on_the_papers_models_fit_and_nothing_else_is_trained():
    found = trainings("alignment", "paper")
    ranks = [("sft", 64), ("dpo", 16)]
    assert [(each.name, each.rank) for each in found] == ranks + [(f"instruct, {name}", rank) for name, rank in ranks]
    taken = footprint(found[1])
    assert taken.total > 4 * 7e9
    assert packed(gpu(needs("paper").memory_gb), taken.total, cores=1) == 1
    assert taken.moments < taken.weights / 10


@pytest.mark.usefixtures("papers")
def test_the_papers_models_are_examined_in_the_stated_memory_and_in_no_gigabyte_less():
    taken, stated = largest("alignment", "paper"), needs("paper").memory_gb
    assert taken == examination("alignment", "paper").total > 2 * 4 * 7e9
    judges = 2 * 50265 * 768 + (12 + 6) * 7.1e6  # embeddings, and layers: twelve of one, six of the other
    assert examining.judges_weights("alignment", "paper") / 4 == pytest.approx(judges, rel=0.01)
    assert packed(gpu(stated), taken, cores=1) == 1
    with pytest.raises(UserError, match="a run takes"):
        packed(gpu(stated - 1), taken, cores=1)
    assert stated <= 79  # what a GPU sold as 80 GB has to give


HELD = """
import os
from unittest.mock import patch

from accelerate import Accelerator
from accelerate.state import AcceleratorState

from common.models import device
from common.study import Study

with patch("torch.cuda.is_available", lambda: True):
    Study("merging")
    first = device().type
    AcceleratorState._reset_state(reset_partial_state=True)
    print(first, Accelerator().device.type, device().type, repr(os.environ["CUDA_VISIBLE_DEVICES"]))
"""


@pytest.mark.parametrize(
    ("scale", "given", "told"),
    [
        ("tiny", {}, "cpu cpu cpu ''"),
        ("tiny", {"ACCELERATE_TORCH_DEVICE": "cuda"}, "cuda cuda cuda '1'"),
        ("gpu", {}, "cuda cuda cuda '1'"),
    ],
)
def test_a_scale_without_a_gpu_is_computed_on_the_cpu_also_where_there_is_one(tmp_path, scale, given, told):
    own = {name: value for name, value in os.environ.items() if name != "ACCELERATE_TORCH_DEVICE"}
    own |= {"COMPENDIUM_SCALE": scale, "COMPENDIUM_WORK": str(tmp_path), "CUDA_VISIBLE_DEVICES": "1", **given}
    ended = subprocess.run([sys.executable, "-c", HELD], env=own, capture_output=True, text=True, check=False)
    assert ended.stdout.strip() == told, ended.stderr


def kept(layers=1, **changes):
    """Activations of a tiny Llama of so many layers."""
    make = studies._plain(shape("llama", layers=layers), 96)
    return footprint(Training("toy", "", make, 4, 16, **{"tuned": True, **changes})).activations


def test_a_layer_keeps_what_is_counted_by_hand():
    # Of each token: the inputs and results of two norms, before and after their weights, queries, keys, values and what
    # attention makes of them, all as wide as the model; the gate before and after its function, what it lets through of
    # what, as wide as the feed-forward; a number for each norm and for each head; and whom it sees.
    assert kept(layers=3) - kept(layers=2) == 4 * 16 * (10 * 32 + 4 * 88 + 2 + 4 + 16) * 4


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_of_a_large_model_in_tuning_the_inputs_of_layers_and_one_layer_are_kept(monkeypatch, precision):
    one, three = kept(precision=precision), kept(layers=3, precision=precision)
    monkeypatch.setattr(recomputing, "LARGE", 0)
    assert kept(precision=precision) == one
    assert kept(layers=3, precision=precision) == one + 2 * 4 * 16 * 32 * 4  # two more inputs
    assert kept(layers=3, precision=precision, tuned=False) == three > one + 10 * 2 * 4 * 16 * 32 * 4


@pytest.mark.parametrize("tied", [True, False])
def test_a_given_model_has_the_footprint_of_its_own_sizes_and_no_training_where_it_is_taken_as_it_is(tmp_path, tied):
    folder = give_model(tmp_path / "given", tied=tied, dtype="bfloat16")
    knobs = section("tiny", "merging") | {"vocab_size": None}
    base = {"model": str(folder), "context": LIMIT, "further": FURTHER | {"precision": "bf16"}}
    first, *others = [Training("merging", *each) for each in studies._merging(knobs | {"base": base}, "tiny")]
    assert (first.rows, first.length, first.precision) == (FURTHER["batch_size"], LIMIT, "bf16")
    count = sum(weight.numel() for weight in AutoModelForCausalLM.from_pretrained(folder).parameters())
    assert footprint(first).weights == 4 * count  # float32, whatever the folder has
    taken = studies._merging(knobs | {"base": base | {"further": None}}, "tiny")
    assert [each[0] for each in taken] == [each.name for each in others]


# One of each kind of training. What goes step by step through a text takes long to trace: benchmarks/gpu.md has all.
KINDS = (
    ("bases", "informed"), ("merging", "generalist, dpo"), ("alignment", "dpo"), ("quantization", "gpt2"),
    ("expansion", "4 × ff 448, zero + random"), ("hallucination", "all recurrent"),
)  # fmt: skip


@pytest.mark.parametrize(("study", "name"), KINDS)
def test_the_largest_runs_fit_the_stated_memory(study, name):
    training = next(each for each in trainings(study, "gpu") if each.name == name)
    found = footprint(training)
    assert packed(gpu(needs("gpu").memory_gb), found.total, cores=1) == 1
    assert found.total / GIB == pytest.approx(listed("gpu")[study, name], abs=0.01)
    assert found.activations > found.logits > 0
    if training.rank:
        assert found.gradients < found.weights / 10
    else:
        assert found.moments == 2 * found.gradients == 2 * found.weights == 8 * found.parameters


def shape(family, **sizes):
    return {"family": family, "hidden": 32, "layers": 2, "heads": 4, "context": 16, "embedding_std": 0.3, **sizes}


def toy(family="llama", rows=4, **changes):
    make = studies._plain(shape(family), 96)
    return Training("toy", family, **{"make": make, "rows": rows, "length": 16, **changes})


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_footprint_is_what_a_real_step_keeps(family):
    model = new_language_model(**shape(family), vocab_size=96, tied=False, seed=0)
    measured = {
        name: each["simulated"] for name, each in training_memory(model, Recipe.named("full precision"), 4, 16).items()
    }
    told = footprint(toy(family))
    assert told.weights == measured["weights"]
    assert told.gradients == measured["gradients"]
    assert told.moments == measured["first_moment"] + measured["second_moment"]
    # The study's linear layers save a little otherwise than plain ones.
    assert told.activations == pytest.approx(measured["linear_inputs"] + measured["other_activations"], rel=0.1)


def test_rows_precision_and_adapters_count():
    one, two = footprint(toy(rows=1)), footprint(toy(rows=2))
    assert two.activations == pytest.approx(2 * one.activations, rel=0.01)
    assert two.logits == 2 * one.logits == 2 * 16 * 96 * 4
    assert footprint(toy(precision="bf16", rows=64)).activations < footprint(toy(rows=64)).activations
    # Per layer q, k, v, o of 32 × 32, gate, up, down between 32 and 88; none on the head.
    assert footprint(toy(rank=2)).gradients == 2 * 2 * (4 * 64 + 3 * 120) * 4


@pytest.mark.parametrize(
    ("family", "targets"),
    [("llama", "all-linear"), ("llama", ["q_proj", "v_proj"]), ("gpt2", "all-linear"), ("gpt2", ["c_attn", "c_proj"])],
)
def test_an_adapter_counts_what_peft_attaches(family, targets):
    model = new_language_model(**shape(family), vocab_size=96, tied=False, seed=0)
    tuned = attach(model, Lora(r=3, lora_alpha=6, target_modules=targets), 0)
    trained = sum(weight.numel() for weight in tuned.parameters() if weight.requires_grad)
    assert footprint(toy(family, rank=3, targets=targets)).gradients == 4 * trained


@pytest.mark.parametrize("method", get_args(Method))
def test_an_example_has_as_many_completions_as_its_batches(method):
    given = {"kto": {"beta": 0.1}, "simpo": {"beta": 2.0, "simpo_gamma": 0.5}, "poft": {}, "sft": {}}
    options = {"steps": 1, "batch_size": 2, "learning_rate": 0.1, "warmup": 0} | given.get(method, {"beta": 0.1})
    tuning = Tuning(method=method, **options)
    examples = [Example((1, 2), ((3, number), (4, number), (5, number))) for number in (6, 7)]
    wanted = "aligned" in tuning.loss().tensors or any(name.startswith("ref_") for name in tuning.loss().tensors)
    columns = 1 if method == "poft" else len(tuning.loss().tensors) // 2
    reference = np.zeros((2, columns)) if wanted else None
    batch = tuning_batches(
        new_language_model(**shape("llama"), vocab_size=96, tied=False, seed=0), examples, tuning, 0, 0, reference
    )
    assert batch(0)["tokens"].shape == (2, studies.completions(method))


def test_a_family_that_goes_step_by_step_counts_by_the_tokens_of_a_short_text():
    def make():
        shape = Shape(hidden=16, layers=1, heads=2)
        return build("xlstm", shape, vocab_size=50, context=64, parameters=12_000, seed=0)

    one, three = (footprint(Training("toy", "xlstm", make, rows, 32)) for rows in (1, 3))
    assert three.activations == pytest.approx(3 * one.activations)
    assert footprint(Training("toy", "xlstm", make, 1, 64)).activations == pytest.approx(2 * one.activations)


def test_a_study_that_trains_what_is_not_known_is_refused(monkeypatch):
    monkeypatch.setattr(studies, "forked_from", lambda study: None)
    with pytest.raises(UserError, match="of coins it is not known what it trains, known: alignment"):
        trainings("coins", "gpu")


def test_a_fork_and_a_forks_fork_take_what_their_own_knobs_say_by_the_kind_of_their_parent(monkeypatch):
    monkeypatch.setattr(studies, "forked_from", {"wider": "wide", "wide": "quantization"}.get)
    knobs = section("tiny", "quantization")
    own = knobs | {"schedule": knobs["schedule"] | {"batch_size": 3 * knobs["schedule"]["batch_size"]}}
    for module in (studies, examining):
        told = lambda scale, name: own if name == "wider" else section(scale, name)  # noqa: E731
        monkeypatch.setattr(module, "section", told)
    found, parents = trainings("wider", "tiny"), trainings("quantization", "tiny")
    assert [(each.study, each.name, each.rows) for each in found] == [
        ("wider", each.name, 3 * each.rows) for each in parents
    ]
    assert examination("wider", "tiny").activations > 2 * examination("quantization", "tiny").activations
    assert largest("wider", "tiny") > largest("quantization", "tiny")


def test_scales_without_a_machine_need_none():
    assert needs("laptop") is None
    assert check_machine("laptop", []) == []
    assert check_machine("no such scale", []) == []


@pytest.mark.parametrize(
    ("found", "says"),
    [
        ([], "the scale gpu needs 1 GPU of 64.5 GB, this machine has none; .* SCALE=gpu FROM=tables"),
        ([gpu(8)], r"the scale gpu needs 1 GPU of 64.5 GB, GPU 0 \(toy\) has 8.0 GB"),
    ],
)
def test_no_gpu_and_one_too_small_are_one_line(found, says):
    with pytest.raises(UserError, match=says) as refused:
        check_machine("gpu", found)
    assert "\n" not in str(refused.value)
    assert check_machine("gpu", [gpu(79)]) == [gpu(79)]


def test_a_small_gpu_beside_a_large_one_is_left_out(monkeypatch):
    assert check_machine("gpu", [gpu(4), gpu(80, "1")]) == [gpu(80, "1")]
    monkeypatch.setattr(machine, "needs", lambda scale: machine.Needs(gpus=2, memory_gb=22))
    with pytest.raises(UserError, match=r"needs 2 GPUs of 22 GB, GPU 0 \(toy\) has 4.0 GB"):
        check_machine("gpu", [gpu(80, "1"), gpu(4)])


@pytest.mark.parametrize(("scale", "there"), [("gpu", 79), ("smollm2", 21.9)])
def test_a_gpu_sold_as_80_or_24_gb_is_enough_and_carries_every_run(scale, there):
    assert check_machine(scale, [gpu(there)])  # what the smallest of them, of 24 GB an A10, have to give
    assert listed(scale)
    for name, total in listed(scale).items():
        assert packed(gpu(needs(scale).memory_gb), int(total * GIB), cores=1) == 1, name


@pytest.fixture
def taken(monkeypatch):
    """GB of each study's largest run, on a machine with three GPUs, the first too small, and four cores."""
    monkeypatch.delenv(CLUSTER, raising=False)
    for module in (machine, devices):
        wanted = lambda scale: machine.Needs(gpus=1, memory_gb=21.5) if scale == "gpu" else None  # noqa: E731
        monkeypatch.setattr(module, "needs", wanted)
    monkeypatch.setattr(machine, "gpus", lambda: [gpu(4, "0"), gpu(80, "3"), gpu(24, "GPU-8f")])
    monkeypatch.setattr(devices, "cores", lambda: 4)
    taken = dict.fromkeys(every_study(), 18) | {"quantization": 2}
    monkeypatch.setattr(foot, "largest", lambda study, scale: taken[study] * GIB)
    return taken


def test_what_each_study_takes_is_asked_before_any_runs(taken, monkeypatch):
    _check_ready("gpu", "")
    taken["expansion"] = 22  # the last of them
    with pytest.raises(UserError, match=r"a run takes 22.6 GB, GPU GPU-8f \(toy\) has 21.6 GB to give"):
        _check_ready("gpu", "")
    monkeypatch.setenv(CLUSTER, "tcp://elsewhere:1")
    _check_ready("gpu", "")


def test_a_plan_counts_the_workers_that_would_start(taken, monkeypatch):
    asked = []
    monkeypatch.setattr(cli, "_prepared", lambda scale, study: nullcontext((scale, [study])))
    monkeypatch.setattr("common.planning.plan", lambda study, scale, workers, by_then: asked.append(workers) or "")

    def planned(study, scale):
        cli.plan(study, scale)
        return asked.pop()

    assert planned("merging", "gpu") == 3
    assert planned("merging", "laptop") == 4
    monkeypatch.setattr(machine, "gpus", lambda: [])  # on one as small as the scale allows
    assert planned("quantization", "gpu") == 4  # cores; of 2.6 GB more would fit
    assert planned("merging", "gpu") == 1
    monkeypatch.setenv(CLUSTER, "tcp://elsewhere:1")
    assert planned("merging", "gpu") == 4


@pytest.fixture
def pinned(taken, monkeypatch, tmp_path):
    """By which GPUs workers were started, and what runs were told of a cluster meanwhile."""
    found = []

    @contextmanager
    def workers(chosen):
        found.append(chosen)
        yield "tcp://workers:1"
        found.append("ended")

    monkeypatch.setattr(devices, "workers", workers)
    monkeypatch.setattr(stage, "BUILD", tmp_path)
    monkeypatch.setattr(stage, "_study", lambda study, scale: found.append(os.environ.get(CLUSTER)))
    monkeypatch.setattr(hub, "check_read", lambda scale, names: {})
    return found


@pytest.mark.parametrize(
    ("study", "names"), [("quantization", ["3", "3", "GPU-8f", "GPU-8f"]), ("merging", ["3", "3", "GPU-8f"])]
)
def test_a_stage_has_a_studys_runs_done_by_workers_that_have_the_gpus_names(pinned, study, names):
    stage.study(study, "gpu")
    assert pinned == [names, "tcp://workers:1", "ended"]
    assert CLUSTER not in os.environ


def test_a_stage_starts_no_workers_where_the_user_names_a_cluster_or_no_gpu_is_needed(pinned, monkeypatch):
    stage.study("quantization", "tiny")
    monkeypatch.setenv(CLUSTER, "tcp://elsewhere:1")
    stage.study("quantization", "gpu")
    assert pinned == [None, "tcp://elsewhere:1"]


def test_exported_models_are_trained_by_workers_that_have_room_for_any_of_them(pinned, taken, monkeypatch):
    taken["bases"] = 36  # twice merging's
    monkeypatch.setattr(machine, "gpus", lambda: [gpu(80, "3")])

    def asked(*_, cluster, **__):
        raise UserError(f"sent to {cluster}")

    monkeypatch.setattr("common.export.sweep", asked)
    with pytest.raises(UserError, match="sent to tcp://workers:1"):
        stage.checkpoints("gpu")
    assert pinned == [["3"]]


@pytest.mark.parametrize("lora", [None, {}])
def test_a_tuning_without_an_adapter_has_rank_nought(lora):
    *_, rank, _, _ = studies._tuned("sft", None, {"batch_size": 1, "method": "sft", "lora": lora}, 16)
    assert rank == 0


@pytest.mark.parametrize("wrong", [{"gpus": 0, "memory_gb": 1}, {"gpus": 1, "memory_gb": 1, "cores": 3}, {"gpus": 1}])
def test_a_wrong_section_is_refused(monkeypatch, wrong):
    monkeypatch.setattr(machine, "has_section", lambda scale, name: True)
    monkeypatch.setattr(machine, "section", lambda scale, name: wrong)
    with pytest.raises(UserError, match=r"scales/x.yaml: machine\.\w+ is "):
        needs("x")


@pytest.mark.parametrize(
    ("listed", "devices"),
    [
        (None, ["0", "1"]),
        ("3, 1", ["3", "1"]),
        ("GPU-8f6d,MIG-1a", ["GPU-8f6d", "MIG-1a"]),
        ("2,0,-1", ["2", "0"]),
    ],
)
def test_gpus_have_the_names_by_which_this_process_was_given_them(monkeypatch, listed, devices):
    monkeypatch.delenv(VISIBLE, raising=False)
    if listed is not None:
        monkeypatch.setenv(VISIBLE, listed)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda index: SimpleNamespace(name="toy", total_memory=GIB)
    )
    assert machine.gpus() == [gpu(1, device) for device in devices]


def test_a_gpu_takes_as_many_runs_as_fit_and_as_there_are_cores():
    large = gpu(100)
    assert packed(large, 10 * GIB - CONTEXT, cores=16) == 9
    assert packed(large, GIB - CONTEXT, cores=16) == 16
    assert packed(large, 90 * GIB - CONTEXT, cores=16) == 1
    with pytest.raises(UserError, match=r"a run takes 90.1 GB, GPU 0 \(toy\) has 90.0 GB to give"):
        packed(large, int(90.1 * GIB) - CONTEXT, cores=16)


@pytest.mark.parametrize("given", [["0", "1"], ["3"]])
def test_runs_of_a_sweep_are_done_by_workers_that_each_see_one_gpu(tmp_path, given):
    cells = [{"cell": cell, "seconds": 0.5} for cell in range(4)]
    with workers(given) as address:
        swept = sweep(runs.pinned, cells, inputs={}, name="pins", cache=tmp_path, cluster=address)
    devices = {record.metrics["worker"]: record.metrics["device"] for record in swept.records}
    assert sorted(devices.values()) == given
    assert {record.metrics["threads"] for record in swept.records} == {1}
