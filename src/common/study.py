"""What a study's notebook works with: its inputs, its sweeps, and one place where all results go.

The pipeline's runner says by the environment where that place is. Opened by hand, in JupyterLab say, a notebook
writes to `build/lab` and never touches `results/` or `figures/`.
"""

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from IPython.display import Image, Markdown, display
from matplotlib.figure import Figure

from common.environment import CLUSTER, FRESH, SCALE, WORK
from common.errors import UserError
from common.evidence import Claim, claims_table, decide, write_claims
from common.figures import save_figure
from common.files import write_atomic
from common.machine import hold_to_cpu
from common.project import BUILD, DATA, ROOT
from common.sweep import Kept, Sweep, sweep
from common.sweep.records import Record, committed_records, table_rows, to_csv


class Study:
    """One execution of the notebook of study `name`."""

    def __init__(self, name: str):
        self.name = name
        self.scale = os.environ.get(SCALE, "laptop")  # by hand: the scale whose values the notebook holds
        hold_to_cpu(self.scale)
        pd.set_option("display.max_colwidth", None)  # claims are sentences
        self.folder = Path(os.environ.get(WORK) or BUILD / "lab" / name)
        for part in ("results", "figures"):
            shutil.rmtree(self.folder / part, ignore_errors=True)
            (self.folder / part).mkdir(parents=True)
        self._records: dict[str, tuple[str, Record]] = {}  # by key: the sweep that asked for it first

    @property
    def tokenizer(self) -> Path:
        return BUILD / "tokenizer" / self.scale

    def tokens(self, table: str, split: str) -> Path:
        """File of a table's documents as one stream of token ids, made by the pipeline; `UserError` for none of it."""
        folder = BUILD / "tokens" / self.scale
        there = sorted(path.stem for path in folder.glob("*.npy"))
        if there and f"{table}-{split}" not in there:
            raise UserError(f"{self.name}: of {table} there are no tokens to {split}; there are {', '.join(there)}")
        return folder / f"{table}-{split}.npy"

    def inputs(self, tables: list[str]) -> dict[str, Path]:
        """What runs on these tables read: tokenizer, text to train on (the first's) and held-out text of each."""
        held_out = {f"validation_{name}": self.tokens(name, "validation") for name in tables}
        return {"tokenizer": self.tokenizer, "train": self.tokens(tables[0], "train"), **held_out}

    def tables(self, names: list[str]) -> dict[str, Path]:
        """Files of tables, for runs that read their rows."""
        return {name: DATA / f"{name}.jsonl" for name in names}

    def sweep(
        self, name: str, run: Callable[..., dict], cells: list[dict[str, object]], inputs: dict[str, Path | Kept]
    ) -> pd.DataFrame:
        """Do the runs of a grid, or take them from the cache or from git, as a table: key, parameters, metrics.

        Of runs that keep files the column `kept` holds them, to be inputs of other runs.
        """
        swept: Sweep = sweep(
            run,
            cells,
            inputs=inputs,
            name=name,
            committed=committed_records(f"results/{self.scale}/{self.name}", ROOT),
            trust_committed=FRESH not in os.environ,
            cluster=os.environ.get(CLUSTER),
        )
        for record in swept.records:
            self._records.setdefault(record.key, (name, record))
        table = pd.DataFrame([_row(name, record) for record in swept.records])
        return table.assign(kept=swept.kept) if swept.kept else table

    def table(self, name: str) -> pd.DataFrame:
        """A table that runs returned, of all runs so far, each row with its run's key."""
        rows = self._table_rows(name)
        if not rows:
            raise UserError(f"no run of {self.name} returned a table {name}")
        return pd.DataFrame(rows)

    def _table_rows(self, name: str) -> list[dict[str, object]]:
        records = [record for _, record in self._records.values() if name in record.tables]
        return [row for record in records for row in table_rows(record, name)]

    def figure(self, name: str, figure: Figure, data: pd.DataFrame) -> None:
        """Save a figure with the data it was drawn from, and show it."""
        save_figure(figure, self.folder / "figures", name, data)
        place = f"figures/{self.scale}/{self.name}/{name}"
        display(Image(self.folder / "figures" / f"{name}.png", width=680))
        display(Markdown(f"`{place}.svg`, drawn from `{place}.csv`"))

    def decide(self, claims: list[Claim], evidence: dict[str, object], minimum_seeds: int) -> dict[str, dict]:
        """Test the claims, write them and show them as a table."""
        decided = decide(claims, evidence, minimum_seeds=minimum_seeds)
        write_claims(decided, self.folder / "results" / "claims.json")
        display(claims_table(decided))
        return decided

    def finish(self, metrics: dict[str, float]) -> None:
        """Write the tables: `runs.csv`, `timing.csv`, `tables/` with those the runs returned, `metrics.json`."""
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise UserError(f"metric {name} of {self.name} is {value}; allowed: a finite number")
        results = self.folder / "results"
        rows = [_row(sweep_name, record) for sweep_name, record in self._records.values()]
        write_atomic(results / "runs.csv", to_csv(rows))
        timing = [{"key": record.key, **record.timing} for _, record in self._records.values()]
        write_atomic(results / "timing.csv", to_csv(timing))
        names = dict.fromkeys(name for _, record in self._records.values() for name in record.tables)
        if not names:
            raise UserError(f"no run of {self.name} returned a table; a learning curve is the least")
        for name in names:
            write_atomic(results / "tables" / f"{name}.csv", to_csv(self._table_rows(name)))
        rounded = {name: value if isinstance(value, int) else float(f"{value:.6g}") for name, value in metrics.items()}
        write_atomic(results / "metrics.json", json.dumps(rounded, indent=1) + "\n")


def _row(sweep_name: str, record: Record) -> dict[str, object]:
    return {"key": record.key, "sweep": sweep_name, **record.cell, **record.metrics}
