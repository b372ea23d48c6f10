"""Read the tables that the corpus stage wrote; apart from their builders, so that a new table reruns no study."""

import json
import os
from pathlib import Path

import pandas

from common.environment import DECLARED
from common.errors import UserError
from common.project import DATA


def read_table(name: str, root: Path = DATA) -> pandas.DataFrame:
    """One table, a row for each line of `root/NAME.jsonl`, with the types that the JSON has.

    Rows stand in an order that follows neither time nor label. Raises `UserError` for an unknown table, for one that
    the study run by the pipeline has not declared (`COMPENDIUM_TABLES`, comma-separated, when it is set), and for
    data that are missing or damaged.
    """
    declared = os.environ.get(DECLARED)
    if declared is not None and name not in (allowed := [part.strip() for part in declared.split(",")]):
        raise UserError(
            f"table {name!r} is not among those this study declares ({', '.join(allowed) or 'none'}): "
            "the pipeline would not see it change; declare it"
        )
    there = sorted(path.stem for path in root.glob("*.jsonl"))
    if not there:
        raise UserError(f"{root} holds no tables: run `dvc repro data.dvc`")
    if name not in there:
        raise UserError(f"no table {name!r}: choose from {', '.join(there)}")
    path = root / f"{name}.jsonl"
    try:
        with path.open(encoding="utf-8") as file:
            return pandas.DataFrame([json.loads(line) for line in file])
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error}): run `dvc repro data.dvc`") from error
