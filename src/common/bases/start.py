"""Where the base models of a study come from: the type of its parameter `base`."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Discriminator, RootModel, Tag

from common.bases.given import Given
from common.bases.pretraining import Base
from common.errors import UserError


def _kind(value: object) -> str:
    return "given" if isinstance(value, Given) or (isinstance(value, Mapping) and "model" in value) else "scratch"


class Start(RootModel):
    """A base that is trained from scratch, or a given model."""

    root: Annotated[Annotated[Base, Tag("scratch")] | Annotated[Given, Tag("given")], Discriminator(_kind)]


def given_model(base: Mapping[str, object], vocab_size: int | None) -> Given | None:
    """The given model that a parameter `base` describes, None where it is a base trained from scratch.

    Raises `UserError` where `vocab_size` does not go with it: a given model brings its own tokenizer.
    """
    if _kind(base) == "scratch":
        if vocab_size is None:
            raise UserError("vocab_size is none, allowed for a base trained from scratch: a number of tokens")
        return None
    if vocab_size is not None:
        raise UserError(f"vocab_size is {vocab_size}, allowed for a given model, which has a tokenizer: none (null)")
    return Given.model_validate(base)
