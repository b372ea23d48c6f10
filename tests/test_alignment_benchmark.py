"""The benchmark of preference tuning runs, shows every candidate, and stops where TRL does other work."""

import importlib.util
import sys

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from typer.testing import CliRunner

from common.project import ROOT


@pytest.fixture(scope="module")
def benchmark():
    folder = str(ROOT / "benchmarks")
    sys.path.insert(0, folder)  # as where it runs as a program: it takes its tables from the benchmark of scoring
    specification = importlib.util.spec_from_file_location("alignment_benchmark", f"{folder}/alignment.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    sys.path.remove(folder)
    return module


@pytest.fixture(autouse=True)
def settings(monkeypatch):
    for name in ("TOKENIZERS_PARALLELISM", "TQDM_DISABLE"):
        monkeypatch.setenv(name, "false")
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def run(benchmark, *options):
    app = typer.Typer()
    app.command()(benchmark.main)
    small = {"--width": 16, "--layers": 1, "--prompt": 2, "--words": 2, "--steps": 2, "--batch-size": 2, "--rounds": 2}
    return CliRunner().invoke(app, [*(str(word) for option in small.items() for word in option), *options])


def test_the_report_has_every_candidate_and_equal_losses(benchmark, tmp_path):
    shown = run(benchmark, "--profile", "--out", str(tmp_path / "report.md"))
    assert shown.exit_code == 0, shown.output
    heading, section, why = (tmp_path / "report.md").read_text().split("\n## ")
    assert f"torch {torch.__version__}" in heading
    assert "2 rounds of 2 steps of 2 pairs" in section
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    faster = {
        row[0]: [float(number.replace(",", "")) for number in row[1:]]
        for row in rows
        if len(row) == 5 and row[0][0] in "oT"
    }
    assert faster.keys() == {"ours", benchmark.SAME, benchmark.OWN}
    for _, ratio, low, high in faster.values():
        assert 0 < low <= ratio <= high
    assert sum(row[0].startswith("aten::") for row in rows) >= 5
    assert why.startswith("Where the difference")


def test_a_ratio_is_that_of_the_sums(benchmark):
    ours = np.array([1.0, 2.0, 3.0, 6.0])
    table = benchmark.speeds(pd.DataFrame({"ours": ours, "peer": ours[::-1] + ours}), pairs=6)
    assert table.loc["peer", "ours is faster by"] == pytest.approx(2)
    assert table["pairs per CPU second"].tolist() == pytest.approx([2, 1])
    assert table.loc["ours", ["low", "high"]].tolist() == [1, 1]


def test_other_work_stops_the_benchmark(benchmark):
    assert benchmark.check_equal([0.5, 0.4], [0.5, 0.4009]) == pytest.approx(9e-4)
    for peer in ([0.5, 0.402], [0.5, np.nan], [0.5]):
        with pytest.raises(RuntimeError, match="not the same work"):
            benchmark.check_equal([0.5, 0.4], peer)


def test_rounds_must_have_pairs_of_their_own(benchmark):
    shown = run(benchmark, "--rounds", "16")
    assert shown.exit_code == 2
    assert "allowed: 32 steps in all" in shown.output
