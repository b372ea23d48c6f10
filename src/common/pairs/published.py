"""Others' preference data in place of ours, as a scale's parameters name them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, PositiveInt, RootModel, Tag, field_validator

from common.hub import item
from common.pairs.own import Making
from common.pairs.sources import Source
from common.pairs.table import AIMS

Ours = Literal["hh-like", "beavertails-like"]
"""The places that data sets take in the study: of several turns, and of one turn with categories."""


class Published(BaseModel):
    """Which data stand in the places of ours, each of one source or more; each must have pairs of either aim.

    A source's `place` is the name of a data set in the scale's section `hub`, which says at which commit or in which
    folder it is. Of each aim at most `pairs` are kept.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sources: dict[Ours, tuple[Source, ...]]
    pairs: PositiveInt

    @field_validator("sources")
    @classmethod
    def _whole(cls, value: dict[Ours, tuple[Source, ...]]) -> dict[Ours, tuple[Source, ...]]:
        for name in get_args(Ours):
            if absent := set(AIMS) - {source.aim for source in value.get(name, ())}:
                raise ValueError(f"{name} has no source of pairs that are {' and '.join(sorted(absent))}")
        if pinned := next((each.place for several in value.values() for each in several if each.revision), None):
            raise ValueError(f"{pinned}: its revision stands in the section hub, not here")
        return value


def _kind(value: object) -> str:
    return "published" if isinstance(value, Published) or (isinstance(value, Mapping) and "sources" in value) else "own"


class Pairs(RootModel):
    """Our own pairs, or others' in their places: the type of the study's parameter `making`."""

    root: Annotated[Annotated[Making, Tag("own")] | Annotated[Published, Tag("published")], Discriminator(_kind)]


class Found(NamedTuple):
    """Cells of `common.pairs.fetching.fetch`, the folders that they read, and by data set what it is on the hub."""

    cells: list[dict[str, Any]]
    folders: dict[str, Path]
    origins: dict[str, str]


def found(scale: str, published: Published) -> Found:
    """Where the data are; `UserError` where a source is no data set of the scale's section `hub`, or has neither a
    commit nor a folder there.
    """
    cells, folders, origins = [], {}, {}
    for name, several in published.sources.items():
        sources, told = [], {}
        for source in several:
            data = item(scale, source.place, "dataset")
            if data.place is None:
                source = source.model_copy(update={"place": data.id, "revision": data.revision})
            else:
                folders[source.place] = data.place
            source.check(folders)
            sources.append(source.model_dump())
            told[f"{data.id}, {'a folder' if data.place else data.revision[:7]}"] = None
        cells.append({"data": name, "sources": sources, "pairs": published.pairs})
        origins[name] = "; ".join(told)
    return Found(cells, folders, origins)
