"""What the documents say: links, commands and examples."""

import importlib.util
import inspect
import re
import sys
import tomllib
from unittest.mock import patch

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest
import torch
import typer
import yaml

from common import cli
from common.merging import METHODS, merge_state_dicts
from common.notebooks import check_parameters
from common.project import ROOT
from common.signature import mistakes, parameter_types, parameters_cell
from common.sweep import workers
from defaults import default_parameters
from pipeline import blocks

DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*DOCS, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\((?!http)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_documents_are_short_and_each_is_linked():
    assert {path.name for path in DOCS} - {"reliability.md"} == {  # that one `make faults` writes
        "reading.md", "rerunning.md", "fork.md", "sharing.md", "gpu.md", "adding-a-method.md", "adding-a-study.md",
    }  # fmt: skip
    linked = "".join(page.read_text() for page in PAGES)
    for path in DOCS:
        assert len(path.read_text().split()) < 500 or path.name == "reliability.md", path
        assert f"{path.name})" in linked


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist_with_their_options(page):
    verbs = typer.main.get_command(cli.app).commands
    targets = re.search(r"\.PHONY: (.*)", (ROOT / "Makefile").read_text())[1].split()
    text = page.read_text()
    for verb, rest in re.findall(r"\bcompendium ([a-z]+)([^`\n]*)", _code(text)):
        options = {name for parameter in verbs[verb].params for name in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", rest.partition("#")[0])) <= options, verb
    assert set(re.findall(r"\bmake ([a-z]+)", _code(text))) <= set(targets)


def _code(text):
    """What stands in code, in line or in blocks."""
    return "\n".join(re.findall(r"(?ms)^```sh\n(.*?)^```", text) + re.findall(r"`([^`\n]+)`", text))


def test_the_example_of_reading_reads_a_study(capsys):
    (example,) = blocks("reading.md", "python")
    with patch.object(pd, "read_csv", lambda path, read=pd.read_csv: read(ROOT / path)):
        exec(example, {})
    assert capsys.readouterr().out.split()[-1] == "10"  # two kinds of base models of the same size, of five seeds each


def test_the_example_of_a_method_is_one(monkeypatch):
    (example,) = blocks("adding-a-method.md", "python")
    with patch.dict(METHODS):
        exec(example, {})
        states = [{"weight": torch.randn(5, 7, generator=torch.Generator().manual_seed(seed))} for seed in range(3)]
        merged = merge_state_dicts("median", None, states)["weight"]
        ordered = torch.stack([state["weight"] for state in states]).sort(dim=0).values
        assert torch.equal(merged, ordered[1])
        with pytest.raises(ValueError, match="density"):
            merge_state_dicts("median", None, states, density=0.5)
    for room, module, registry in re.findall(
        r"`(src/common/[\w/.]+)` \| `([A-Z]+)` (?:in `([\w.]+)`|there)", (ROOT / "docs/adding-a-method.md").read_text()
    ):
        place = (ROOT / room).with_name(registry) if registry else ROOT / room
        assert f"\n{module}: dict" in place.read_text()


@pytest.mark.usefixtures("in_this_process")
def test_the_example_of_a_study_is_one(tmp_path, monkeypatch):
    module, parameters, runs, drawn = blocks("adding-a-study.md", "python")
    (section,) = (yaml.safe_load(text)["coins"] for text in blocks("adding-a-study.md", "yaml"))
    tagged = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
    notebook = nbformat.v4.new_notebook(cells=[tagged, *map(nbformat.v4.new_code_cell, (runs, drawn))])
    check_parameters(notebook, section, "scales/laptop.yaml", "coins")
    source = parameters_cell(notebook, "coins")
    assert mistakes(parameter_types(source, "coins"), section) == []
    assert default_parameters(source) == section

    path = tmp_path / "coins.py"
    path.write_text(module)
    made = importlib.util.module_from_spec(spec := importlib.util.spec_from_file_location("common.coins", path))
    monkeypatch.setitem(sys.modules, "common.coins", made)
    spec.loader.exec_module(made)
    monkeypatch.setenv("COMPENDIUM_WORK", str(tmp_path / "work"))
    monkeypatch.setattr("common.sweep.Cache", lambda folder: workers.Cache(tmp_path / "runs"))
    namespace = {}
    for cell in notebook.cells:
        exec(cell.source, namespace)
    plt.close("all")
    assert len(pd.read_csv(tmp_path / "work/results/runs.csv")) == 5
    assert {path.suffix for path in (tmp_path / "work/figures").iterdir()} == {".svg", ".png", ".csv"}
    assert namespace["decided"]["unfair"]["verdict"] == "reproduced"
    assert inspect.signature(made.toss).parameters.keys() <= {"seed", *section}


def test_the_citation_has_what_its_format_asks_for_and_the_packages_version():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()
    assert cited["version"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert cited["license"] == "MIT"
    assert (ROOT / "LICENSE").read_text().startswith("MIT License\n")
    assert f"## {cited['version']}\n" in (ROOT / "CHANGELOG.md").read_text()
