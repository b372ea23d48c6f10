"""Two makings of an executed notebook, but for its stamp: sources, prose and printed tables, pictures."""

import base64
import re

from nbformat import NotebookNode

from common.verification.levels import Level
from common.verification.texts import close, first_difference, numbers_of, words_of


def compare_notebooks(old: NotebookNode, new: NotebookNode, moved: bool) -> tuple[Level, list[str]]:
    """Level of an executed notebook that has not the same bytes, and what differs.

    Words must be the same, and sources where both name one source notebook. Where the runs `moved`, printed numbers may
    differ by one in their last digit, and by more at a lower level; where they did not, not at all.
    """
    made = [book.metadata.get("compendium", {}) for book in (old, new)]
    first = 0 if made[0] == made[1] else 1  # the first cell shows the stamp
    if [dict(cell) for cell in old.cells[first:]] == [dict(cell) for cell in new.cells[first:]]:
        return Level.NUMERICAL, ["nothing but its stamp"] if first else []
    if len(old.cells) != len(new.cells):
        return Level.VERDICTS, [f"{len(old.cells)} cells → {len(new.cells)}"]
    words, off = [], []
    same_source = all(made[0].get(key) == made[1].get(key) for key in ("notebook digest", "parameters digest"))
    for number, (one, other) in enumerate(zip(old.cells, new.cells, strict=True)):
        if number < first:
            continue
        if same_source and one.source != other.source:
            words.append(f"cell {number}: {first_difference(one.source, other.source)}")
        before, after = _shown(one), _shown(other)
        numbers = numbers_of(before), numbers_of(after)
        if words_of(before) != words_of(after) or len(numbers[0]) != len(numbers[1]):
            words.append(f"cell {number}: {first_difference(before, after)}")
        elif far := [(a, b) for a, b in zip(*numbers, strict=True) if not (close(a, b) if moved else a == b)]:
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
