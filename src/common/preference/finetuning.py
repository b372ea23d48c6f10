"""Fine-tune a model on examples: any loss, full or by an adapter, with documents replayed beside."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from common.documents import Document, document_loss, mixed_batches
from common.errors import UserError
from common.preference.adapters import adapter_layers, assert_moved, attach, packed_layers
from common.preference.examples import Example
from common.preference.losses import Used
from common.preference.recomputing import recomputing
from common.preference.rows import completion_log_probs, example_batches, leading, shares_prompts
from common.preference.tuning import Tuning
from common.training import adamw, train

COLUMNS = ("chosen", "rejected", "mismatched")  # of an example's completions
REPLAY = "replay."


class Objective:
    """The loss of a step, as `common.training.train` calls it; it keeps the rewards it saw for the training curve.

    A reward is TRL's: `beta` times the log-ratio to the reference, or times the mean log-probability of a token where
    a loss has no reference.
    """

    def __init__(self, loss: Used, replay_weight: float):
        self.loss = loss
        self.replay_weight = replay_weight
        self._margins: list[Tensor] = []

    def __call__(self, model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Tensor:
        logs, tokens = completion_log_probs(model, batch), batch["tokens"]
        reference = batch.get("reference")
        named = dict(zip(COLUMNS, logs.unbind(1), strict=False))
        named |= {f"{name}_tokens": column for name, column in zip(COLUMNS, tokens.unbind(1), strict=False)}
        if reference is not None:
            named |= {f"ref_{name}": column for name, column in zip(COLUMNS, reference.unbind(1), strict=False)}
            named["aligned"] = reference
        value = self.loss(named)
        if "rejected" in named:
            self._margins.append(margins(logs.detach(), tokens, reference, self.loss.parameters["beta"]))
        if self.replay_weight:
            replayed = {name.removeprefix(REPLAY): each for name, each in batch.items() if name.startswith(REPLAY)}
            value = value + self.replay_weight * document_loss(model, replayed)
        return value

    def seen(self, model: torch.nn.Module) -> dict[str, float]:
        """Mean margin and accuracy of the pairs trained on since the last call; nothing where there are no pairs."""
        if not self._margins:
            return {}
        found = torch.cat(self._margins)
        self._margins.clear()
        return preference_metrics(found)


def margins(logs: Tensor, tokens: Tensor, reference: Tensor | None, beta: float) -> Tensor:
    """Reward of the chosen minus that of the rejected completion, `(pairs,)`; the arguments are `(pairs, 2 or 3)`."""
    rewards = beta * (logs / tokens if reference is None else logs - reference)
    return rewards[:, 0] - rewards[:, 1]


def preference_metrics(margins: Tensor) -> dict[str, float]:
    """Mean margin, and the share of pairs whose chosen completion has the higher reward."""
    return {"margin": margins.mean().item(), "accuracy": (margins > 0).float().mean().item()}


def tuning_batches(
    model: PreTrainedModel,
    examples: Sequence[Example],
    tuning: Tuning,
    seed: int,
    padding: int,
    reference: np.ndarray | None = None,
    replay: tuple[Mapping[str, Sequence[Document]], Mapping[str, float]] | None = None,
) -> Callable[[int], dict[str, Tensor]]:
    """Batches by step for `Objective`; errors as `finetune`."""
    loss = tuning.loss()
    completions = sum(name in COLUMNS for name in loss.tensors)
    examples = leading(examples, completions)
    needed = any(name.startswith("ref_") or name == "aligned" for name in loss.tensors)
    if needed != (reference is not None):
        raise UserError(f"{loss.name} {'needs' if needed else 'does not use'} reference log-probabilities")
    arrays = {}
    if reference is not None:
        columns = reference.shape[1] if "aligned" in loss.tensors else completions
        if reference.shape != (len(examples), columns) or not np.isfinite(reference).all():
            raise UserError(
                f"reference log-probabilities are {reference.shape}, needed: finite and {(len(examples), columns)}"
            )
        arrays["reference"] = reference.astype(np.float32)
    if (tuning.replay_weight > 0) != (replay is not None):
        raise UserError(
            f"replay_weight is {tuning.replay_weight}, and documents to replay are {'' if replay else 'not '}given"
        )
    batches = example_batches(examples, tuning.batch_size, seed, shared=shares_prompts(model, examples), arrays=arrays)
    if replay is None:
        return batches
    replayed = mixed_batches(*replay, tuning.replay_batch_size, seed, padding)
    return lambda step: (
        batches(step) | {REPLAY + name: value for name, value in replayed(step).items() if name != "attention_mask"}
    )


def finetune(
    model: PreTrainedModel,
    examples: Sequence[Example],
    tuning: Tuning,
    seed: int,
    *,
    reference: np.ndarray | None = None,
    replay: tuple[Mapping[str, Sequence[Document]], Mapping[str, float]] | None = None,
    scratch: Path | None = None,
) -> tuple[PreTrainedModel | PeftModel, dict]:
    """Fine-tune `model` in place on examples and return it, with its adapter where `tuning` has one, and metrics.

    `reference (examples, completions)` are `reference_log_probs` of the examples, for losses that use them; for PoFT
    `(examples, models)`, a column for each aligned model. `replay` are documents by kind and the kinds' shares, as
    `common.documents.mixed_batches` takes them. `seed` changes the order of the data, the adapter's initial weights
    and dropout. Activations of large models are computed again (see `common.preference.recomputing`). With `scratch` a
    run that was cut off goes on from the checkpoint there; on a packed model, whose 4-bit weights are no plain tensors
    to load, it begins again.

    Metrics, as a run of `common.sweep` returns them: `train_loss` and, for pairs, `margin` and `accuracy` at the end
    of training (see `Objective`); `curve`, the same through training; `pairs` trained on, `tokens` computed, of which
    `replayed`; `parameters`, `trainable`; `base_dtype` ("nf4" for a packed model) and `base_bytes`; `adapter_layers`.

    Raises `UserError` before training where `tuning` contradicts itself, the model or the data, `NonFiniteLoss` where
    training fails, `RuntimeError` where an adapter's layer did not move.
    """
    tuning.check()
    padding = model.config.pad_token_id or 0
    batches = tuning_batches(model, examples, tuning, seed, padding, reference, replay)
    packed = packed_layers(model)
    base = {
        "base_dtype": "nf4" if packed else str(model.dtype).removeprefix("torch."),
        "base_bytes": model.get_memory_footprint(),
        "packed_layers": len(packed),
        "parameters": model.num_parameters(),
    }
    if packed and tuning.lora is None:
        raise UserError(f"{len(packed)} layers are 4-bit and cannot be trained themselves: give an adapter")
    resumable = scratch is not None and not packed
    tuned = model if tuning.lora is None else attach(model, tuning.lora, seed)
    torch.manual_seed(seed)  # dropout
    objective, plan = Objective(tuning.loss(), tuning.replay_weight), tuning.plan()
    with recomputing(model):
        trained = train(
            tuned,
            objective,
            batches,
            plan,
            optimizer=adamw(tuned, weight_decay=tuning.weight_decay, betas=tuning.betas),
            evaluate=objective.seen,
            setting=f"{tuning.method}, learning rate {tuning.learning_rate}, seed {seed}",
            checkpoint=scratch / "checkpoint" if resumable else None,
            checkpoint_every=plan.log_every * 5 if resumable else 0,
        )
    assert_moved(tuned)
    last = trained.curve[-1]
    replayed = sum(batches(step)[f"{REPLAY}input_ids"].numel() for step in range(tuning.steps)) if replay else 0
    return tuned.eval(), {
        "train_loss": last["loss"],
        **{name: last[name] for name in ("margin", "accuracy") if name in last},
        "pairs": tuning.steps * tuning.batch_size,
        "tokens": trained.used["tokens"] + replayed,
        "replayed": replayed,
        **{name: trained.used[name] for name in ("trainable", "precision", "device")},
        **base,
        "adapter_layers": len(adapter_layers(tuned)),
        "curve": {column: [row[column] for row in trained.curve] for column in last},
    }
