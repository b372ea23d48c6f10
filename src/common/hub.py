"""Models, data sets and judges that a scale names on the hub, checked before anything is computed."""

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from common.errors import UserError
from common.scales import has_section, section

COMMIT = re.compile(r"[0-9a-f]{40}")


class Item(BaseModel):
    """Something on the hub at a commit, or in a folder of the same content, which needs no commit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    kind: Literal["model", "dataset"]
    revision: str | None
    folder: str | None = None

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        if self.revision is not None and not COMMIT.fullmatch(self.revision):
            raise ValueError(f"revision is {self.revision!r}, allowed: the 40 hexadecimal digits of a commit")
        return self


def items(scale: str) -> dict[str, Item]:
    """The section `hub` of a scale by name; none where there is no such section, `UserError` where it is wrong."""
    if not has_section(scale, "hub"):
        return {}
    found = {}
    for name, knobs in section(scale, "hub").items():
        try:
            found[name] = Item.model_validate(knobs)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(["hub", name, *map(str, first["loc"])])
            raise UserError(f"scales/{scale}.yaml: {place}: {first['msg']}") from error
    return found


def check_read(scale: str) -> None:
    """Raise `UserError` for a scale that names items of the hub: no study's runs read them yet.

    A scale whose models were ignored would draw figures of others.
    """
    if found := items(scale):
        raise UserError(
            f"scales/{scale}.yaml names {len(found)} models and data sets of the hub, and notebooks start from none of "
            "them yet: docs/gpu.md says which commands do"
        )


def check_hub(scale: str) -> None:
    """Ask the hub for every item of a scale that is no folder, without downloading it.

    Raises `UserError`, one line, for the first that lacks a revision, cannot be reached, is not there, is gated or has
    no such commit, and for a folder that is not there.
    """
    for name, item in items(scale).items():
        place = f"scales/{scale}.yaml: hub.{name}: "
        if item.folder is not None:
            if not Path(item.folder).is_dir():
                raise UserError(f"{place}there is no folder {item.folder}")
        elif item.revision is None:
            raise UserError(f"{place}{item.id} has no revision: write the commit to use, {_look_up(item)} tells it")
        else:
            _ask(place, item)


def check_model(name: str, revision: str) -> None:
    """Ask the hub once for a model at a commit that the hub's cache here lacks, before it is downloaded.

    Where the hub cannot be reached, the client would ask for a model's files six times, for half a minute and longer.
    Raises `UserError`, one line, as `check_hub` does.
    """
    from huggingface_hub import try_to_load_from_cache

    if not isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str):
        _ask("", Item(id=name, kind="model", revision=revision))


def _look_up(item: Item) -> str:
    return f"`python -c \"from huggingface_hub import HfApi; print(HfApi().{item.kind}_info('{item.id}').sha)\"`"


def _ask(place: str, item: Item) -> None:
    """Raise `UserError`, a line that `place` begins, for what the hub does not give."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    api = HfApi()
    try:
        api.repo_info(item.id, repo_type=item.kind, revision=item.revision, timeout=20)
        api.auth_check(item.id, repo_type=item.kind)  # what a gated repository is may be read by all, its files not
    except GatedRepoError as error:
        told = "accept its terms on its page, then log in with `hf auth login`"
        raise UserError(f"{place}{item.id} is gated: {told}") from error
    except RevisionNotFoundError as error:
        raise UserError(f"{place}{item.id} has no commit {item.revision}") from error
    except RepositoryNotFoundError as error:
        told = "not on the hub, or private: where it is yours, log in with `hf auth login`"
        raise UserError(f"{place}{item.id} is {told}") from error
    except Exception as error:  # whatever the library beneath the hub's client raises: another one since its version 1
        line = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{place}the hub cannot be reached to ask for {item.id}: {line}") from error
