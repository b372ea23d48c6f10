"""Others' models that judge in the places of the compendium's own, found and checked before anything runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.bases.checking import check_weights
from common.bases.locating import folder_of
from common.errors import UserError
from common.judges import others
from common.judges.others import Classifier, Guard, Judges
from common.project import DATA


def located(judges: Mapping[str, Any], scale: str) -> dict[str, Path]:
    """Folders by the names of the models that a study's parameter has judge; none where ours do.

    Raises `UserError`, one line, where one cannot be had or can't be that judge.
    """
    found: dict[str, Path] = {}
    for judge in Judges.model_validate(judges).named().values():
        if (DATA / f"{judge.model}.jsonl").exists():  # which are inputs of the same runs
            raise UserError(f"a judge is named {judge.model}, as a table is: give it another name in the section hub")
        found[judge.model] = folder_of(judge.model, scale)
        check(judge, found[judge.model])
    return found


def check(judge: Classifier | Guard, folder: Path) -> None:
    """Raise `UserError` where the model in a folder can't be that judge; of weights the heads of files are read."""
    check_weights(folder)
    others.check(judge, folder)
