"""The data sets that the study trains on: our own, or others' in their places."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from common.analysis.alignment.claims import CLEAN, NOISY
from common.pairs.fetching import fetch
from common.pairs.making import make_pairs
from common.pairs.published import Published, found
from common.pairs.table import AIMS

TRAINED_ON = ("facts", "unsafe_prompts", "benign_prompts", "replies")  # tables that ours are made of


class DataSets(NamedTuple):
    """A sweep that keeps each data set, `origins` by its name in arms."""

    run: Callable[..., dict]
    cells: list[dict[str, Any]]
    tables: Sequence[str]
    folders: Mapping[str, Path]
    origins: Mapping[str, str]


def data_sets(scale: str, making: Mapping[str, Any]) -> DataSets:
    """By the study's parameter `making` (see `common.pairs.published.Pairs`); errors as `found` has them there."""
    if "sources" in making:
        others = found(scale, Published.model_validate(making))
        return DataSets(fetch, others.cells, (), others.folders, others.origins)
    cells = [{"data": data, "making": making} for data in (NOISY, CLEAN)]
    return DataSets(make_pairs, cells, TRAINED_ON, {}, dict.fromkeys((NOISY, CLEAN), "made here"))


def counted(made: pd.DataFrame, origins: Mapping[str, str]) -> pd.DataFrame:
    """What the data sets are: by name, `origin`, and how many pairs of each aim, of how many rows."""
    numbers = made.set_index("data").reindex(columns=[*AIMS, "read", "malformed", "unpaired"])
    numbers.insert(0, "origin", pd.Series(origins))
    return numbers
