"""One training loop for every study: a module, a loss, a batch for each step.

A batch is a function of the step alone, so a run that was cut off goes on from its checkpoint with the same
batches, and resumed equals uninterrupted bit for bit on one machine's CPU.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from safetensors.torch import load_file, load_model, save_file, save_model

from common.errors import UserError
from common.files import atomic_folder
from common.models import parameter_count
from common.sharded import is_sharded, load_shares, shares_of_moments, whole, whole_model

Batch = Mapping[str, torch.Tensor]


class NonFiniteLoss(RuntimeError):
    """The loss became NaN or infinite; the message names the step and the setting."""


@dataclass(frozen=True)
class Plan:
    """How long and how fast: AdamW with linear warm-up, then a cosine to `final_share` of the peak rate."""

    steps: int
    learning_rate: float
    warmup: int
    clip: float = 1.0  # largest norm of the gradient
    final_share: float = 0.1
    log_every: int = 50  # steps; losses are looked at, and evaluated, this often
    precision: Literal["no", "bf16"] = "no"  # accelerate's mixed precision

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        share = (step - self.warmup) / max(1, self.steps - self.warmup)
        cosine = 0.5 * (1 + math.cos(math.pi * share))
        return self.learning_rate * (self.final_share + (1 - self.final_share) * cosine)


@dataclass
class Trained:
    """What a run did. `curve` has a row each `log_every` steps: step, tokens, loss (nats) and the evaluations."""

    curve: list[dict[str, float]] = field(default_factory=list)
    used: dict[str, object] = field(default_factory=dict)
    diverged_at: int | None = None  # first step whose loss passed `stop_above`


def adamw(
    model: torch.nn.Module,
    *,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.95),
) -> torch.optim.AdamW:
    """AdamW that decays matrices only, as is usual: norms and biases have no scale to keep small."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.dim() < 2], "weight_decay": 0.0},
    ]
    # Fused: the same update in one pass over each tensor instead of a dozen, a fifth of a small model's step.
    return torch.optim.AdamW([group for group in groups if group["params"]], betas=betas, fused=True)


def language_loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Mean next-token cross-entropy in nats of `input_ids (batch, length)`."""
    ids = batch["input_ids"]
    logits = model(input_ids=ids).logits
    # The last position has nothing to predict. Marking it costs less than cutting it out, which copies all logits.
    following = torch.nn.functional.pad(ids[:, 1:], (0, 1), value=-100)
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), following.flatten(), ignore_index=-100)


def train(
    model: torch.nn.Module,
    loss: Callable[[torch.nn.Module, Batch], torch.Tensor],
    batch: Callable[[int], Batch],
    plan: Plan,
    *,
    optimizer: torch.optim.Optimizer,
    evaluate: Callable[[torch.nn.Module], dict[str, float]] | None = None,
    stop_above: float | None = None,
    setting: str = "",
    checkpoint: Path | None = None,
    checkpoint_every: int = 0,
) -> Trained:
    """Train `model` in place for `plan.steps` steps.

    `batch(step)` gives the tensors of a step; `evaluate(model)` runs, in evaluation mode, each `log_every` steps and
    after the last. With `checkpoint` and `checkpoint_every` the whole state (weights, moments, random numbers, curve)
    is kept there as safetensors and a run that finds it goes on from it; of several processes the first writes.

    A training or evaluation loss that is not finite raises `NonFiniteLoss` with its step and `setting`, unless
    `stop_above` is given: then such a loss, or a training loss above it, ends the run and is reported as `diverged_at`.
    """
    if checkpoint is not None and (checkpoint_every < 1 or checkpoint_every % plan.log_every):
        raise ValueError(f"checkpoint_every is {checkpoint_every}, allowed: a multiple of log_every={plan.log_every}")
    AcceleratorState._reset_state(reset_partial_state=False)  # one process trains many models, each with its precision
    accelerator = Accelerator(mixed_precision=plan.precision)
    if checkpoint is not None and accelerator.distributed_type == DistributedType.FSDP and not accelerator.is_fsdp2:
        raise UserError("FSDP of version 1 has no checkpoint: set fsdp_version: 2, or train without one")
    bare = model
    model, optimizer = accelerator.prepare(model, optimizer)
    trained = Trained()
    start, counted = 0, {"examples": 0, "tokens": 0}
    if checkpoint is not None and (checkpoint / "state.json").exists():
        start, counted = _resume(checkpoint, bare, optimizer, plan, trained)
    losses = torch.zeros(plan.steps, device=accelerator.device)
    logged = start
    for step in range(start, plan.steps):
        model.train()
        # The host goes on while a GPU computes: this loop waits for it where losses are looked at, and nowhere else.
        tensors = {name: value.to(accelerator.device, non_blocking=True) for name, value in batch(step).items()}
        with accelerator.autocast():
            value = loss(model, tensors)
        accelerator.backward(value)
        accelerator.clip_grad_norm_(model.parameters(), plan.clip)
        for group in optimizer.param_groups:
            group["lr"] = plan.rate(step)
        optimizer.step()
        optimizer.zero_grad()
        losses[step] = value.detach()
        counted["examples"] += len(next(iter(tensors.values())))
        counted["tokens"] += tensors["input_ids"].numel() if "input_ids" in tensors else 0
        last = step + 1 == plan.steps
        if last or (step + 1) % plan.log_every == 0:
            recent = losses[logged : step + 1].cpu()
            trained.diverged_at = _first_bad(recent, logged, stop_above, setting)
            if trained.diverged_at is not None:
                break
            row = {"step": step + 1, "tokens": counted["tokens"], "loss": recent.mean().item()}
            found = _evaluated(model, evaluate) if evaluate else {}
            # The last step of a run may be the one that breaks it: no training loss shows that, the evaluation does.
            if not all(math.isfinite(number) for number in found.values()):
                if stop_above is None:
                    raise NonFiniteLoss(f"evaluation gives {found} at step {step} ({setting or 'no setting named'})")
                trained.diverged_at = step
                break
            trained.curve.append(row | found)
            logged = step + 1
        if checkpoint is not None and (step + 1) % checkpoint_every == 0:
            _save(checkpoint, bare, optimizer, plan, step + 1, counted, trained)
    _without_autocast(bare)
    trained.used = {
        "parameters": parameter_count(bare),
        "trainable": sum(p.numel() for p in bare.parameters() if p.requires_grad),
        "dtype": str(next(bare.parameters()).dtype).removeprefix("torch."),
        "precision": accelerator.mixed_precision,
        "device": accelerator.device.type,
        "optimizer": type(getattr(optimizer, "optimizer", optimizer)).__name__,
        **counted,
    }
    return trained


def _without_autocast(model: torch.nn.Module) -> None:
    """Undo what accelerate does to a model's forward pass for mixed precision: what comes next is not training."""
    if "_original_forward" in vars(model):
        model.forward = vars(model).pop("_original_forward")
        vars(model).pop("_is_accelerate_prepared", None)  # so that another training prepares it anew


def _first_bad(losses: torch.Tensor, offset: int, stop_above: float | None, setting: str) -> int | None:
    bad = ~losses.isfinite() if stop_above is None else ~(losses <= stop_above)
    if not bad.any():
        return None
    place = int(bad.nonzero()[0])
    if stop_above is None:
        step = offset + place
        raise NonFiniteLoss(f"loss is {losses[place].item()} at step {step} ({setting or 'no setting named'})")
    return offset + place


@torch.no_grad()
def _evaluated(model: torch.nn.Module, evaluate: Callable[[torch.nn.Module], dict[str, float]]) -> dict[str, float]:
    model.eval()
    return evaluate(model)


def _save(folder: Path, model, optimizer, plan: Plan, step: int, counted: dict, trained: Trained) -> None:
    state = optimizer.state_dict()
    tensors, numbers = {}, {}
    for index, entry in state["state"].items():
        for name, value in entry.items():
            (tensors if torch.is_tensor(value) else numbers)[f"{index}.{name}"] = whole(value)
    weights = whole_model(model)
    if not PartialState().is_main_process:
        return  # it has given its shares
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    note = {
        "plan": asdict(plan),
        "step": step,
        "counted": counted,
        "curve": trained.curve,
        "numbers": numbers,
    }
    with atomic_folder(folder) as new:
        save_model(weights, str(new / "model.safetensors"))
        save_file({name: value.contiguous() for name, value in tensors.items()}, new / "optimizer.safetensors")
        (new / "state.json").write_text(json.dumps(note))


def _resume(folder: Path, model, optimizer, plan: Plan, trained: Trained) -> tuple[int, dict[str, int]]:
    note = json.loads((folder / "state.json").read_text())
    if note["plan"] != asdict(plan):
        raise UserError(f"the checkpoint in {folder} belongs to another plan; remove it or train to another folder")
    if is_sharded(model):
        load_shares(model, load_file(folder / "model.safetensors"))
    else:
        load_model(model, str(folder / "model.safetensors"))
    tensors = load_file(folder / "optimizer.safetensors")
    torch.set_rng_state(tensors.pop("random.cpu"))
    if "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors.pop("random.cuda"))
    state: dict[int, dict] = {}
    for name, value in (tensors | note["numbers"]).items():
        index, entry = name.split(".", 1)
        state.setdefault(int(index), {})[entry] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": shares_of_moments(optimizer, state), "param_groups": groups})
    trained.curve = note["curve"]
    return note["step"], note["counted"]
