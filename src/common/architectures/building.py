"""A new model with as many parameters as asked for, whatever its architecture."""

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel, set_seed

from common.architectures.families import FAMILIES, Family, Shape
from common.architectures.recurrence import with_parallel_scan
from common.errors import UserError
from common.models import parameter_count

TOLERANCE = 0.02  # of the number of parameters
LEAST = 8  # inner size: a state or a feed-forward of less is a model of its family by name only


def build(
    family: Family,
    shape: Shape,
    *,
    vocab_size: int,
    context: int,
    parameters: int,
    seed: int,
    embedding_std: float = 0.3,
) -> PreTrainedModel:
    """A causal language model with random weights and `parameters` parameters, embeddings included, to 2%.

    The inner size is found that comes closest. `seed` fixes all weights. What the layers get from the input embedding
    has the standard deviation `embedding_std`: see `common.models.new_language_model`. The model maps `input_ids
    (batch, length)` to `logits (batch, length, vocab)`; attention sees `context` tokens back. RecurrentGemma has
    the scan of `common.architectures.recurrence`.
    Raises `UserError` where no inner size of 8 or more comes as close as 2%.
    """
    limits = {"vocab_size": vocab_size, "max_position_embeddings": context}
    limits |= {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    inner = _closest(family, shape, parameters, limits)
    set_seed(seed)
    model = AutoModelForCausalLM.from_config(FAMILIES[family](shape, inner, **limits))
    found = parameter_count(model)
    if inner < LEAST or abs(found - parameters) > TOLERANCE * parameters:
        raise UserError(
            f"{family} of hidden={shape.hidden} and layers={shape.layers} has {found} parameters at an inner size of "
            f"{inner}; wanted: {parameters} to {TOLERANCE:.0%}, at {LEAST} or more"
        )
    with torch.no_grad():
        embedding = model.get_input_embeddings().weight
        embedding.mul_(embedding_std / (embedding.std() * _embedding_scale(model.config)))
    return with_parallel_scan(model)


def _closest(family: Family, shape: Shape, parameters: int, limits: dict) -> int:
    """The inner size, at least 1, whose number of parameters is nearest: the number grows with the size."""
    low, high = 1, 2
    while _count(family, shape, high, limits) < parameters:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _count(family, shape, middle, limits) < parameters else (low, middle)
    return min((low, high), key=lambda inner: abs(_count(family, shape, inner, limits) - parameters))


def _count(family: Family, shape: Shape, inner: int, limits: dict) -> int:
    with torch.device("meta"):
        return parameter_count(AutoModelForCausalLM.from_config(FAMILIES[family](shape, inner, **limits)))


def _embedding_scale(config: PretrainedConfig) -> float:
    """What the model multiplies its embeddings by."""
    return config.hidden_size**0.5 if config.model_type == "recurrent_gemma" else 1.0
