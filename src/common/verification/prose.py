"""Two makings of an executed notebook, but for its stamp: sources, prose and printed tables, pictures."""

import base64
import re

from nbformat import NotebookNode

from common.verification.levels import Level
from common.verification.texts import close, first_difference, numbers_of, words_of


def compare_notebooks(old: NotebookNode, new: NotebookNode, moved: bool) -> tuple[Level, list[str]]:
    """Level of an executed notebook, and what differs.

    Words must be the same, and sources where both name one source notebook. Printed numbers may differ by one in their
    last digit; by more, where the runs `moved`.
    """
    if _cells(old) == _cells(new):
        return Level.BITWISE, []
    if len(old.cells) != len(new.cells):
        return Level.VERDICTS, [f"{len(old.cells)} cells → {len(new.cells)}"]
    sources = [cell.source for cell in old.cells[1:]], [cell.source for cell in new.cells[1:]]
    words, off = [], []
    digests = [book.metadata.get("compendium", {}) for book in (old, new)]
    if all(digests[0].get(f"{part} digest") == digests[1].get(f"{part} digest") for part in ("notebook", "parameters")):
        words += [_said(n, a, b) for n, (a, b) in enumerate(zip(*sources, strict=True), start=1) if a != b]
    for number, (one, other) in enumerate(zip(old.cells[1:], new.cells[1:], strict=True), start=1):
        before, after = _shown(one), _shown(other)
        if words_of(before) != words_of(after):
            words.append(_said(number, before, after))
        elif far := [pair for pair in zip(numbers_of(before), numbers_of(after), strict=True) if not close(*pair)]:
            off.append(f"cell {number}: {len(far)} numbers, first {far[0][0]} → {far[0][1]}")
    if words:
        return Level.VERDICTS, words + off
    if off:
        return (Level.STATISTICAL if moved else Level.VERDICTS), off
    return Level.NUMERICAL, []


def strange_pictures(executed: NotebookNode, figures: set[bytes]) -> list[str]:
    """Cells that show a picture which is none of the study's figures."""
    return [
        f"cell {number} shows a picture that is no figure of the study"
        for number, cell in enumerate(executed.cells[1:], start=1)
        for output in cell.get("outputs", [])
        if (picture := output.get("data", {}).get("image/png")) and base64.b64decode(picture) not in figures
    ]


def _cells(notebook: NotebookNode) -> list[dict]:
    return [dict(cell) for cell in notebook.cells[1:]]


def _said(number: int, old: str, new: str) -> str:
    return f"cell {number}: {first_difference(old, new)}"


def _shown(cell: NotebookNode) -> str:
    """What a cell shows as text: printed lines, prose, tables without their markup."""
    texts = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        texts += [output.get("text", ""), data.get("text/markdown", "")]
        texts.append(re.sub(r"<style.*?</style>|<[^>]*>", " ", "".join(data.get("text/html", "")), flags=re.DOTALL))
        if not {"text/markdown", "text/html", "image/png"} & data.keys():
            texts.append(data.get("text/plain", ""))
    return "\n".join("".join(text) for text in texts)
