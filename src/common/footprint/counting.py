"""What a step of training takes of a GPU's memory, told without a GPU: models on the meta device, no data.

Parameters are float32, as are gradients and AdamW's two moments. Activations are what autograd saves of a forward pass,
autocast's copies of weights among them; the gradient of the logits, the largest of what comes and goes, is counted on
top. Of a large model that is fine-tuned (see common.preference.recomputing) these are its layers' inputs and all of the
largest layer's. A run needs a little more: the kernels' workspace, and what PyTorch's allocator cannot fill. Of an LSTM
it does not see what the fused kernel keeps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from common.architectures.recurrence import with_parallel_scan
from common.models import parameter_count
from common.preference.recomputing import recomputing

WORD = 4  # bytes of a float32
ALL_LINEAR = "all-linear"  # peft's name for all linear layers but the head
STEPWISE = ("lstm", "mamba2", "xlstm")
"""Families whose layers go through a text step by step, in Python: a short one is measured and counts by its tokens."""
SHORT = 32  # tokens of that


@dataclass(frozen=True)
class Training:
    """A model that a study trains, and how much it sees at once."""

    study: str
    name: str
    make: Callable[[], nn.Module]
    rows: int
    length: int  # tokens
    precision: str = "no"
    rank: int = 0  # of an adapter, which alone is trained; 0 where all weights are
    targets: str | Sequence[str] = ALL_LINEAR  # layers that have one, by the last parts of their names
    tuned: bool = False  # by common.preference.finetuning


@dataclass(frozen=True)
class Footprint:
    """Parameters, those of an adapter among them, and bytes by what they are for, of a training step or an examination.

    Where nothing is trained there are neither gradients nor moments.
    """

    parameters: int
    weights: int
    gradients: int
    moments: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.moments + self.activations + self.logits


def footprint(training: Training) -> Footprint:
    """Memory of one step of a training."""
    config = on_meta(training).config
    with FakeTensorMode():
        model = with_parallel_scan(AutoModelForCausalLM.from_config(config))
        count = parameter_count(model)
        adapter = _adapter(model, training.rank, training.targets)
        rows, length = seen_of(model, training.rows, training.length)
        saved, logits = (_tuning_saved if training.tuned else _saved)(model, rows, length, training.precision)
    share = training.rows * training.length / (rows * length)
    trained = adapter or count
    bytes_of = (count + adapter, trained, 2 * trained)
    return Footprint(count + adapter, *(WORD * each for each in bytes_of), round(saved * share), round(logits * share))


def on_meta(training: Training) -> nn.Module:
    """The model with shapes and no data."""
    with torch.device("meta"):
        return training.make()


def seen_of(model: PreTrainedModel, rows: int, length: int) -> tuple[int, int]:
    """Rows and tokens that are gone through in place of these; the memory of all is larger by as much as they are."""
    return (1, min(SHORT, length)) if model.config.model_type in STEPWISE else (rows, length)


def _adapter(model: PreTrainedModel, rank: int, targets: str | Sequence[str]) -> int:
    """Parameters of an adapter: of each layer that has one, two matrices between its ends and the rank."""
    head = model.get_output_embeddings()
    linear = {name: each for name, each in model.named_modules() if isinstance(each, nn.Linear | Conv1D)}
    layers = [
        each
        for name, each in linear.items()
        if (each is not head if targets == ALL_LINEAR else name.rpartition(".")[2] in targets)
    ]
    return sum(rank * sum(layer.weight.shape) for layer in layers)


def _saved(model: nn.Module, rows: int, length: int, precision: str) -> tuple[int, int]:
    """Bytes that autograd saves of a forward pass, each storage once and parameters left out, and of the logits."""
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no storage takes another's place

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    ids = torch.zeros(rows, length, dtype=torch.long)
    half = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    with saved_tensors_hooks(pack, lambda tensor: tensor), half:
        logits = model.train()(input_ids=ids, use_cache=False).logits.float()
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten())
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    saved = sum(storage.nbytes() for key, storage in kept.items() if key not in own)
    del loss  # the graph, which holds what was saved, had to live until now
    return saved, logits.nbytes


def _tuning_saved(model: PreTrainedModel, *seen: Any) -> tuple[int, int]:
    """As `_saved`, but where layers are computed again, with that one of them beside which keeps most."""
    with recomputing(model) as layers:
        found = [_saved(model, *seen)]
        for layer in {(type(layer), parameter_count(layer)): layer for layer in layers}.values():
            layer.gradient_checkpointing = False
            found.append(_saved(model, *seen))
            layer.gradient_checkpointing = True
    return max(found)
