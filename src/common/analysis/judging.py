"""Others' models that judge in the places of the compendium's own, found and checked before anything runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.bases.locating import folder_of
from common.judges.others import Judges, check


def located(judges: Mapping[str, Any], scale: str) -> dict[str, Path]:
    """Folders by the names of the models that a study's parameter has judge; none where ours do.

    Raises `UserError`, one line, where one cannot be had or can't be that judge.
    """
    found = {}
    for judge in Judges.model_validate(judges).named().values():
        found[judge.model] = folder_of(judge.model, scale)
        check(judge, found[judge.model])
    return found
