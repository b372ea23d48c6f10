"""Execute a study's notebook with papermill and publish what it made, or keep nothing but its traceback."""

import logging
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from common.environment import DECLARED, SCALE, WORK
from common.errors import UserError
from common.files import write_atomic
from common.notebooks import CHECK, read_notebook, scrubbed, with_check
from common.project import ROOT
from common.signature import check_values
from common.sweep.records import from_csv
from common.verification.fingerprint import DIGITS
from common.verification.manifest import write_manifest
from common.verification.stamps import versions_stamped, versions_text

# Asked of the kernel, which has torch loaded: the kernels that torch takes decide the last bits of every sum.
CAPABILITY = "import torch\n\nprint(torch.backends.cpu.get_cpu_capability())"
CONTRACT = ("runs.csv", "tables", "timing.csv", "claims.json", "metrics.json")


class ProgressLine:
    """Standard error of a notebook, for people: a line that redraws itself on a terminal, seldom lines elsewhere."""

    def __init__(self, seconds: float = 20.0):
        self.terminal, self.seconds, self.said = sys.stderr.isatty(), seconds, 0.0

    def write(self, text: str) -> None:
        if self.terminal:
            sys.stderr.write(text)
            return
        for line in text.split("\n"):
            redrawn = line.split("\r")
            now = time.monotonic()
            if len(redrawn) == 1 and line.strip():
                sys.stderr.write(f"{line}\n")
            elif redrawn[-1].strip() and now - self.said >= self.seconds:
                self.said = now
                sys.stderr.write(f"{redrawn[-1].strip()}\n")

    def flush(self) -> None:
        sys.stderr.flush()


@dataclass(frozen=True)
class Executed:
    """A notebook that ran to its end, and the folder its results and figures are in."""

    study: str
    scale: str
    work: Path

    def publish(self, fingerprint: dict[str, str]) -> None:
        """Put results and figures in their places, the executed notebook stamped among them."""
        executed = read_notebook(self.work / "notebook.ipynb")
        timing = from_csv((self.work / "results" / "timing.csv").read_text())
        hardware = {str(row["hardware"]) for row in timing if row.get("hardware")}  # git may have rows without timing
        stamp = {
            "source": f"notebooks/{self.study}.ipynb",
            "scale": self.scale,
            **{f"{name} digest": value[:DIGITS] for name, value in fingerprint.items()},
            "versions": versions_text(versions_stamped()),
            "cpu capability": executed.cells[-1].outputs[0].text.strip(),
            "hardware": "; ".join(sorted(hardware)) or "not known",
        }
        write_atomic(self.work / "results" / "notebook.ipynb", scrubbed(executed, stamp))
        for part in ("results", "figures"):
            target = ROOT / part / self.scale / self.study
            try:
                shutil.rmtree(target, ignore_errors=True)
                target.parent.mkdir(parents=True, exist_ok=True)
                (self.work / part).replace(target)
            except OSError as error:
                kept = (self.work / part).relative_to(ROOT)
                raise UserError(f"cannot write {target}: {error.strerror}; what was made is in {kept}") from error
        write_manifest(self.scale)


def execute(study: str, scale: str, notebook: Path, parameters: dict[str, object], work: Path) -> Executed:
    """Run `notebook` in a fresh kernel. `UserError`, in one line, where a cell fails or a result is missing."""
    work.mkdir(parents=True)
    # Our progress is plain text, and nobody else's.
    os.environ |= {"PYTHONWARNINGS": "ignore:IProgress not found", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    os.environ |= {WORK: str(work), SCALE: scale, DECLARED: ",".join(parameters.get("tables", []))}
    executed, checking = work / "notebook.ipynb", work / "checking.ipynb"
    checked = with_check(read_notebook(notebook), notebook, scale, study)
    checked.cells.append(nbformat.v4.new_code_cell(CAPABILITY, metadata={"tags": [CHECK]}))
    nbformat.write(checked, checking)
    progress = ProgressLine()
    logging.getLogger("papermill").setLevel(logging.ERROR)  # it warns of parameters whose types it can't read
    try:
        papermill.execute_notebook(
            checking,
            executed,
            parameters=parameters,
            kernel_name="python3",
            cwd=str(work),
            progress_bar=False,
            stderr_file=progress,
            extra_arguments=["--log-level=CRITICAL"],  # a reader is told why a cell failed below, in one line
        )
    except PapermillExecutionError as error:
        if check_values.__name__ in error.source and error.ename == "UserError":
            raise UserError(error.evalue) from error
        reason = " ".join(f"{error.ename}: {error.evalue}".split())
        kept = executed.relative_to(ROOT)
        raise UserError(f"{study}: cell {error.cell_index + 1}: {reason} (executed notebook: {kept})") from error
    except DeadKernelError as error:
        reason = "the notebook's kernel died (killed, or out of memory?)"
        raise UserError(f"{study}: {reason}; finished runs are kept, run it again") from error
    missing = [name for name in CONTRACT if not (work / "results" / name).exists()]
    if missing or not any((work / "figures").glob("*.svg")):
        raise UserError(f"{study}: the notebook ended without {', '.join(missing) or 'a figure'}")
    return Executed(study, scale, work)
