"""`figures/<scale>/manifest.json`: what each figure was made with.

It is read off what is published: figures, the executed notebooks' stamps, `timing.csv`. So it needs no merging: a study
that ran again changes its own rows, and rows of the others come out as they were. Like `timing.csv` it is no output of
the pipeline's: seconds and hardware are those of the last computation.
"""

import csv
import fcntl
import json
from contextlib import suppress
from pathlib import Path

from nbformat import NotebookNode

from common.errors import UserError
from common.files import digest, write_atomic
from common.notebooks import read_notebook
from common.project import BUILD, ROOT
from common.scales import studies
from common.verification.fingerprint import outdated

NAME = "manifest.json"
KINDS = ("csv", "png", "svg")
ADDED = ("injected-parameters",)  # tags of cells that an executed notebook has and its source has not


def path_of(scale: str, root: Path = ROOT) -> Path:
    return root / "figures" / scale / NAME


def write_manifest(scale: str, root: Path = ROOT) -> None:
    """Describe all figures of a scale anew, one process at a time."""
    lock = root / BUILD.name / "locks" / f"manifest-{scale}"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        write_atomic(path_of(scale, root), json.dumps(described(scale, root), indent=1, ensure_ascii=False) + "\n")


def described(scale: str, root: Path = ROOT) -> dict[str, dict[str, object]]:
    """A row for each figure of a scale, `study/figure`, from what is published.

    `seconds` are those of all runs of the figure's study, on one core each; `cell` counts the cells of the source
    notebook from one. A study whose results are torn or gone gets no rows, which is a problem of its own and keeps no
    other study from having them.
    """
    rows = {}
    for folder in sorted(path for path in (root / "figures" / scale).glob("*") if path.is_dir()):
        executed = root / "results" / scale / folder.name / "notebook.ipynb"
        with suppress(UserError, OSError, ValueError, KeyError, RecursionError):
            rows |= _of_study(folder, read_notebook(executed), executed.with_name("timing.csv"), root)
    return rows


def _of_study(folder: Path, executed: NotebookNode, timing: Path, root: Path) -> dict[str, dict[str, object]]:
    stamp, cells = executed.metadata.get("compendium", {}), cells_of_figures(executed)
    with timing.open() as file:
        seconds = [float(row["seconds"]) for row in csv.DictReader(file)]
    if not seconds:
        raise UserError(f"{timing} holds no runs")
    scale, study = folder.parent.name, folder.name
    made = {
        "parameters": f"scales/{stamp.get('scale')}.yaml: {study}",
        **{name.replace(" ", "_"): value for name, value in stamp.items() if name.endswith(" digest")},
        "versions": dict(entry.split(" ", 1) for entry in stamp.get("versions", "").split(", ") if entry),
        "hardware": stamp.get("hardware"),
        "cpu_capability": stamp.get("cpu capability"),
        "runs": len(seconds),
        "seconds": round(sum(seconds), 2),
    }
    rows = {}
    for name in sorted({path.stem for path in folder.iterdir() if path.suffix[1:] in KINDS}):
        files = {kind: folder / f"{name}.{kind}" for kind in KINDS}
        rows[f"{study}/{name}"] = {
            "scale": scale,
            "data": files["csv"].relative_to(root).as_posix(),
            "sha256": {kind: digest(path) for kind, path in files.items() if path.is_file()},
            "notebook": stamp.get("source"),
            "cell": cells.get(f"figures/{scale}/{study}/{name}"),
            **made,
        }
    return rows


def cells_of_figures(executed: NotebookNode) -> dict[str, int]:
    """By `figures/<scale>/<study>/<name>` the number of the source's cell that drew it, as the executed copy says."""
    found = {}
    own = [
        cell for cell in executed.cells[1:] if not set(ADDED) & set(cell.metadata.get("tags", []))
    ]  # after the stamp
    for number, cell in enumerate(own, start=1):
        for output in cell.get("outputs", []):
            text = "".join(output.get("data", {}).get("text/markdown", ""))
            if text.startswith("`figures/") and "`, drawn from `" in text:
                found[text[1:].split(".svg`")[0]] = number
    return found


def read_manifest(scale: str, root: Path = ROOT) -> dict[str, dict[str, object]]:
    """The manifest as it lies there; `UserError` where there is none or it can't be read."""
    path = path_of(scale, root)
    try:
        rows = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"there is no {path.relative_to(root)}: run `make figures`") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path.relative_to(root)} is not JSON: {error}") from error
    if not isinstance(rows, dict) or not all(isinstance(row, dict) for row in rows.values()):
        raise UserError(f"{path.relative_to(root)} must hold an object for each figure")
    return rows


def problems(scale: str, root: Path = ROOT) -> list[str]:
    """What is wrong with the manifest of a scale, a line each: figures and rows without each other, files altered since
    they were made, results of another scale, code, notebook or parameters other than those there now.
    """
    rows, now = read_manifest(scale, root), described(scale, root)
    drawn = {
        f"{path.parent.name}/{path.stem}" for path in (root / "figures" / scale).glob("*/*") if path.suffix[1:] in KINDS
    }
    found = [f"{name}: the figure has no row" for name in sorted(drawn - rows.keys())]
    found += [f"{name}: the row has no figure" for name in sorted(rows.keys() - drawn)]
    found += [f"{name}: its study's results can't be read" for name in sorted(drawn - now.keys())]
    for name in sorted(rows.keys() & now.keys()):
        found += [f"{name}: {line}" for line in _unlike(rows[name], now[name])]
        if rows[name].get("cell") is None:
            found.append(f"{name}: no cell of {rows[name].get('notebook')} drew it")
    for study in sorted({name.partition("/")[0] for name in rows.keys() & now.keys()}):
        row = next(row for name, row in now.items() if name.startswith(f"{study}/"))
        made_at = str(row["parameters"]).removeprefix("scales/").partition(".yaml")[0]
        if made_at != scale:
            found.append(f"{study}: results of the scale {made_at} lie where those of {scale} should")
        elif study not in studies(root):
            found.append(f"{study}: params.yaml names no such study")
        else:
            for part in outdated(study, scale, lambda name, row=row: row.get(f"{name}_digest"), root):
                found.append(f"{study}: {part}: not what it was made with: run `dvc repro`")
    return found


def altered(scale: str, study: str, root: Path = ROOT) -> list[str]:
    """Figures of a study that are not the ones that were drawn, a line each; none where there is no manifest."""
    if not path_of(scale, root).is_file():
        return []
    rows, now = read_manifest(scale, root), described(scale, root)
    mine = [name for name in rows.keys() & now.keys() if name.startswith(f"{study}/")]
    return [f"{name}: {line}" for name in sorted(mine) for line in _files(rows[name], now[name])]


def _files(row: dict[str, object], now: dict[str, object]) -> list[str]:
    sums, found = row.get("sha256"), []
    for kind in KINDS:
        if kind not in now["sha256"]:
            found.append(f"there is no {kind}")
        elif not isinstance(sums, dict) or sums.get(kind) != now["sha256"][kind]:
            found.append(f"the {kind} is not the one that was drawn")
    return found


def _unlike(row: dict[str, object], now: dict[str, object]) -> list[str]:
    """How a row differs from what is published."""
    others = [key for key in dict.fromkeys([*row, *now]) if key != "sha256" and row.get(key) != now.get(key)]
    return _files(row, now) + [f"{key} is {row.get(key)!r}, its results say {now.get(key)!r}" for key in others]
