"""Log-probabilities under a model that stays as it is: computed once for all runs that share model and data."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from transformers import PreTrainedModel

from common import zoo
from common.errors import UserError
from common.preference.examples import Example, encode_examples, with_mismatched
from common.scoring.passes import log_likelihoods

FILE = "log_probs.npy"


def reference_log_probs(model: PreTrainedModel, examples: Sequence[Example], batch_size: int = 64) -> np.ndarray:
    """Log-probability of each completion in nats, float64 `(examples, completions)`; `(n, 2)` for pairs.

    `batch_size`, completions in a pass, moves a result by rounding only. The model is left in evaluation mode.
    Raises `UserError` where examples have unequally many completions, and `RuntimeError` where a result is NaN.
    """
    if not examples or len({len(example.completions) for example in examples}) > 1:
        raise UserError(f"{len(examples)} examples, allowed: one or more with equally many completions")
    groups = [(example.prompt, example.completions) for example in examples]
    return log_likelihoods(model, groups, batch_size).numpy().reshape(len(examples), -1)


def keep_reference(context: int, mismatched: bool, *, model: Path, pairs: Path, keep: Path) -> dict:
    """Keep the reference log-probabilities of pairs: a run for `common.sweep`, which does it once for all that share.

    `model` is a folder as `common.zoo.load` takes; `pairs` a file of JSON lines with `prompt`, `chosen` and `rejected`.
    With `mismatched` there is the third column that KTO needs. `load_reference(keep)` gives them back.
    """
    base, tokenizer = zoo.load(str(model))
    found = encode_examples(tokenizer, *read_pairs(pairs), context)
    if mismatched:
        found = with_mismatched(found, context)
    logs = reference_log_probs(base, found)
    np.save(keep / FILE, logs)
    return {"pairs": len(logs), "chosen": float(logs[:, 0].mean()), "rejected": float(logs[:, 1].mean())}


def load_reference(folder: Path) -> np.ndarray:
    """What `keep_reference` kept, `(pairs, completions)`; `UserError` where there is none."""
    if not (folder / FILE).is_file():
        raise UserError(f"{folder} holds no {FILE}")
    return np.load(folder / FILE, allow_pickle=False)


def read_pairs(path: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Prompts, and the chosen and rejected response of each, from a file of JSON lines."""
    table = pd.read_json(path, lines=True, dtype=False)
    if lacking := [name for name in ("prompt", "chosen", "rejected") if name not in table]:
        raise UserError(f"{path.name} lacks the column {lacking[0]}")
    return table["prompt"].tolist(), list(zip(table["chosen"], table["rejected"], strict=True))
