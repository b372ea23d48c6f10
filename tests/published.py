"""A small checkout with one study's results at the tiny scale, as the pipeline would publish them."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
from nbformat import NotebookNode

from common.evidence import Claim, claims_table, decide, mean_interval, prose, write_claims
from common.figures import save_figure
from common.notebooks import scrubbed
from common.sweep.records import to_csv
from common.verification.fingerprint import DIGITS, sources
from common.verification.manifest import write_manifest

SEEDS = (10, 11, 12, 13, 14)
ARMS = {"plain": 0.0, "wide": 0.4, "tall": 0.1}
VERSIONS = "python 3.11, torch 2.13.0, matplotlib 3.11.2"
PARAMETERS = "tables: list[str] = ['sotu']\nsteps: int = 5"


@dataclass
class Project:
    """A folder with git, and what its study `toy` publishes."""

    root: Path

    def git(self, *arguments: str) -> str:
        who = ("-c", "user.name=test", "-c", "user.email=test@test")
        command = ["git", "-C", str(self.root), *who, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "-m", "a step")

    def file(self, name: str) -> Path:
        part, _, rest = name.partition("/")
        return self.root / part / "tiny/toy" / rest

    def edit(self, name: str, old: str, new: str) -> None:
        text = self.file(name).read_text()
        assert old in text, (name, old)
        self.file(name).write_text(text.replace(old, new, 1))

    def publish(self, noise: float = 0.0, shift: float = 0.0, stamp: dict[str, str] | None = None) -> None:
        """Make the results. `noise`: standard deviation of what another machine adds to each run; seeds have 0.05.

        `shift`: what is added to each run of the arm `wide`.
        """
        other, rng = np.random.default_rng(1), np.random.default_rng(0)
        rows, curves = [], []
        for arm, effect in ARMS.items():
            for seed in SEEDS:
                loss = 2 - effect + 0.05 * rng.standard_normal() + noise * other.standard_normal()
                loss -= shift * (arm == "wide")
                key = f"{arm}{seed}"
                model = {"key": key, "sweep": "main", "model": f"{arm}_{seed}", "arm": arm, "steps": 5, "seed": seed}
                rows.append(model | {"loss": loss, "tokens": 100 + seed})
                curves += [{"key": key, "part": "all", "step": step, "loss": loss + 1 / (1 + step)} for step in (0, 5)]
        for part in ("results", "figures"):
            self.file(part).mkdir(parents=True, exist_ok=True)
        self.file("results/runs.csv").write_text(to_csv(rows))
        timing = [{"key": row["key"], "seconds": 1.5, "memory_mb": 9, "hardware": "Linux x86_64"} for row in rows]
        self.file("results/timing.csv").write_text(to_csv(timing))
        self.file("results/tables").mkdir(exist_ok=True)
        self.file("results/tables/curve.csv").write_text(to_csv(curves))
        self._conclude(pd.DataFrame(rows), stamp or {})
        write_manifest("tiny", self.root)

    def _conclude(self, runs: pd.DataFrame, stamp: dict[str, str]) -> None:
        losses = runs.pivot(index="seed", columns="arm", values="loss")
        gains = {arm: losses["plain"] - losses[arm] for arm in ("wide", "tall")}
        about = {"paper": None, "ours": "loss, plain minus it", "test": "greater", "detectable": 0.05, "figure": "arms"}
        claims = [
            Claim(id="wide", statement="width helps", margin=0.1, **about),
            Claim(id="tall", statement="depth helps", margin=0.3, **about),
        ]
        decided = decide(claims, gains)
        write_claims(decided, self.file("results/claims.json"))
        metrics = {"wide": float(f"{gains['wide'].mean():.6g}"), "steps": 5}
        self.file("results/metrics.json").write_text(json.dumps(metrics))
        drawn = [mean_interval(losses[arm]) for arm in ARMS]
        data = pd.DataFrame(drawn, index=list(ARMS)).rename_axis("arm").reset_index()
        data = data.rename(columns={"mean": "estimate"}).assign(worst=losses[list(ARMS)].max().to_numpy())
        self._draw(data)
        words = "Width {wide:helps|does not help|may help} ({wide.estimate:+.2f}), depth {tall:does|does not|may} too."
        said = prose(words, decided)
        self._write_notebook(said.data, claims_table(decided), stamp)

    def _draw(self, data: pd.DataFrame) -> None:
        with plt.style.context("default", after_reset=True):  # whatever style this process drew in before
            figure, ax = plt.subplots(figsize=(2, 1.5))
            ax.errorbar(data["arm"], data["estimate"], yerr=data["high"] - data["estimate"], fmt="o")
            ax.set(xlabel="arm", ylabel="loss")
            save_figure(figure, self.file("figures"), "arms", data)

    def _write_notebook(self, said: str, table: pd.DataFrame, stamp: dict[str, str]) -> None:
        source = nbformat.read(self.root / "notebooks/toy.ipynb", as_version=4)
        executed = NotebookNode(source, cells=list(source.cells))
        injected = nbformat.v4.new_code_cell("# Parameters\nsteps = 5", metadata={"tags": ["injected-parameters"]})
        executed.cells.insert(2, injected)
        png = self.file("figures/arms.png").read_bytes()
        output = nbformat.v4.new_output
        shown = "`figures/tiny/toy/arms.svg`, drawn from `figures/tiny/toy/arms.csv`"
        executed.cells[3].outputs = [
            output("display_data", {"image/png": _base64(png)}),
            output("display_data", {"text/markdown": shown}),
        ]
        executed.cells[4].outputs = [
            output("execute_result", {"text/html": table.to_html()}),
            output("display_data", {"text/markdown": said}),
        ]
        digests = {f"{name} digest": value[:DIGITS] for name, value in sources("toy", "tiny", self.root).items()}
        made = {"source": "notebooks/toy.ipynb", "scale": "tiny", **digests, "data digest": "d" * DIGITS}
        made |= {"versions": VERSIONS, "cpu capability": "AVX2", "hardware": "Linux x86_64"} | stamp
        self.file("results/notebook.ipynb").write_text(scrubbed(executed, made))


def _base64(content: bytes) -> str:
    import base64

    return base64.b64encode(content).decode()


def new_project(root: Path) -> Project:
    """A project whose results at the tiny scale are made and committed."""
    for folder in ("scales", "notebooks", "src/common", "build"):
        (root / folder).mkdir(parents=True)
    (root / "params.yaml").write_text("scale: tiny\nstudies:\n  - toy\n")
    (root / "scales/tiny.yaml").write_text("toy: {tables: [sotu], steps: 5}\n")
    (root / "scales/laptop.yaml").write_text("toy: {tables: [sotu], steps: 500}\n")
    (root / "src/common/__init__.py").write_text("")
    (root / "src/common/toy.py").write_text("ANSWER = 42\n")
    (root / ".gitignore").write_text("/build/\n")
    cells = [
        nbformat.v4.new_markdown_cell("# A toy"),
        nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("from common import toy\n\nstudy.figure('arms', toy.ANSWER, steps, tables)"),
        nbformat.v4.new_code_cell("decided"),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), root / "notebooks/toy.ipynb")
    project = Project(root)
    project.git("init", "--quiet")
    project.publish()
    project.commit()
    return project
