"""A study's figures drawn again from the tables that git holds: without a run, data, models or a GPU.

The notebook's cells are executed in a process of their own in which `sweep` does no run and gives each cell its row of
the committed tables. Keys play no part in that: they need the data, and change with code and versions. A row belongs to
a cell when it has the cell's parameters and its sweep's name, and the notebook must in the end have asked for every row
there is, in their order: it then writes `runs.csv` as git holds it.
"""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from inspect import signature
from pathlib import Path

import common.study
from common.cells import carry_out, checked_cells
from common.commands import run
from common.environment import SCALE, WORK
from common.errors import UserError
from common.files import atomic_folder
from common.project import CACHE, ROOT
from common.scales import section
from common.study import Study
from common.sweep import Kept, Sweep
from common.sweep.records import Cache, Record, committed_records
from common.sweep.workers import Job, Pool
from common.verification.snapshots import committed
from common.verification.study import CLAIMS, RUNS


class Rows:
    """Stands where `common.sweep.sweep` does: a cell's record is its row among those that git holds."""

    def __init__(self, records: Mapping[str, Record], place: str):
        self.records, self.place = list(records.values()), place
        self.functions: dict[str, set[str]] = {}  # by sweep, what it ran
        self.told: dict[str, Record] = {}  # by sweep, parameters and runs that are inputs, where parameters don't tell

    def __call__(
        self, run: Callable[..., dict], cells: list[dict], *, inputs: Mapping[str, object], name: str, **_: object
    ) -> Sweep:
        self.functions.setdefault(name, set()).add(run.__qualname__)
        # A run that two sweeps ask for has one row, which names the first of them.
        same = {other for other, ran in self.functions.items() if run.__qualname__ in ran}
        rows: dict[str, list[Record]] = {}
        # What some cell lacks its row has empty.
        names = list(dict.fromkeys(name for cell in cells for name in cell))
        for record in self.records:
            if record.metrics["sweep"] in same:
                rows.setdefault(_values(record.metrics, names), []).append(record)
        made = {key: kept.job.key for key, kept in inputs.items() if isinstance(kept, Kept)}
        fixed = made.keys() & signature(run).parameters.keys()
        records = []
        for cell in cells:
            named = fixed | {value for value in cell.values() if isinstance(value, str)}
            found = rows.get(_values(cell, names), [])
            records.append(self._row(found, cell, name, sorted(key for each, key in made.items() if each in named)))
        if "keep" not in signature(run).parameters:
            return Sweep(records, 0, [])
        pool = Pool(run, Cache(CACHE / "runs"), 1)  # nobody opens what was kept: it is input of runs alone
        return Sweep(records, 0, [Kept(Job(record.key, "", record.cell, {}), pool, name) for record in records])

    def _row(self, found: list[Record], cell: dict[str, object], name: str, made: list[str]) -> Record:
        own = [record for record in found if record.metrics["sweep"] == name] or found
        if len(own) > 1:  # of other models of one name: rows stand in the order in which they were asked for
            asked = json.dumps([name, cell, made], sort_keys=True, default=str)
            free = [record for record in own if record.key not in {each.key for each in self.told.values()}]
            own = [self.told.get(asked) or self.told.setdefault(asked, free[0])] if free or asked in self.told else []
        if len(own) != 1:
            shown = json.dumps(cell, sort_keys=True, default=str)
            raise UserError(
                f"{self.place} has {len(own)} rows of sweep {name} with {shown[:200]}: parameters, notebook or "
                "versions are not those that it was made with; run the study"
            )
        metrics = {key: value for key, value in own[0].metrics.items() if key not in cell and key != "sweep"}
        return Record(own[0].key, own[0].run, cell, metrics, own[0].tables, own[0].timing)


def _values(row: Mapping[str, object], names: list[str]) -> str:
    return json.dumps([row.get(name) for name in sorted(names)], sort_keys=True)


def tabled(studies: list[str], scale: str) -> list[str]:
    """Studies of which git holds tables at a scale; `UserError` where there is none."""
    there = [study for study in studies if RUNS in committed(scale, study, "HEAD", ROOT)]
    if not there:
        raise UserError(f"git holds no tables of {', '.join(studies)} at the scale {scale}: nothing to draw from")
    return there


def redraw(study: str, scale: str) -> None:
    """Draw the figures of a study at a scale anew in `figures/<scale>/<study>`.

    Raises `UserError`, and leaves all as it was, where git holds no tables of it, where they are not what the notebook
    asks for, and where a claim would be decided otherwise than the committed one: then code has changed since.
    """
    tabled([study], scale)
    before = committed(scale, study, "HEAD", ROOT)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "common.redrawing", study, scale, folder]
        # The work tree's own source, whatever else is installed.
        environment = os.environ | {"MPLBACKEND": "agg", "PYTHONPATH": str(ROOT / "src")}
        ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        if ended.returncode:
            said = ended.stderr.strip().splitlines() or ["it was killed"]
            raise UserError(f"{study} can't be drawn: {said[-1].removeprefix('error: ')}")
        for name in (RUNS, CLAIMS):
            if (Path(folder) / name).read_bytes() != before[name]:
                raise UserError(
                    f"{study} is not drawn: from the tables that git holds, {name} comes out otherwise than git has "
                    "it: code has changed since; run the study"
                )
        with atomic_folder(ROOT / "figures" / scale / study) as figures:
            shutil.copytree(Path(folder) / "figures", figures, dirs_exist_ok=True)


def _draw(study: str, scale: str, folder: str) -> None:
    """Leave figures and results of a study in a folder."""
    os.environ |= {WORK: folder, SCALE: scale}
    cells, place, parameters = checked_cells(study, scale)
    common.study.sweep = Rows(committed_records(f"results/{scale}/{study}", ROOT), f"results/{scale}/{study}/runs.csv")
    Study.tokenizer = _tokenizer(Path(folder) / "tokenizer", section(scale, "tokenizer")["vocab_size"])
    _without_given_models()
    with contextlib.redirect_stdout(io.StringIO()):  # what the notebook shows
        carry_out(study, cells, place, parameters)


def _tokenizer(folder: Path, vocab_size: int) -> Path:
    """A tokenizer of that many entries: a model's size depends on no more, and the words are not in git."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = {str(number): number for number in range(vocab_size)}
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words))).save_pretrained(folder)
    return folder


def _without_given_models() -> None:
    """Have this process look for no models and data of others: they are inputs of runs alone."""
    from common import hub
    from common.analysis import judging
    from common.bases import locating

    locating.located = lambda given, scale: Path()
    judging.located = lambda judges, scale: {}
    hub.check_place = lambda scale, name, item: None


if __name__ == "__main__":
    run(lambda: _draw(*sys.argv[1:]))
