"""Bytes that training needs, by component, counted from the tensors of a real step.

Once as measured with fake quantisation, where every value still is floating point, and once as the very same tensors
would need in true integers. Chitsaz et al., arXiv 2407.11722, motivate quantised pre-training by these shares.
"""

import copy
import math
from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from transformers import PreTrainedModel

from common.quantization.adam import quantize_moments
from common.quantization.model import linear_layers, quantize
from common.quantization.recipe import Quantizer, Recipe
from common.training import adamw, language_loss

SCALE_BYTES = 4  # a float32 scale, or an int32 zero point


def integer_bytes(x: Tensor, quantizer: Quantizer, *, channel_dim: int = 0) -> int:
    """Bytes of `x` in packed codes of `quantizer.bits` and a scale per group, with a zero point if asymmetric.

    `channel_dim` is the output dimension of a weight, as in `fake.fake_quantize`.
    """
    scales = {
        "tensor": 1,
        "token": math.prod(x.shape[:-1]),
        "channel": x.shape[channel_dim],
        "group": x.numel() // (quantizer.group_size or x.numel()),
    }[quantizer.granularity]
    return math.ceil(x.numel() * quantizer.bits / 8) + scales * SCALE_BYTES * (1 if quantizer.symmetric else 2)


def training_memory(model: PreTrainedModel, recipe: Recipe, batch_size: int, context: int) -> dict[str, dict[str, int]]:
    """Bytes by component of one pass forward and backward and one AdamW step, on token ids (batch_size, context).

    Each component has its bytes as `simulated`, measured, and as `integer`: tensors that hold quantised values count
    as `integer_bytes`, all others as they are.

      weights            the full-precision parameters that the optimiser updates: the same in both
      quantized_weights  copies of linear weights that the backward pass keeps
      gradients          of the parameters: the same in both. A gradients quantiser acts on an output's gradient
                         within one product of the backward pass, and nothing of it is stored
      first_moment, second_moment   Adam's; the recipe covers those of linear weights
      linear_inputs      what linear layers save for the backward pass, whoever else saves it too
      other_activations  what everything else saves: attention, norms, nonlinearities, token ids, the loss

    A weights or activations quantiser saves memory in neither way with the paper's backward pass: it multiplies with
    the unquantised weight and input, so these are what has to be kept, and quantised ones live for one product only.
    With `backward="straight-through"` the quantised ones are kept. Simulated, that costs more than full precision:
    a copy of each weight, and of an input for each layer that reads it. In integers inputs become small, and the copy
    of the weights comes on top of `weights`, unless one trains without these.

    Activations are what autograd saved, each storage once, parameters left out; how attention is computed, thus the
    device, matters. The sum over components is no peak: activations go while gradients come, and what lives within
    one operation is not counted. `model` must be unquantised; it stays unchanged, as do the random numbers.

    Raises `UserError` where `quantize` and `quantize_moments` do, and `ValueError` for a batch size below 1 or a
    context that is not between 2 and what the model can take.
    """
    longest = model.config.max_position_embeddings
    if batch_size < 1 or not 2 <= context <= longest:
        raise ValueError(
            f"batch size {batch_size} and context {context}, allowed: from 1, and from 2 to the model's {longest}"
        )
    model = copy.deepcopy(model).train()
    quantize(model, recipe)
    optimizer = adamw(model, weight_decay=0.0)
    quantize_moments(optimizer, model, recipe)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.vocab_size, (batch_size, context), generator=generator).to(model.device)
    with torch.random.fork_rng():  # for dropout
        loss, saved = _forward(model, recipe, ids)
        loss.backward()
    optimizer.step()
    weights = sum(parameter.nbytes for parameter in model.parameters())
    gradients = sum(parameter.grad.nbytes for parameter in model.parameters() if parameter.grad is not None)
    return {
        "weights": {"simulated": weights, "integer": weights},
        "quantized_weights": saved["quantized_weights"],
        "gradients": {"simulated": gradients, "integer": gradients},
        "first_moment": _moment(model, optimizer, "exp_avg", recipe.first_moment),
        "second_moment": _moment(model, optimizer, "exp_avg_sq", recipe.second_moment),
        "linear_inputs": saved["linear_inputs"],
        "other_activations": saved["other_activations"],
    }


def memory_table(
    model: PreTrainedModel, recipes: Sequence[Recipe], batch_sizes: Sequence[int], context: int
) -> pd.DataFrame:
    """`training_memory` of every recipe at every batch size, in their order.

    Columns: setting (the recipe's label), backward, batch_size, component, storage (simulated or integer), bytes.
    """
    return pd.DataFrame(
        {
            "setting": recipe.label,
            "backward": recipe.backward,
            "batch_size": batch_size,
            "component": component,
            "storage": storage,
            "bytes": count,
        }
        for recipe in recipes
        for batch_size in batch_sizes
        for component, counts in training_memory(model, recipe, batch_size, context).items()
        for storage, count in counts.items()
    )


def _forward(model: nn.Module, recipe: Recipe, ids: Tensor) -> tuple[Tensor, dict[str, dict[str, int]]]:
    """The loss, and bytes by component of what autograd saved on the way to it."""
    storages: dict[int, torch.UntypedStorage] = {}  # held, so that no address is used twice
    quantized: dict[int, int] = {}  # bytes in integers
    components: dict[int, str] = {}

    def pack(tensor: Tensor) -> Tensor:
        storages[_address(tensor)] = tensor.untyped_storage()
        return tensor

    def recognise(layer: nn.Module, args: tuple, output: Tensor) -> None:
        x, weight = output.grad_fn.saved_tensors
        for component, tensor, quantizer, channel_dim in (
            ("linear_inputs", x, recipe.activations, 0),
            ("quantized_weights", weight, recipe.weights, layer.quantization.channel_dim),
        ):
            components[_address(tensor)] = component
            if recipe.backward == "straight-through" and quantizer is not None:
                quantized[_address(tensor)] = integer_bytes(tensor, quantizer, channel_dim=channel_dim)

    for layer in linear_layers(model).values():
        layer.register_forward_hook(recognise)
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = language_loss(model, {"input_ids": ids})
    saved = {
        name: {"simulated": 0, "integer": 0} for name in ("quantized_weights", "linear_inputs", "other_activations")
    }
    for address in storages.keys() - {_address(parameter) for parameter in model.parameters()}:
        counts = saved[components.get(address, "other_activations")]
        size = storages[address].nbytes()
        counts["simulated"] += size
        counts["integer"] += quantized.get(address, size)
    return loss, saved


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _moment(
    model: nn.Module, optimizer: torch.optim.Optimizer, key: str, quantizer: Quantizer | None
) -> dict[str, int]:
    channel_dims = {layer.weight: layer.quantization.channel_dim for layer in linear_layers(model).values()}
    counts = {"simulated": 0, "integer": 0}
    for parameter, state in optimizer.state.items():
        covered = quantizer is not None and parameter in channel_dims
        counts["simulated"] += state[key].nbytes
        counts["integer"] += (
            integer_bytes(state[key], quantizer, channel_dim=channel_dims[parameter]) if covered else state[key].nbytes
        )
    return counts
