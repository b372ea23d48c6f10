"""A notebook's code cells carried out in this very process, for whoever wants something else of it than its results."""

from collections.abc import Mapping

from common.errors import UserError
from common.notebooks import check_parameters, code_cells, read_notebook
from common.project import ROOT
from common.scales import section
from common.signature import mistakes, parameter_types, parameters_cell


def checked_cells(study: str, scale: str) -> tuple[list[str], int, dict[str, object]]:
    """Sources of a study's code cells, the place among them of its parameters, and their values at a scale.

    Raises `UserError` where values and notebook don't fit each other.
    """
    notebook, parameters = read_notebook(ROOT / "notebooks" / f"{study}.ipynb"), section(scale, study)
    check_parameters(notebook, parameters, f"scales/{scale}.yaml", study)
    if problems := mistakes(parameter_types(parameters_cell(notebook, study), study), parameters):
        raise UserError(f"scales/{scale}.yaml: {'; '.join(problems)}")
    tagged = ["parameters" in cell.metadata.get("tags", []) for cell in notebook.cells if cell.cell_type == "code"]
    return code_cells(notebook), tagged.index(True), parameters


def carry_out(study: str, cells: list[str], place: int, parameters: Mapping[str, object]) -> None:
    """Execute cells one after another; after the one at `place` the parameters have the given values."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    for number, source in enumerate(cells):
        exec(compile(source, f"{study}.ipynb", "exec"), namespace)
        if number == place:
            namespace.update(parameters)
