"""Fine-tuning by preference pairs: the functions that sweeps call.

`start`, `data` and `reference` name folders that other runs kept, among `kept`.
"""

from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from common import zoo
from common.alignment.preparing import Prepared, Selection, prepared, selected
from common.errors import UserError
from common.pairs.table import Choice
from common.preference.adapters import to_nf4
from common.preference.examples import Example, with_mismatched
from common.preference.finetuning import finetune
from common.preference.references import FILE, load_reference, reference_log_probs
from common.preference.tuning import Tuning

ADAPTER = "lora.json"  # how the adapter beside it was made
CHECKED = 4  # pairs whose reference is computed once more: one of other data would train to nonsense without a word


def refer(start: str, data: str, quantized: bool, seed: int, *, keep: Path, **kept: Path) -> dict[str, Any]:
    """Keep the log-probabilities of a data set's pairs under a start model, as it is or packed to 4 bits.

    `log_probs.npy` is float64 `(pairs, 2)`, a row for each of the table's, NaN where the pair does not fit into the
    model's context. `seed` is the start model's and changes nothing here.
    """
    model, tokenizer = zoo.load(str(kept[start]))
    pairs = prepared(kept[data], None, tokenizer, model.config.max_position_embeddings)
    logs = reference_log_probs(to_nf4(model) if quantized else model, pairs.examples)
    whole = np.full((len(pairs.places) + pairs.too_long, 2), np.nan)
    whole[pairs.places] = logs
    np.save(keep / FILE, whole)
    return {"referred": len(logs), "too_long": pairs.too_long, "preferred": float((logs[:, 0] > logs[:, 1]).mean())}


def tune(
    start: str, data: str, aim: Choice, n: int | None, selection: Selection, tuning: dict, reference: str | None,
    seed: int, *, keep: Path, scratch: Path, **kept: Path,
) -> dict[str, Any]:  # fmt: skip
    """Fine-tune a start model on `n` pairs of a data set (None: all), and keep the adapter, or the model where it has
    none.

    `tuning` is a `common.preference.tuning.Tuning`; with its `lora.quantized` the start model is packed to NF4 first.
    `reference` names what `refer` kept of the same start model, packed or not, and data: None where the loss has no
    reference. Metrics: those of `finetune`, `distinct_pairs`, from which batches are drawn, whether or not the steps
    suffice for all of them, and `too_long`, how many pairs of the aim did not fit.
    """
    recipe = Tuning.model_validate(tuning)
    model, tokenizer = zoo.load(str(kept[start]))
    pairs = selected(prepared(kept[data], aim, tokenizer, model.config.max_position_embeddings), n, selection, seed)
    if recipe.lora is not None and recipe.lora.quantized:
        model = to_nf4(model)
    examples, logs = _referred(model, pairs, recipe, None if reference is None else load_reference(kept[reference]))
    tuned, metrics = finetune(model, examples, recipe, seed, reference=logs, scratch=scratch)
    tuned.save_pretrained(keep)
    if recipe.lora is None:
        tokenizer.save_pretrained(keep)
    else:
        (keep / ADAPTER).write_text(recipe.lora.model_dump_json())
    return {**metrics, "distinct_pairs": len(examples), "too_long": pairs.too_long}


def _referred(
    model: PreTrainedModel, pairs: Prepared, recipe: Tuning, whole: np.ndarray | None
) -> tuple[list[Example], np.ndarray | None]:
    """Examples as the loss takes them, and their reference log-probabilities where it has a reference."""
    if whole is None:
        return pairs.examples, None
    logs = whole[pairs.places] if pairs.places.max() < len(whole) else np.full((len(pairs.places), 2), np.nan)
    again = reference_log_probs(model, pairs.examples[:CHECKED])
    if not np.allclose(logs[:CHECKED], again, atol=1e-2):
        raise UserError("the reference is not of this start model, packed or not, and this data")
    if "mismatched" not in recipe.loss().tensors:
        return pairs.examples, logs
    examples = with_mismatched(pairs.examples, model.config.max_position_embeddings)
    others = [Example(each.prompt, each.completions[2:]) for each in examples]
    return examples, np.hstack([logs, reference_log_probs(model, others)])
