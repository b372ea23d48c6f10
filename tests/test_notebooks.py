"""Notebooks as programs: what counts as a change, which parameters are refused, what an executed copy keeps."""

import copy
import json

import nbformat
import pytest
from pydantic import TypeAdapter, ValidationError

from common.errors import UserError
from common.notebooks import canonical, check_parameters, code_cells, read_notebook, scrubbed, with_check
from common.parameters import Distinct, Seeds, Share, check_design
from common.project import ROOT
from common.scales import has_section, section, studies
from common.signature import mistakes, parameter_types, parameters_cell
from defaults import default_parameters

PARAMETERS = (
    "from typing import Annotated, Literal\n"
    "from pydantic import Field, PositiveInt\n"
    "steps: PositiveInt = 3\n"
    "rate: Annotated[float, Field(gt=0, le=1)] = 0.5\n"
    "kinds: list[Literal['a', 'b']] = ['a']\n"
)
FITS = {"steps": 10, "rate": 0.1, "kinds": ["b"]}


def made(parameters=PARAMETERS, body="print(steps, rate, kinds)"):
    cells = [
        nbformat.v4.new_markdown_cell("# Title"),
        nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(body),
    ]
    return nbformat.v4.new_notebook(cells=cells)


def check_all(notebook, section, where="scales/x.yaml", name="study"):
    """As the pipeline does: names first, then, once the types are there, values."""
    check_parameters(notebook, section, where, name)
    problems = mistakes(parameter_types(parameters_cell(notebook, name), name), section)
    if problems:
        raise UserError(f"{where}: {'; '.join(problems)}")


def test_opening_and_running_a_notebook_is_no_change_and_editing_it_is():
    source = made()
    opened = copy.deepcopy(source)
    opened.cells[2].update(execution_count=7, id="another", outputs=[nbformat.v4.new_output("stream", text="3")])
    opened.cells[2].metadata["collapsed"] = True
    opened.metadata["language_info"] = {"name": "python", "version": "3.12.1"}
    assert canonical(opened) == canonical(source)
    opened.cells[2].source += "\n1"
    assert canonical(opened) != canonical(source)
    nbformat.validate(nbformat.reads(canonical(source), as_version=4))


def test_a_section_that_fits_passes():
    check_all(made(), FITS)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"stepz": 1}, "stepz is no parameter of study; allowed: steps, rate, kinds"),
        ({"steps": None}, r"steps is None: .*allowed: int with .*[gG]t.*0"),
        ({"steps": "10"}, r"steps is '10': .*valid integer"),
        ({"steps": 2.5}, r"steps is 2.5: .*valid integer"),
        ({"steps": True}, r"steps is True: .*valid integer"),
        ({"steps": -1}, r"steps is -1: Input should be greater than 0 \(allowed: int with .*0"),
        ({"rate": 1.5}, r"rate is 1.5: Input should be less than or equal to 1"),
        ({"rate": float("nan")}, r"rate is nan: "),
        ({"kinds": ["c"]}, r"kinds.0 is 'c': Input should be 'a' or 'b'"),
        ({"kinds": "a"}, r"kinds is 'a': Input should be a valid array"),
    ],
)
def test_a_section_that_does_not_fit_is_refused_with_name_value_and_what_is_allowed(change, says):
    with pytest.raises(UserError, match=says) as refusal:
        check_all(made(), FITS | change)
    assert str(refusal.value).startswith("scales/x.yaml: ")
    assert "\n" not in str(refusal.value)


def test_a_whole_number_is_a_number():
    check_all(made(), FITS | {"rate": 1})


def test_a_missing_parameter_is_refused_as_its_default_would_hide_it():
    with pytest.raises(UserError, match="rate is missing; study needs it"):
        check_parameters(made(), {"steps": 1, "kinds": []}, "scales/x.yaml", "study")


def test_a_parameter_that_no_cell_uses_is_refused():
    with pytest.raises(UserError, match="kinds is a parameter that study never uses"):
        check_parameters(made(body="print(steps, rate)\nkinds = 3"), FITS, "scales/x.yaml", "study")


@pytest.mark.parametrize(
    ("parameters", "says"),
    [("steps = 3", "holds `steps = 3`, allowed: name: type = value"), ("print(1)", r"holds `print\(1\)`")],
)
def test_a_parameters_cell_that_could_do_work_is_refused(parameters, says):
    with pytest.raises(UserError, match=says):
        check_parameters(made(parameters), FITS, "scales/x.yaml", "study")


@pytest.mark.parametrize(
    ("parameters", "says"),
    [("steps: PositiveFlaot = 3", "NameError: name 'PositiveFlaot' is not defined"), ("import nowhere", "nowhere")],
)
def test_a_parameters_cell_with_a_mistake_is_refused_in_one_line(parameters, says):
    with pytest.raises(UserError, match=says) as refusal:
        parameter_types(parameters, "study")
    assert "\n" not in str(refusal.value)


def test_magics_are_read_as_the_calls_they_stand_for_and_other_mistakes_are_named():
    cells = [nbformat.v4.new_code_cell(text) for text in ("%%bash\nls -l", "%time x = 1", "y = (7\n  % 2)")]
    assert [bool(source) for source in code_cells(nbformat.v4.new_notebook(cells=cells))] == [True] * 3
    assert "7\n  % 2" in code_cells(nbformat.v4.new_notebook(cells=cells))[2]
    with pytest.raises(UserError, match=r"notebook: cell 2, line 1, is not Python: "):
        code_cells(nbformat.v4.new_notebook(cells=[cells[1], nbformat.v4.new_code_cell("def f(:")]))


@pytest.mark.parametrize(
    ("kind", "value", "says"),
    [
        (Seeds, [0, 0], "each value must be there once"),
        (Seeds, [0], "at least 2 items"),
        (Distinct[float], [], "at least 1 item"),
        (Distinct[dict], [{"a": 1}, {"a": 1}], "each value must be there once"),
        (Share, 1.5, "less than 1"),
    ],
)
def test_types_of_parameters_refuse_what_makes_no_sense(kind, value, says):
    with pytest.raises(ValidationError, match=says):
        TypeAdapter(kind).validate_python(value)


def test_a_design_whose_seeds_can_not_carry_its_claims_is_refused():
    check_design([100, 101], [0, 1, 2, 3, 4], 5)
    with pytest.raises(UserError, match=r"share \[3\]"):
        check_design([3, 101], [0, 1, 2, 3, 4], 5)
    with pytest.raises(UserError, match="seeds has 2 entries; minimum_seeds asks for 5"):
        check_design([100, 101], [0, 1], 5)


def test_a_notebook_without_a_parameters_cell_is_refused():
    source = made()
    source.cells[1].metadata.pop("tags")
    with pytest.raises(UserError, match="0 cells are tagged `parameters`, allowed: one"):
        check_parameters(source, FITS, "scales/x.yaml", "study")


def test_a_missing_section_is_named():
    with pytest.raises(UserError, match=r"scales/x.yaml: there is no section for study"):
        check_parameters(made(), None, "scales/x.yaml", "study")


@pytest.mark.parametrize("content", ["", "{}", "not json", '{"cells": 3}'])
def test_a_file_that_is_no_notebook_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "x.ipynb"
    path.write_text(content)
    with pytest.raises(UserError, match="is not a notebook") as refusal:
        read_notebook(path)
    assert "\n" not in str(refusal.value)


def test_an_executed_copy_holds_no_times_no_progress_and_no_random_ids():
    def run(minute, identity):
        executed = with_check(made(), ROOT / "x.ipynb", "tiny", "study")
        assert "check_values(" in executed.cells[2].source
        executed.metadata["papermill"] = {"start_time": f"12:{minute}"}
        for number, cell in enumerate(executed.cells):
            cell.id = f"{identity}{number}"
            cell.metadata["papermill"] = {"duration": minute}
            cell.metadata["execution"] = {"iopub.status.busy": minute}
        executed.cells[3].outputs = [
            nbformat.v4.new_output("stream", name="stderr", text=f"\r{minute}%"),
            nbformat.v4.new_output("stream", name="stdout", text="3"),
        ]
        return scrubbed(executed, {"scale": "tiny"})

    assert run(1, "a") == run(2, "b")
    kept = nbformat.reads(run(1, "a"), as_version=4)
    nbformat.validate(kept)
    assert kept.metadata.compendium == {"scale": "tiny"}
    assert "| scale | `tiny` |" in kept.cells[0].source
    assert [output.text for output in kept.cells[3].outputs] == ["3"]
    assert [cell.source for cell in kept.cells[1:]] == [cell.source for cell in made().cells]


@pytest.mark.parametrize("study", studies())
def test_what_a_notebook_holds_is_the_laptop_scale_so_that_opening_it_reuses_its_runs(study):
    source = read_notebook(ROOT / "notebooks" / f"{study}.ipynb")
    assert default_parameters(parameters_cell(source, study)) == section("laptop", study)


@pytest.mark.parametrize("study", studies())
def test_every_scale_fits_every_notebook(study):
    source = read_notebook(ROOT / "notebooks" / f"{study}.ipynb")
    having = [path for path in (ROOT / "scales").glob("*.yaml") if has_section(path.stem, study)]
    assert {path.stem for path in having} >= {"tiny", "laptop", "gpu"}
    for path in having:
        check_all(source, section(path.stem, study), f"scales/{path.name}", study)


@pytest.mark.parametrize("study", studies())
def test_source_notebooks_are_clean_and_short(study):
    text = (ROOT / "notebooks" / f"{study}.ipynb").read_text()
    source = read_notebook(ROOT / "notebooks" / f"{study}.ipynb")
    code = [cell for cell in source.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert sum(bool(line.strip()) for cell in code for line in cell.source.splitlines()) < 150
    assert source.cells[0].source.startswith("# ")
    assert "/home/" not in text
    assert json.loads(text)["metadata"]["kernelspec"]["name"] == "python3"
