"""The part of the README that results write: a gallery, and a table of all claims with what came of each."""

import json
import re
from collections import Counter
from pathlib import Path

from common.errors import UserError
from common.evidence.claims import VERDICTS, remark
from common.files import write_atomic
from common.project import ROOT
from common.scales import studies
from common.signature import mistakes

BLOCK = re.compile(
    r"<!-- results of (\w+): written by `compendium readme` -->\n.*?<!-- end of results -->\n", re.DOTALL
)
READ_AS = [
    "Of our own checks *reproduced* means that they hold. Intervals are 95%, over seeds, for each claim alone; "
    "verdicts are corrected for all claims of a study: an interval may exclude zero and the verdict be *inconclusive*. "
    "See [what verdicts mean](docs/reading.md).",
]
ROW = 2  # pictures in a row of the gallery
NEEDED = {
    "paper": str | None, "ci": tuple[float, float], "n_seeds": int,
    **dict.fromkeys(("statement", "ours", "test", "verdict", "figure"), str),
    **dict.fromkeys(("margin", "estimate", "p", "p_holm", "p_against"), float),
}  # fmt: skip
"""What is shown of a claim."""


def write_readme(root: Path = ROOT) -> str:
    """Write the README's block anew from the results of the scale that the block names; return the scale."""
    write_atomic(root / "README.md", readme(studies(root), root))
    return find_block((root / "README.md").read_text())[1]


def readme(names: list[str], root: Path = ROOT) -> str:
    """The README's text with its block as the results of these studies have it; `UserError` where they are damaged."""
    text = (root / "README.md").read_text()
    block = find_block(text)
    return text.replace(block[0], rendered(block[1], names, root))


def find_block(text: str) -> re.Match:
    """The block between its marks, and the scale that it names; `UserError` unless there is one."""
    found = list(BLOCK.finditer(text))
    if len(found) != 1:
        raise UserError(f"README.md holds {len(found)} blocks `<!-- results of SCALE: … -->`, allowed: one")
    return found[0]


def rendered(scale: str, names: list[str], root: Path = ROOT) -> str:
    """The block as the results of these studies at a scale have it, marks included."""
    claims = {study: _claims(scale, study, root) for study in names}
    there = {study: records for study, records in claims.items() if records}
    if not there:
        raise UserError(f"results/{scale} holds no claims of {', '.join(claims)}: run `make figures`")
    lines = [f"<!-- results of {scale}: written by `compendium readme` -->"]
    lines += [*_gallery(scale, there), "", *_summary(claims), ""]
    for study, records in there.items():
        lines += [*_table(scale, study, records), ""]
    return "\n".join([*lines, "<!-- end of results -->", ""])


def _claims(scale: str, study: str, root: Path) -> dict[str, dict]:
    path = root / "results" / scale / study / "claims.json"
    if not path.is_file():
        return {}
    try:
        claims = json.loads(path.read_text())
        found = [line for name, record in claims.items() for line in _damage(name, record)]
        if not found:
            return claims
        what = found[0]
    except (ValueError, AttributeError, RecursionError) as error:
        what = str(error)
    raise UserError(f"{path.relative_to(root)} is damaged ({what}): run `make figures STUDY={study}`")


def _damage(name: str, record: object) -> list[str]:
    """What is wrong with a claim."""
    if not isinstance(record, dict):
        return [f"claim {name} is no object"]
    absent = [f"claim {name} lacks {field}" for field in NEEDED if field not in record]
    return absent + [f"claim {name}: {line}" for line in mistakes(NEEDED, record)]


def _gallery(scale: str, claims: dict[str, dict[str, dict]]) -> list[str]:
    """The figure of each study that most of the paper's claims rest on, or where it follows none, most claims."""
    cells = []
    for study, records in claims.items():
        figures = [record["figure"] for record in records.values()]
        papers = [record["figure"] for record in records.values() if record["paper"] is not None]
        name, _ = Counter(papers or figures).most_common(1)[0]
        place = f"figures/{scale}/{study}/{name}"
        shown = f"{figures.count(name)} of {_count(len(records))}"
        cells.append(f"![{study}: {name}]({place}.png)<br>{study}: [{name}]({place}.csv), {shown}")
    cells += [""] * (-len(cells) % ROW)
    rows = [cells[at : at + ROW] for at in range(0, len(cells), ROW)]
    return ["| " * ROW + "|", "|---" * ROW + "|", *(f"| {' | '.join(row)} |" for row in rows)]


def _count(number: int) -> str:
    return "one claim" if number == 1 else f"{number} claims"


def _summary(claims: dict[str, dict[str, dict]]) -> list[str]:
    """Claims by verdict, the papers' apart from our own."""
    whose = ("the paper's claims", "our own checks")
    lines = [f"| | {' | '.join(f'{who}: {verdict}' for who in whose for verdict in VERDICTS)} |", "|---" * 7 + "|"]
    for study, records in claims.items():
        counts = Counter((record["paper"] is None, record["verdict"]) for record in records.values())
        cells = [str(counts[ours, verdict]) for ours in (False, True) for verdict in VERDICTS]
        lines.append(f"| {study} | {' | '.join(cells if records else ['not run yet', *[''] * 5])} |")
    return [*lines, "", *READ_AS]


def _table(scale: str, study: str, records: dict[str, dict]) -> list[str]:
    """All claims of a study, to be unfolded."""
    lines = [f"<details><summary>Claims of {study}</summary>", ""]
    lines += [
        "| the paper's claim | ours, and what is estimated | test, margin | estimate | 95% interval | n | p (Holm) "
        "| verdict | figure |",
        "|---" * 9 + "|",
    ]
    for record in records.values():
        low, high = record["ci"]
        cells = (
            record["paper"] or "(ours)",
            f"{record['statement']}<br><sub>{record['ours']}</sub>",
            f"{record['test'].replace('_', ' ')}, {record['margin']:.3g}",
            f"{record['estimate']:.3g}",
            f"[{low:.3g}, {high:.3g}]",
            str(record["n_seeds"]),
            f"{record['p_holm']:.2g}",
            record["verdict"] + (f"<br><sub>{told}</sub>" if (told := remark(record)) else ""),
            f"[{record['figure']}](figures/{scale}/{study}/{record['figure']}.png)",
        )
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return [*lines, "", "</details>"]
