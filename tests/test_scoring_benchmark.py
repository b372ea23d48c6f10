"""The benchmark of scoring runs, shows every candidate, and stops where a peer does other work."""

import importlib.util

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from typer.testing import CliRunner

from common.project import ROOT

specification = importlib.util.spec_from_file_location("scoring_benchmark", ROOT / "benchmarks" / "scoring.py")
benchmark = importlib.util.module_from_spec(specification)
specification.loader.exec_module(benchmark)

SMALL = ("--width", "16", "--layers", "1", "--words", "1", "--items", "3", "--rounds", "6")


@pytest.fixture(autouse=True)
def settings(monkeypatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def run(*options):
    app = typer.Typer()
    app.command()(benchmark.main)
    return CliRunner().invoke(app, options)


def test_the_report_has_every_candidate_of_every_model(tmp_path):
    shown = run(*SMALL, "--words", "2", "--profile", "--out", str(tmp_path / "report.md"))
    assert shown.exit_code == 0, shown.output
    heading, *sections = (tmp_path / "report.md").read_text().split("\n## ")
    assert f"torch {torch.__version__}" in heading
    assert ("lm-eval is not installed" in heading) == (not benchmark.installed())
    expected = {"ours"} | (
        {f"lm-eval, batch {size}" for size in (1, 8, 64, "auto")} if benchmark.installed() else set()
    )
    assert [section.splitlines()[0][-1] for section in sections[:2]] == ["1", "2"]  # words in a choice
    for section in sections[:2]:
        rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
        speeds = {row[0]: float(row[1].replace(",", "")) for row in rows if row[0].startswith(("ours", "lm-eval"))}
        assert speeds.keys() == expected
        assert min(speeds.values()) > 0
        shares = {row[0]: float(row[2]) for row in rows if row[0].startswith(("aten::", "Python"))}
        assert len(shares) == 11
        assert 0 < sum(shares.values()) <= 100.5  # three digits each


def test_a_ratio_is_that_of_passes_of_the_same_round():
    ours = np.arange(1.0, 31.0)
    table = benchmark.speeds(pd.DataFrame({"ours": ours, "peer": 3 * ours}), requests=31)
    assert table.loc["peer", ["ours is faster by", "low", "high"]].tolist() == pytest.approx([3, 3, 3])
    assert table["requests per CPU second"].tolist() == pytest.approx([2, 2 / 3])


def test_a_peer_that_scores_something_else_stops_the_benchmark(monkeypatch):
    ours = np.array([-1.0, -2.0])
    assert benchmark.check_equal(ours, {"peer": ours + 5e-6}) == pytest.approx(5e-6)
    for difference in (2e-5, np.nan):
        with pytest.raises(RuntimeError, match=r"peer differs from ours .* not the same work"):
            benchmark.check_equal(ours, {"peer": ours - np.array([0, difference])})
    plain = benchmark.scorers
    monkeypatch.setattr(benchmark, "scorers", lambda *rest: plain(*rest) | {"peer": lambda: np.zeros(12)})
    with pytest.raises(RuntimeError, match="peer differs from ours"):
        raise run(*SMALL).exception


def test_every_width_needs_its_layers():
    shown = run(*SMALL, "--width", "32")
    assert shown.exit_code == 2
    assert "2 widths and 1 numbers of layers" in shown.output
