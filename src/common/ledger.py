"""What was planned against what it took, study by study, on this machine."""

import csv
import io
import json
import os
import re
import time
from pathlib import Path

from common.environment import FRESH
from common.files import write_atomic
from common.project import BUILD

PLANS = BUILD / "plans"
COLUMNS = ("study", "scale", "planned", "took", "finished")  # minutes, minutes, UTC


def write_plan(
    study: str, scale: str, fingerprint: dict[str, str], minutes: float | None, minutes_fresh: float | None
) -> None:
    """Keep an estimate, if it is known, until the study runs; `minutes_fresh` where no row of git stands for a run."""
    plan = {"fingerprint": fingerprint, "minutes": minutes, "minutes_fresh": minutes_fresh}
    write_atomic(PLANS / scale / f"{study}.json", json.dumps(plan, indent=1) + "\n")


def settle(study: str, scale: str, fingerprint: dict[str, str], took: float) -> str:
    """Write down what a run took, in minutes, beside its plan, and say so; a plan of other sources is none."""
    path, planned = PLANS / scale / f"{study}.json", None
    if path.exists():
        plan = _plan(path)
        path.unlink()  # what it planned is done
        if plan.get("fingerprint") == fingerprint:
            planned = plan.get("minutes_fresh" if FRESH in os.environ else "minutes")
    finished = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    row = {"study": study, "scale": scale, "planned": planned, "took": round(took, 2), "finished": finished}
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows([*_rows(), row])
    write_atomic(PLANS / "ledger.csv", text.getvalue())
    return "" if planned is None else f", planned {planned:.1f}"


def last(study: str, scale: str) -> str | None:
    """How the last plan that was followed did."""
    rows = [row for row in _rows() if (row["study"], row["scale"]) == (study, scale) and row["planned"]]
    return f"last planned {float(rows[-1]['planned']):.1f} min, took {rows[-1]['took']}" if rows else None


def _plan(path: Path) -> dict[str, object]:
    """A plan; an empty one where it is torn, as it decides nothing."""
    try:
        plan = json.loads(path.read_text())
    except ValueError:
        return {}
    return plan if isinstance(plan, dict) else {}


def _rows() -> list[dict[str, str]]:
    """Rows of the ledger, torn ones left out."""
    path = PLANS / "ledger.csv"
    text = path.read_text(errors="replace") if path.exists() else ""
    rows = csv.DictReader(io.StringIO(text.replace("\0", "")))
    return [row for row in rows if set(row) == set(COLUMNS) and _is_number(row["took"]) and _is_number(row["planned"])]


def _is_number(text: str | None) -> bool:
    return bool(re.fullmatch(r"(\d+(\.\d+)?)?", text or ""))
