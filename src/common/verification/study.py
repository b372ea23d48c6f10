"""One study's results here, compared with those that a commit holds."""

import nbformat
from nbformat import NotebookNode

from common.errors import UserError
from common.verification import stamps
from common.verification.arms import CHANCE, Measured, arms_of, means_apart, of_runs, of_table
from common.verification.claims import compare_claims, compare_metrics, verdicts
from common.verification.figures import compare_data, compare_pictures
from common.verification.levels import Finding, Level, weakest
from common.verification.prose import compare_notebooks, strange_pictures
from common.verification.snapshots import Snapshot
from common.verification.tables import Comparison, compare

RUNS, CLAIMS, METRICS, NOTEBOOK = (
    f"results/{name}" for name in ("runs.csv", "claims.json", "metrics.json", "notebook.ipynb")
)


def compare_study(study: str, old: Snapshot, new: Snapshot) -> tuple[list[Finding], list[str]]:
    """What came of comparing each file of a study, and how their makings differ, the gravest first.

    Raises `UserError` where a file can't be read.
    """
    try:
        return _findings(study, old, new), _causes(old, new)
    except (ValueError, KeyError, TypeError, AttributeError, nbformat.ValidationError) as error:
        raise UserError(
            f"{study}: results can't be read: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        ) from error


def _findings(study: str, old: Snapshot, new: Snapshot) -> list[Finding]:
    same_verdicts = CLAIMS in old and CLAIMS in new and verdicts(old[CLAIMS]) == verdicts(new[CLAIMS])
    found: dict[str, Finding] = {}

    def note(name: str, level: Level, notes: list[str]) -> None:
        floor = Level.NONE if name == CLAIMS and not same_verdicts else Level.VERDICTS
        found[name] = Finding(study, part_of(name), name, min(level, floor), tuple(notes))

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
    moved = (
        weakest(finding.level for finding in found.values() if finding.part in {"runs", "tables"}) >= Level.STATISTICAL
    )
    for name in both:
        if part_of(name) == "figure data":
            note(name, *compare_data(old[name], new[name], moved))
        elif name == CLAIMS:
            note(name, *compare_claims(old[name], new[name]))
        elif name == METRICS:
            note(name, *compare_metrics(old[name], new[name], moved))
    for name in both:
        data = found.get(f"{name.rpartition('.')[0]}.csv")
        if name.endswith(".svg"):
            note(name, *compare_pictures(old[name], new[name], data.level if data else Level.BITWISE))
    for name in both:
        if name.endswith(".png"):
            drawing = found.get(f"{name.rpartition('.')[0]}.svg")
            altered = drawing is None or drawing.level is Level.BITWISE
            notes = ["the picture differs and its drawing does not"] if altered else []
            note(name, Level.VERDICTS if altered else drawing.level, notes)
    if NOTEBOOK in both:
        note(NOTEBOOK, *compare_notebooks(*(_notebook(files[NOTEBOOK]) for files in (old, new)), moved))
    if NOTEBOOK in new:
        pictures = {content for name, content in new.items() if name.endswith(".png")}
        if strange := strange_pictures(_notebook(new[NOTEBOOK]), pictures):
            note(NOTEBOOK, Level.VERDICTS, strange)
    return [found[name] for name in sorted(found)]


def part_of(name: str) -> str:
    """The kind of thing that a file is, in a table of what agrees."""
    if name.startswith("figures/"):
        return "figure data" if name.endswith(".csv") else "pictures"
    named = {RUNS: "runs", CLAIMS: "claims", METRICS: "metrics", NOTEBOOK: "notebook"}
    return named.get(name, "tables" if name.startswith("results/tables/") else "other files")


def _tables(old: Snapshot, new: Snapshot) -> dict[str, tuple[Level, list[str]]]:
    """Levels of `runs.csv` and of the tables beside it."""
    if RUNS not in old or RUNS not in new:
        return {}
    runs = compare(old[RUNS], new[RUNS])
    if runs.words or runs.length:  # other runs: there are no arms whose means could be compared
        found = {name: compare(old[name], new[name]) for name in _tables_of(old, new)}
        levels = {
            name: (Level.VERDICTS, x.notes) if x.notes else (Level.NUMERICAL, x.small) for name, x in found.items()
        }
        return {RUNS: (Level.VERDICTS, runs.notes)} | levels
    arms = arms_of(runs.old, [name for name in runs.old if runs.old[name].equals(runs.new[name])])
    measured = [of_runs(table, list(runs.off), arms) for table in (runs.old, runs.new)]
    found = {RUNS: _level(runs, *measured)}
    for name in _tables_of(old, new):
        table = compare(old[name], new[name])
        measured = [of_table(*pair, arms) for pair in ((table.old, runs.old), (table.new, runs.new))]
        found[name] = _level(table, *measured)
    return found


def _tables_of(old: Snapshot, new: Snapshot) -> list[str]:
    return sorted(name for name in old.keys() & new.keys() if part_of(name) == "tables" and old[name] != new[name])


def _level(compared: Comparison, old: Measured, new: Measured) -> tuple[Level, list[str]]:
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


def _notebook(content: bytes) -> NotebookNode:
    return nbformat.reads(content.decode(), as_version=4)
