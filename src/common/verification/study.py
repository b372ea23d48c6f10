"""One study's results here, compared with those that a commit holds."""

from collections.abc import Callable
from dataclasses import replace

import nbformat
from nbformat import NotebookNode
from pandas import Series

from common.verification import stamps
from common.verification.arms import CHANCE, Measured, arms_of, means_apart, of_runs, of_table
from common.verification.claims import compare_claims, compare_metrics
from common.verification.figures import compare_data, compare_pictures
from common.verification.levels import Finding, Level
from common.verification.prose import compare_notebooks, strange_pictures
from common.verification.snapshots import Snapshot
from common.verification.tables import Comparison, compare

RUNS, CLAIMS, METRICS, NOTEBOOK = (
    f"results/{name}" for name in ("runs.csv", "claims.json", "metrics.json", "notebook.ipynb")
)


Judged = tuple[Level, list[str]]  # a level, and what differs, the gravest first
UNREADABLE = (
    ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, nbformat.ValidationError
)  # fmt: skip


def compare_study(study: str, old: Snapshot, new: Snapshot) -> tuple[list[Finding], list[str]]:
    """What came of comparing each file of a study, and how their makings differ, the gravest first.

    Of a file that can't be read nothing agrees; the others are compared all the same. Of results whose makings do not
    differ in anything that is noted the same bytes are due: others agree in the verdicts at most.
    """
    try:
        causes = _causes(old, new)
    except UNREADABLE:
        causes = ["not known, as the notebook that says so can't be read"]
    findings = _findings(study, old, new)
    if causes:
        return findings, causes
    moved = {finding.name for finding in findings if finding.level > Level.BITWISE}
    return [_unexplained(finding, moved) for finding in findings], causes


def _unexplained(finding: Finding, moved: set[str]) -> Finding:
    """A finding of makings that were noted as the same; `moved`: files that differ.

    Figures whose data moved keep theirs: `--from tables` draws without a stamp, and another CPU other last digits.
    """
    drawn = part_of(finding.name) == "pictures" and f"{finding.name.rpartition('.')[0]}.csv" not in moved
    due = finding.name.startswith("results/") or drawn
    if not (due and Level.BITWISE < finding.level < Level.VERDICTS):
        return finding
    told = f"{finding.level.name.lower()}, and the same bytes were due"
    return replace(finding, level=Level.VERDICTS, notes=(told, *finding.notes))


def _judged(compare: Callable[..., Judged], *arguments: object) -> Judged:
    try:
        return compare(*arguments)
    except UNREADABLE as error:
        return Level.NONE, [f"can't be read: {type(error).__name__}: {' '.join(str(error).split())[:100]}"]


def _findings(study: str, old: Snapshot, new: Snapshot) -> list[Finding]:
    found: dict[str, Finding] = {}

    def note(name: str, level: Level, notes: list[str]) -> None:
        found[name] = Finding(study, part_of(name), name, level, tuple(notes))

    for name in old.keys() | new.keys():
        if name not in new or name not in old:
            level = Level.NONE if name == CLAIMS else Level.VERDICTS
            note(name, level, ["it is not there now" if name in old else "it was not there"])
        elif old[name] == new[name]:
            note(name, Level.BITWISE, [])
    both = sorted(old.keys() & new.keys() - found.keys())
    for name, (level, notes) in _tables(old, new).items():
        if name in both:
            note(name, level, notes)
    # A number of them is another; what made them, which their keys name, may be another while all numbers are the same.
    moved = any(finding.notes for finding in found.values() if finding.part in {"runs", "tables"})
    compared = {"figure data": compare_data, "claims": compare_claims, "metrics": compare_metrics}
    for name in both:
        if compare := compared.get(part_of(name)):
            note(name, *_judged(compare, old[name], new[name], moved))
    for name in both:
        data = found.get(f"{name.rpartition('.')[0]}.csv")
        if name.endswith(".svg"):
            of_data = data.level if data else Level.BITWISE
            png = found.get(f"{name.rpartition('.')[0]}.png")  # the others are compared below
            same_png = png is not None and png.level is Level.BITWISE
            note(name, *_judged(compare_pictures, old[name], new[name], of_data, same_png))
    for name in both:
        if name.endswith(".png"):
            drawing = found.get(f"{name.rpartition('.')[0]}.svg")
            altered = drawing is None or drawing.level is Level.BITWISE
            notes = ["the picture differs and its drawing does not"] if altered else []
            note(name, Level.VERDICTS if altered else drawing.level, notes)
    if NOTEBOOK in both:
        note(NOTEBOOK, *_judged(_notebooks, old[NOTEBOOK], new[NOTEBOOK], moved))
    if NOTEBOOK in new and found[NOTEBOOK].level < Level.VERDICTS:
        pictures = {content for name, content in new.items() if name.endswith(".png")}
        level, strange = _judged(_strange, new[NOTEBOOK], pictures)
        if strange:
            note(NOTEBOOK, level, strange)
    return [found[name] for name in sorted(found)]


def part_of(name: str) -> str:
    """The kind of thing that a file is, in a table of what agrees."""
    if name.startswith("figures/"):
        return "figure data" if name.endswith(".csv") else "pictures"
    named = {RUNS: "runs", CLAIMS: "claims", METRICS: "metrics", NOTEBOOK: "notebook"}
    return named.get(name, "tables" if name.startswith("results/tables/") else "other files")


def _tables(old: Snapshot, new: Snapshot) -> dict[str, Judged]:
    """Levels of `runs.csv` and of the tables beside it."""
    if RUNS not in old or RUNS not in new:
        return {}
    tables = _tables_of(old, new)
    try:
        runs = compare(old[RUNS], new[RUNS])
        if not (runs.words or runs.length):
            arms = arms_of(runs.old, [name for name in runs.old if runs.old[name].equals(runs.new[name])])
            measured = [of_runs(table, list(runs.off), arms) for table in (runs.old, runs.new)]
            found = {RUNS: _level(runs, *measured)}
            return found | {name: _judged(_by_arms, old[name], new[name], runs, arms) for name in tables}
        of_runs_csv = Level.VERDICTS, runs.notes
    except UNREADABLE as error:
        of_runs_csv = Level.NONE, [f"can't be read: {type(error).__name__}: {error}"]
    # Other runs, or none that can be read: there are no arms whose means could be compared.
    return {RUNS: of_runs_csv} | {name: _judged(_by_cells, old[name], new[name]) for name in tables}


def _by_arms(old: bytes, new: bytes, runs: Comparison, arms: Series) -> Judged:
    table = compare(old, new)
    return _level(table, *(of_table(*pair, arms) for pair in ((table.old, runs.old), (table.new, runs.new))))


def _by_cells(old: bytes, new: bytes) -> Judged:
    table = compare(old, new)
    return (Level.VERDICTS, table.notes) if table.notes else (Level.NUMERICAL, table.small)


def _tables_of(old: Snapshot, new: Snapshot) -> list[str]:
    return sorted(name for name in old.keys() & new.keys() if part_of(name) == "tables" and old[name] != new[name])


def _level(compared: Comparison, old: Measured, new: Measured) -> Judged:
    """Level of a table, by its cells, else by the means of its arms."""
    if not compared.notes:
        return Level.NUMERICAL, compared.small
    if compared.words:
        return Level.VERDICTS, compared.notes
    outside, tried, first = means_apart(old, new)
    if outside > CHANCE * tried:
        line = f"{outside} of {tried} means outside each other's intervals: {first}"
        return Level.VERDICTS, [line, *compared.notes]
    return Level.STATISTICAL, compared.notes


def _causes(old: Snapshot, new: Snapshot) -> list[str]:
    if NOTEBOOK not in old or NOTEBOOK not in new:
        return []
    return stamps.differences(_notebook(old[NOTEBOOK]), _notebook(new[NOTEBOOK]))


def _notebooks(old: bytes, new: bytes, moved: bool) -> Judged:
    return compare_notebooks(_notebook(old), _notebook(new), moved)


def _strange(executed: bytes, figures: set[bytes]) -> Judged:
    return Level.VERDICTS, strange_pictures(_notebook(executed), figures)


def _notebook(content: bytes) -> NotebookNode:
    return nbformat.reads(content.decode(), as_version=4)
