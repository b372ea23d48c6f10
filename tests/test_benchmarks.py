"""The benchmark of quantised steps runs and shows every recipe; how long anything took is not tested."""

import importlib.util

import pandas as pd
import pytest
import torch
import typer
from typer.testing import CliRunner

from common.project import ROOT

specification = importlib.util.spec_from_file_location("benchmark", ROOT / "benchmarks" / "quantization.py")
benchmark = importlib.util.module_from_spec(specification)
specification.loader.exec_module(benchmark)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_every_table_has_a_row_for_every_recipe():
    app = typer.Typer()
    app.command()(benchmark.main)
    small = {"--width": 16, "--tokens": 8, "--model-width": 16, "--windows": 1, "--rounds": 6}
    options = [str(word) for option in small.items() for word in option]
    shown = CliRunner().invoke(app, [*options, "--profile"], catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    heading, *tables = shown.stdout.split("\n\n")
    assert f"torch {torch.__version__}, threads: 1, rounds: 6" in heading
    assert ("torchao" in heading) == (importlib.util.find_spec("torchao") is None)
    times, profiles = tables[::2], tables[1::2]
    assert [table.split(",")[0] for table in times] == ["Linear", "gpt2"]
    for table in times:
        rows = [line.rsplit(maxsplit=4) for line in table.splitlines()[2:]]
        assert {"plain", *benchmark.RECIPES} <= {name for name, *_ in rows}
        for name, *numbers in rows:
            _, ratio, low, high = map(float, numbers)
            assert 0 < low <= ratio <= high, name
    assert all("_QuantizedProduct " in table for table in profiles)


def test_a_ratio_is_that_of_steps_of_the_same_round():
    plain = torch.arange(1.0, 31.0).double().numpy()
    table = benchmark.ratios(pd.DataFrame({"plain": plain, "slower": 1.5 * plain}))
    assert table.loc["slower", ["ratio", "low", "high"]].tolist() == pytest.approx([1.5, 1.5, 1.5])
    assert table.loc["plain", "ms"] == pytest.approx(15_500)


def test_a_peer_that_does_not_quantise_is_noticed():
    plain = torch.linspace(1, 2, 10)
    benchmark.check_torchao(plain, plain * 1.01, plain * 0.99)
    for peer in (plain, plain * 1.1, plain * float("nan")):
        with pytest.raises(RuntimeError, match="not the same work"):
            benchmark.check_torchao(plain, plain * 1.01, peer)
