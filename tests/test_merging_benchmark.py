"""The benchmark of merging runs and reports; a peer that does other work stops it. Times are not tested."""

import importlib.util

import pandas as pd
import pytest
import torch
import typer
from safetensors.torch import save_file
from typer.testing import CliRunner

from common.project import ROOT

specification = importlib.util.spec_from_file_location("merging_benchmark", ROOT / "benchmarks" / "merging.py")
benchmark = importlib.util.module_from_spec(specification)
specification.loader.exec_module(benchmark)


def test_the_report_has_every_measure_and_keeps_its_notes(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark.importlib.util, "find_spec", lambda _: None)  # mergekit takes seconds to start
    threads = torch.get_num_threads()
    app = typer.Typer()
    app.command()(benchmark.main)
    out = tmp_path / "report.md"
    out.write_text("# Old\n\n## A note\n\nStays.\n")
    small = ["--hidden", "16", "--layers", "1", "--vocabulary", "50", "--rounds", "1", "--method", "slerp"]
    shown = CliRunner().invoke(app, [*small, "--out", str(out)], catch_exceptions=False)
    torch.set_num_threads(threads)
    assert shown.exit_code == 0, shown.output
    text = out.read_text()
    assert text.endswith("## A note\n\nStays.\n")
    assert "Old" not in text
    assert "mergekit is not installed" in text
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    measured = {tuple(row[:2]): [float(number) for number in row[2:6]] for row in rows[2:5]}
    assert measured.keys() == {("slerp", "ours"), ("start", "ours"), ("floor", "-")}
    for cpu, _, resident, anonymous in (measured["slerp", "ours"], measured["start", "ours"]):
        assert cpu > 0.2
        assert resident > anonymous > 20
    assert "| files, page faults, Python |" in text


def test_a_ratio_is_that_of_merges_of_the_same_round():
    rows = [
        {"round": number, "what": "ties", "who": who, "wall s": 1.0, "CPU s": cpu, "RSS MB": cpu, "anonymous MB": 1.0}
        for number in range(3)
        for who, cpu in (("ours", 1.0 + number), ("mergekit", 5.0 * (1 + number)))
    ]
    found = benchmark.table(pd.DataFrame(rows))
    assert found.loc[("ties", "mergekit"), ["CPU s", "ratio of CPU s", "ratio of anonymous MB"]].tolist() == [10, 5, 1]
    assert found.loc[("ties", "ours"), "ratio of CPU s"] != 5


def test_a_peer_that_does_something_else_is_noticed(tmp_path):
    name = "model.layers.0.mlp.up_proj.weight"
    base, step = torch.randn(40, 30), torch.randn(40, 30)
    made = {
        "base": base,
        "ours": base + step,
        "same": base + 1.01 * step,
        "turned": base - step,
        "less": base + step / 2,
    }
    for folder, tensor in made.items():
        (tmp_path / folder).mkdir()
        save_file({name: tensor}, tmp_path / folder / "model.safetensors")
    for method in ("ties", "dare_ties"):
        benchmark.check_same(method, tmp_path / "base", tmp_path / "ours", tmp_path / "same")
        with pytest.raises(RuntimeError, match="not the same work"):
            benchmark.check_same(method, tmp_path / "base", tmp_path / "ours", tmp_path / "less")
    with pytest.raises(RuntimeError, match="not the same work"):
        benchmark.check_same("ties", tmp_path / "base", tmp_path / "ours", tmp_path / "turned")


def test_a_merge_that_fails_stops_the_benchmark():
    with pytest.raises(RuntimeError, match="ended with 3"):
        benchmark.measure(["-c", "raise SystemExit(3)"])
