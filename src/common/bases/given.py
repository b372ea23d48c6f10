"""Base models that others trained: taken as they are, or trained further on what base models read.

What is trained, asked and judged afterwards is text that the model's own tokenizer encodes and its own chat template
frames. `check_given` refuses, before weights are opened, what that would go wrong with.
"""

import json
import shutil
from pathlib import Path
from typing import Annotated, Literal

import torch
from huggingface_hub.constants import HF_HUB_CACHE
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common import zoo
from common.bases.checking import check_given
from common.bases.pretraining import Reader, read
from common.models import parameter_count
from common.project import CACHE

KEPT = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")
"""Files of a model's folder that are taken: weights, configuration, tokenizer."""


class Further(Reader):
    """How a given model is trained further, all weights."""

    precision: Literal["no", "bf16"]  # of the computation; weights are float32


class Given(BaseModel):
    """A model that others trained, and how it becomes a base.

    `model` is, in this order, a name in the scale's section `hub`, a package of models.yaml, a folder, seen from the
    repository's root, or `owner/name@commit` on the hub (see `common.bases.locating`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Annotated[str, Field(min_length=1)]
    context: PositiveInt  # tokens of the longest text; at most the model's own
    further: Further | None  # None: taken as it is, the same for every seed


def take(context: int, *, model: Path, keep: Path) -> dict:
    """Keep a given model as it is, but that it takes texts of `context` tokens at most.

    Its files are copied, or linked where they lie in the compendium's own cache or the hub's: what lies there is never
    written again. Replies end with the end token that its tokenizer and chat template have: where the model's settings
    for generation name only others, it is put before them in what is kept. See `check_given` for what is refused.
    """
    check_given(model, context)
    network, words = zoo.load(str(model), context=context)  # opened here, so that what is wrong is told of this folder
    for pattern in KEPT:
        for file in sorted(model.glob(pattern)):
            _place(file.resolve(), keep / file.name)  # the hub's cache holds links
    _rewrite(keep / "config.json", max_position_embeddings=context)
    _rewrite(keep / "tokenizer_config.json", model_max_length=context)
    if _end_by_tokenizer(network, words):
        _rewrite(keep / "generation_config.json", eos_token_id=network.generation_config.eos_token_id)
    return {"parameters": parameter_count(network)}


def start_from(
    context: int, further: dict, reading: dict, seed: int, *, model: Path, keep: Path, scratch: Path, **tables: Path
) -> dict:
    """Train a given model further and keep it as a Hugging Face folder, its tokenizer and chat template included.

    `model` is its folder, `further` a `Further`; `reading`, `tables` and the metrics as in
    `common.bases.pretraining.pretrain_base`. `seed` changes the order of the data, and dropout where the model has it.
    Replies end as those of a model that is taken as it is (see `take`).
    """
    knobs = Further.model_validate(further)
    check_given(model, context)
    network, words = zoo.load(str(model), context=context)
    network.config.max_position_embeddings = context
    _end_by_tokenizer(network, words)
    words.model_max_length = zoo.NO_LIMIT  # documents are encoded whole and then cut
    torch.manual_seed(seed)
    return read(
        network, words, knobs, reading, seed, context=context, keep=keep, scratch=scratch, tables=tables,
        precision=knobs.precision, setting=f"given model, seed {seed}",
    )  # fmt: skip


def _end_by_tokenizer(network: PreTrainedModel, words: PreTrainedTokenizerBase) -> bool:
    """Have replies end with the tokenizer's end token too; False where they did already."""
    named = network.generation_config.eos_token_id
    ends = named if isinstance(named, list) else [] if named is None else [named]
    if words.eos_token_id in ends:
        return False
    network.generation_config.eos_token_id = [words.eos_token_id, *ends]  # other programs pad with the first
    return True


def _place(file: Path, place: Path) -> None:
    """Copy a file, or link one of a cache: a user may write another model into the same file of an own folder."""
    if any(file.is_relative_to(cache.resolve()) for cache in (CACHE, Path(HF_HUB_CACHE))):
        try:
            place.hardlink_to(file)
            return
        except OSError:  # another file system, or one without links
            pass
    shutil.copyfile(file, place)


def _rewrite(file: Path, **settings: object) -> None:
    """Change keys of a JSON file, which is unlinked first: it may be another folder's too."""
    content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    file.unlink(missing_ok=True)
    file.write_text(json.dumps(content | settings, indent=2) + "\n", encoding="utf-8")
