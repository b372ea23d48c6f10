"""Others' tokenizer and texts in the places of our own, for studies that read streams of token ids."""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, BinaryIO, Self

import numpy as np
from datasets import Dataset, load_dataset
from pydantic import BaseModel, ConfigDict, Field, model_validator
from tqdm import tqdm
from transformers import AutoTokenizer

from common import hub
from common.errors import UserError
from common.files import atomic_folder
from common.tokenizer import encode_documents

BLOCK = 4096  # documents that are encoded at once


class Text(BaseModel):
    """A data set whose rows are documents, and the share of them that is held out; where it is 1, all are.

    `place` is an item of the scale's section `hub`, `part` a folder in it. With `joined` rows are lines of one text.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    place: str
    part: str | None = None
    split: str = "train"
    column: str = "text"
    held_out: Annotated[float, Field(gt=0, le=1)]
    joined: bool = False

    @model_validator(mode="after")
    def _can_be_divided(self) -> Self:
        if self.joined and self.held_out < 1:
            raise ValueError(f"held_out is {self.held_out}, allowed for a text that is joined: 1")
        return self


Texts = Annotated[dict[Annotated[str, Field(pattern=r"^\w+$")], Text], Field(min_length=1)]


def keep_tokenizer(model: str, vocab_size: int, scale: str, folder: Path) -> None:
    """Save the tokenizer of a model that the scale's section `hub` names.

    Raises `UserError`, one line, where it cannot be had, has another size or no token that ends a text.
    """
    item = hub.item(scale, model, "model")
    try:
        place = item.place or item.id
        tokenizer = AutoTokenizer.from_pretrained(place, revision=item.revision, trust_remote_code=False)
    except Exception as error:  # the hub's library and that of tokenizers have errors of their own
        raise UserError(f"the tokenizer of {model} cannot be had: {_line(error)}") from error
    if len(tokenizer) != vocab_size:
        told = f"scales/{scale}.yaml: tokenizer.vocab_size is {vocab_size}"
        raise UserError(f"{told}, allowed for that of {model}: {len(tokenizer)}")
    if tokenizer.eos_token_id is None:
        raise UserError(f"the tokenizer of {model} has no end-of-text token")
    with atomic_folder(folder) as new:
        tokenizer.save_pretrained(new)


def splits(name: str, text: Text, scale: str) -> dict[str, Iterator[str]]:
    """Documents of a text by NAME-SPLIT, each to be read once, with progress on standard error.

    Which documents are held out depends on their content alone, so that copies of one are never on both sides. Raises
    `UserError`, one line, where the data set cannot be had or has no such column, and where a row has nothing there.
    """
    rows = _rows(name, text, scale)
    sides = {"validation": True} if text.held_out == 1 else {"validation": True, "train": False}
    return {f"{name}-{split}": _side(f"{name}-{split}", rows, text, held) for split, held in sides.items()}


def _side(label: str, rows: Dataset, text: Text, held: bool) -> Iterator[str]:
    documents = _documents(label, rows, text.column)
    if text.joined:
        yield "".join(documents)
        return
    for document in documents:
        if is_held_out(document, text.held_out) == held:
            yield document


def _documents(label: str, rows: Dataset, column: str) -> Iterator[str]:
    for number, row in enumerate(tqdm(rows, desc=f"{label}, rows", mininterval=1.0)):
        if row[column] is None:
            raise UserError(f"{label}: row {number} has no {column}")
        yield row[column]


def is_held_out(document: str, share: float) -> bool:
    """Whether a document is among the `share` that is held out, by the digest of its content."""
    digest = hashlib.sha256(document.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def save_stream(path: Path, texts: Iterable[str], tokenizer: Path) -> None:
    """Save what `encode_documents` gives of texts as `numpy.save` would, no more than a block of them in memory.

    Raises `UserError` where there is no text, and as `encode_documents`.
    """
    documents, count = iter(texts), 0
    with path.open("wb") as file:
        while block := list(islice(documents, BLOCK)):
            ids = encode_documents(block, tokenizer)
            if not count:
                _write_header(file, ids.dtype, 0)
            file.write(ids.tobytes())
            count += len(ids)
        if not count:
            raise UserError(f"{path.stem}: there is no document, allowed: one at least")
        file.seek(0)
        _write_header(file, ids.dtype, count)  # as long as before: numpy leaves room for a longer first axis


def _write_header(file: BinaryIO, dtype: np.dtype, count: int) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, header)


def _rows(name: str, text: Text, scale: str) -> Dataset:
    place = f"scales/{scale}.yaml: tokenizer.texts.{name}"
    item = hub.item(scale, text.place, "dataset")
    try:
        # Data alone: `datasets` runs no code of a repository.
        rows = load_dataset(str(item.place or item.id), data_dir=text.part, split=text.split, revision=item.revision)
    except Exception as error:  # the library has errors of its own for each format
        raise UserError(f"{place}: {item.content} cannot be had: {_line(error)}") from error
    if text.column not in rows.column_names:
        raise UserError(f"{place}: column is {text.column!r}, allowed: {', '.join(rows.column_names)}")
    rows = rows.select_columns([text.column])
    if (kind := rows.features[text.column].dtype) not in ("string", "large_string"):
        raise UserError(f"{place}: column {text.column} holds {kind}, allowed: texts")
    return rows


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
