"""What verifying found, as one table for people, and the level that holds of all."""

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import nbformat
from rich import box
from rich.console import Console
from rich.table import Table

from common.errors import UserError
from common.project import ROOT
from common.scales import section
from common.verification import stamps
from common.verification.fingerprint import outdated
from common.verification.levels import Finding, Level, weakest
from common.verification.manifest import altered
from common.verification.snapshots import Snapshot, changed_modules, commit_of, committed, present
from common.verification.study import NOTEBOOK, UNREADABLE, compare_study

PARTS = ("everything", "runs", "tables", "claims", "metrics", "figure data", "pictures", "notebook", "other files")
COLOURS = dict(zip(Level, ("green", "green", "cyan", "yellow", "red"), strict=True))
UNEXPLAINED = (
    "nothing that could explain it: altered by hand? (Or drawn again from tables, or made on a machine that differs in "
    "what no stamp notes.)"
)
WIDTH = 120  # where the output is no terminal


@dataclass(frozen=True)
class Verified:
    """One study compared with a commit. `causes`: how they were made otherwise; `altered`: what was changed since;
    `outdated`: sources in the work tree that are not those that the results here were made with.

    Without findings where the commit holds nothing of the study.
    """

    study: str
    findings: list[Finding]
    causes: list[str]
    altered: list[str]
    outdated: list[str]

    @property
    def level(self) -> Level | None:
        return weakest(finding.level for finding in self.findings) if self.findings else None


def verify(studies: list[str], scale: str, ref: str, root: Path = ROOT) -> list[Verified]:
    """Compare the results of studies that are here with those that a commit holds.

    Raises `UserError` on an unknown scale or commit, where the commit holds none of the studies, and where nothing that
    it holds of them is here.
    """
    commit = commit_of(ref, root)
    found, here = [], False
    for study in studies:
        section(scale, study, root)
        old, new = committed(scale, study, commit, root), present(scale, study, root)
        here |= bool(old and new)
        found.append(_verified(scale, study, commit, root, old, new))
    held = [one.study for one in found if one.findings]
    if not held:
        raise UserError(f"{ref} holds no results of {', '.join(studies)} at the scale {scale}: nothing to compare with")
    if not here:
        raise UserError(f"{ref} holds results/{scale}/{held[0]}, and they are not here: run `make figures`")
    return found


def _verified(scale: str, study: str, commit: str, root: Path, old: Snapshot, new: Snapshot) -> Verified:
    if not old:
        return Verified(study, [], [], [], [])
    if not new:
        gone = Finding(study, "everything", "results/results", Level.NONE, ("not here: run `make figures`",))
        return Verified(study, [gone], ["not known, as its results are not here"], [], [])
    findings, causes = compare_study(study, old, new)
    if causes[:1] == [stamps.CODE]:
        causes[0] += _named(changed_modules(study, commit, root))
    try:
        changed = altered(scale, study, root)
    except UserError as error:
        changed = [str(error)]
    return Verified(study, findings, causes, changed, _outdated(study, scale, new, root))


def _outdated(study: str, scale: str, new: Snapshot, root: Path) -> list[str]:
    """Sources that have moved on since results were made; none where their stamp can't be read, which is told above."""
    try:
        stamp = stamps.stamp_of(nbformat.reads(new[NOTEBOOK].decode(), as_version=4))
    except UNREADABLE:
        return []
    try:
        return outdated(study, scale, lambda name: stamp.get(f"{name} digest"), root)
    except (UserError, SyntaxError) as error:
        return [f"sources ({error})"]


def _named(modules: list[str]) -> str:
    shown = [name.removeprefix("common.") for name in modules[:5]]
    return f" ({', '.join(shown)}{', …' if len(modules) > 5 else ''})" if modules else ""


def show(verified: list[Verified], scale: str, ref: str) -> Level:
    """Print the table, a row for each kind of file, or for each file that differs where there is one study.

    Returns the level that holds of all.
    """
    level = weakest(one.level for one in verified if one.level is not None)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"{scale}, compared with {ref}", title_justify="left")
    for name in ("study", "what", "agrees", "what differs most, and likely why"):
        table.add_column(name, overflow="fold", no_wrap=name == "study")
    for one in verified:
        if one.level is None:
            table.add_row(one.study, "everything", "–", f"{ref} has nothing of it to compare with")
            continue
        rows = _by_file(one) if len(verified) == 1 else _by_part(one)
        if one.level is Level.BITWISE:
            rows = [("everything", Level.BITWISE, f"{len(one.findings)} files")]
        for number, (what, agrees, line) in enumerate(rows):
            shown = f"[{COLOURS[agrees]}]{agrees.name.lower()}"
            table.add_row(one.study if not number else "", what, shown, line.replace("[", r"\["))
        if one.level is not Level.BITWISE:
            table.add_row("", "made with", "", "; ".join(_why(one)).replace("[", r"\["))
        table.add_section()
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else WIDTH)
    console.print(table)
    for line in _moved_on(verified):
        console.print(line, markup=False, soft_wrap=True)
    held = {one.study: "not compared" if one.level is None else one.level.name.lower() for one in verified}
    console.print(f"holds: {level.name.lower()} ({', '.join(f'{study} {name}' for study, name in held.items())})")
    return level


def _by_part(one: Verified) -> list[tuple[str, Level, str]]:
    rows = []
    for part in PARTS:
        findings = [finding for finding in one.findings if finding.part == part]
        if findings:
            worst = max(findings, key=lambda finding: finding.level)
            counts = Counter(finding.level for finding in findings)
            spread = ", ".join(f"{counts[level]} {level.name.lower()}" for level in sorted(counts))
            line = f"{_file(worst)}: {worst.notes[0]}" if worst.notes else _keyed(worst)
            rows.append((part, worst.level, " · ".join(x for x in (spread if len(findings) > 1 else "", line) if x)))
    return rows


def _by_file(one: Verified) -> list[tuple[str, Level, str]]:
    rows = []
    for part in PARTS:
        findings = [finding for finding in one.findings if finding.part == part]
        for level in sorted({finding.level for finding in findings}, reverse=True):
            alike = [finding for finding in findings if finding.level is level]
            told = [finding for finding in alike if finding.notes]
            rows += [
                (_file(finding), level, "; ".join(finding.notes[:3]) + _more(len(finding.notes) - 3))
                for finding in told
            ]
            if rest := [_file(finding) for finding in alike if not finding.notes]:
                names = f"{len(rest)} files" if level is Level.BITWISE and len(rest) > 1 else ", ".join(rest)
                keyed = next((_keyed(finding) for finding in alike if not finding.notes), "")
                rows.append((part, level, f"{keyed}: {names}" if keyed else names))
    return rows


def _keyed(finding: Finding) -> str:
    """What is to be told of runs and their tables where keys differ, and no number."""
    same = finding.level is Level.NUMERICAL and not finding.notes and finding.part in ("runs", "tables")
    return "every number the same" if same else ""


def _more(number: int) -> str:
    return f"; and {number} more" if number > 0 else ""


def _file(finding: Finding) -> str:
    return finding.name.partition("/")[2]


def _why(one: Verified) -> list[str]:
    return [*one.altered, *(one.causes or [UNEXPLAINED])]


def _moved_on(verified: list[Verified]) -> list[str]:
    """What the work tree would make otherwise than what lies here, a line for each kind of source."""
    studies: dict[str, list[str]] = {}
    for one in verified:
        for part in one.outdated:
            studies.setdefault(part, []).append(one.study)
    return [
        f"made with other {part} than the work tree's: {', '.join(names)}; `dvc repro` makes them anew"
        for part, names in studies.items()
    ]
