"""The benchmark for GPUs runs on a CPU at the tiny scale; the page says what it was, and was not, run on."""

import importlib.util
import re
from dataclasses import replace

import pytest
import torch
import typer
from typer.testing import CliRunner

from common.footprint import GIB, OF_STUDY, trainings
from common.project import ROOT

specification = importlib.util.spec_from_file_location("gpu_benchmark", ROOT / "benchmarks" / "gpu.py")
benchmark = importlib.util.module_from_spec(specification)
specification.loader.exec_module(benchmark)


@pytest.fixture
def called(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    app = typer.Typer()
    app.command()(benchmark.main)
    return lambda *options: CliRunner().invoke(app, list(map(str, options)))


def rows(page, heading):
    """Cells of the table below a heading, by study and training."""
    part = re.split(r"(?m)^## ", page)
    table = next(each for each in part if each.startswith(heading))
    cells = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")]
    return {tuple(row[:2]): row[2:] for row in cells[1:]}


def test_every_training_is_computed_and_measured_on_a_cpu(called, tmp_path):
    page = tmp_path / "page.md"
    shown = called("--scale", "tiny", "--study", "quantization", "--cpu", "--steps", 2, "--side", 64, "--out", page)
    assert shown.exit_code == 0, shown.output
    names = {("quantization", each.name) for each in trainings("quantization", "tiny")}
    computed, measured = rows(page.read_text(), "Memory"), rows(page.read_text(), "Speed")
    assert computed.keys() == measured.keys() == names
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
    first, second = rows("## Speed\n" + benchmark.speed(several, 1, 16), "Speed").values()
    assert first[1:] == ["does not fit", "–", "–"]
    assert second[1:] == ["10", "50.0%", "1.00"]
