"""A model by name, asked files of tasks one after the other."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from rich.console import Console
from rich.markup import escape
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import common.architectures  # noqa: F401  # LSTM, and what transformers' classes lack, become known to `load`
from common.converted import converted_model
from common.errors import UserError
from common.hub import check_model
from common.models import parameter_count
from common.packaged import LISTED
from common.scorecard.report import check_out, print_scores, write_scores
from common.scorecard.scores import limited, score
from common.sources import load_sources
from common.tasks.items import Task
from common.zoo import COMMIT, HUB_ID, load, locate


def score_tasks(
    name: str, tasks: Sequence[tuple[Path, Task]], *, limit: int | None, seed: int, out: Path | None
) -> None:
    """Score a model on tasks and their files; print a table for each, as it is done, and write them all to `out`.

    `name` is a folder, `owner/name@commit` on the hub or a package in models.yaml. Prompts are read as they are,
    without a chat template. The model computes in float32, on a GPU where there is one. Raises `UserError` where it
    cannot be loaded, where no item of a task fits it, or where its logits are not finite.
    """
    check_out(out)
    model, tokenizer = _loaded(name)
    about = {"name": name, "class": type(model).__name__, "parameters": parameter_count(model)}
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    console, done = Console(), []
    console.print(escape(f"{name}: {about['class']}, {about['parameters']:,} parameters"))
    for path, whole in tasks:
        task = limited(whole, limit, seed)
        with tqdm(total=len(task.items), desc=path.name, unit="item", file=sys.stderr, leave=False) as bar:
            try:
                scored = score(model, tokenizer, task, seed, bar.update)
            except (UserError, RuntimeError) as error:
                raise UserError(f"{name}, {path}: {str(error).partition(chr(10))[0]}") from error
        print_scores(console, path, scored)
        done.append((path, scored))
        if out:  # as soon as there is more: an interrupted command leaves what it has
            write_scores(out, about, {"limit": limit, "seed": seed, "versions": versions}, done)


def _loaded(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if not Path(name).is_dir() and name in load_sources(LISTED):
        name = str(converted_model(name))
    given, _, commit = (name, "", "") if Path(name).is_dir() else name.partition("@")
    if not Path(given).is_dir() and HUB_ID.fullmatch(given) and COMMIT.fullmatch(commit):
        check_model(given, commit)
    folder = locate(given, revision=commit or None)
    return load(given, revision=commit or None, context=_context(folder))


def _context(folder: Path) -> int | None:
    """How long a text the configuration allows: tokenizers often name a longer one."""
    file = folder / "config.json"
    try:
        return json.loads(file.read_text(encoding="utf-8")).get("max_position_embeddings")
    except (OSError, ValueError, AttributeError):
        return None  # no file, as beside GGUF, or a broken one, of which loading says more
