"""Others' classifiers that judge in the places of the compendium's own, found and checked before anything runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.alignment.questions import Judges
from common.bases.locating import folder_of
from common.judges.hub import check_classifier


def located(asking: Mapping[str, Any], scale: str) -> dict[str, Path]:
    """Folders by the names of the models that the study's parameter `asking` has judge; none where ours do.

    Raises `UserError`, one line, where one cannot be had or has no such label.
    """
    found = {}
    for judge in Judges.model_validate(asking.get("judges", {})).named().values():
        found[judge.model] = folder_of(judge.model, scale)
        check_classifier(judge.model, found[judge.model], judge.label)
    return found
