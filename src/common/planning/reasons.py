"""Why a notebook, or a run, is not there yet: what changed since the results in git were made."""

import json
from functools import cache
from pathlib import Path

from common import git
from common.comparing import flat
from common.errors import UserError
from common.notebooks import read_notebook
from common.project import BUILD, ROOT
from common.provenance import import_closure, source_digest, versions
from common.scales import read_sections, section
from common.verification.fingerprint import DIGITS, MODELS
from common.verification.stamps import versions_apart, versions_of, versions_stamped

STAMP = {name: name for name in ("notebook", "code", "parameters", MODELS, "data")} | {"tokens": "data"}


class Changes:
    """What differs now from what a study's results at a scale were made with."""

    def __init__(self, study: str, scale: str, fingerprint: dict[str, str], root: Path = ROOT):
        self.study, self.scale, self.root = study, scale, root
        self._place = root / "results" / scale / study / "notebook.ipynb"
        self.stamp = self._stamp()
        self.parts = [
            part
            for name, part in STAMP.items()
            if self.stamp.get(f"{name} digest", "") != fingerprint.get(name, "")[:DIGITS]
        ]
        changed = versions_apart(versions_of(self.stamp), versions_stamped())
        if changed:
            # What is no part of a run's key explains no run.
            keyed = set(changed) & versions().keys()
            self.parts.append("versions" if keyed else f"version of {', '.join(sorted(changed))}")

    def _stamp(self) -> dict[str, str]:
        """What the executed notebook says it was made with; nothing where there is none, or it is torn."""
        try:
            return dict(read_notebook(self._place).metadata["compendium"])
        except (UserError, KeyError, TypeError, ValueError):
            return {}

    def of_notebook(self) -> list[str]:
        """Why the notebook runs again; nothing where it doesn't."""
        if not self.stamp:
            return ["its results can't be read" if self._place.exists() else "there are no results yet"]
        imported = json.loads((BUILD / "notebooks" / f"{self.study}.code.json").read_text())
        told = {"parameters": self._knobs(), "code": sorted(self.modules() & imported.keys())}
        return [f"{part} ({', '.join(told[part])})" if told.get(part) else part for part in dict.fromkeys(self.parts)]

    def of_run(self, run: dict[str, object], there: set[str]) -> str:
        """Why a run is to be done, as far as can be told: `run` is an entry of a rehearsal's account."""
        if not run["done_before"]:
            return "missing"
        if run["differs"]:
            return f"parameter {', '.join(run['differs'])}"
        found = ["inputs"] if set(run["inputs"]) - there else []
        found += [part for part in (MODELS, "data", "versions") if part in self.parts]
        modules = self.modules() and sorted(self.modules() & _closure(run["module"]))
        # Its parameters, inputs, models, data and versions are as they were: what is left of its key is its code.
        return ", ".join(found + [f"code {name.removeprefix('common.')}" for name in modules]) or "code"

    def _knobs(self) -> list[str]:
        """Names of the parameters that dvc.lock has otherwise."""
        locked = read_sections(self.root / "dvc.lock").get("stages", {})
        stage = locked.get(f"study@{self.study}-{self.scale}", {"params": {}})
        old = dict(flat(stage["params"].get(f"scales/{self.scale}.yaml", {}).get(self.study, {})))
        now = dict(flat(section(self.scale, self.study, self.root)))
        return [name for name in {**old, **now} if old.get(name, ...) != now.get(name, ...)]

    @cache  # noqa: B019 (there are as many as studies)
    def modules(self) -> set[str]:
        """Modules whose code, comments aside, is not that of the commit that holds the results."""
        place = f"results/{self.scale}/{self.study}/runs.csv"
        commit = git.told(self.root, "log", "-1", "--format=%H", "--", place).strip()
        changed = set()
        for name in git.told(self.root, "diff", "--name-only", commit, "--", "src/common").split() if commit else []:
            path = self.root / name
            now, old = path.read_text() if path.exists() else "", git.told(self.root, "show", f"{commit}:{name}")
            if path.suffix == ".py" and source_digest(now) != source_digest(old):
                parts = path.relative_to(self.root / "src").with_suffix("").parts
                changed.add(".".join(parts).removesuffix(".__init__"))
        return changed


@cache
def _closure(module: str) -> set[str]:
    return set(import_closure([f"import {module}"]))
