"""Language models from scratch, as ordinary transformers classes."""

from collections.abc import Callable
from typing import Literal

import torch
from accelerate import PartialState
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedModel,
    set_seed,
)

Family = Literal["gpt2", "llama"]


def device() -> torch.device:
    """Where models are trained and asked: accelerate's choice, which is the GPU where there is one."""
    return PartialState().device


def host_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A model's weights in the host's memory: those of several models, to be merged, may be more than a GPU holds."""
    return {name: tensor.cpu() for name, tensor in model.state_dict().items()}


def _gpt2(hidden: int, layers: int, heads: int, context: int, **rest) -> PretrainedConfig:
    # Dropout is off: at one epoch or less it costs loss and makes paired seeds noisier.
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    # GPT-2's own activation in one fused operation: the same function, a tenth of a small model's step less.
    settings = {"activation_function": "gelu_pytorch_tanh", **dropout, **rest}
    return GPT2Config(n_embd=hidden, n_layer=layers, n_head=heads, n_positions=context, **settings)


def _llama(hidden: int, layers: int, heads: int, context: int, **rest) -> PretrainedConfig:
    # The gated feed-forward has three matrices; 8/3 of the width gives it the parameters of two at 4.
    width = {"intermediate_size": round(hidden * 8 / 3 / 8) * 8}
    return LlamaConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=context,
        **width,
        **rest,
    )


CONFIGS: dict[str, Callable[..., PretrainedConfig]] = {"gpt2": _gpt2, "llama": _llama}


def new_language_model(
    family: Family,
    *,
    vocab_size: int,
    hidden: int,
    layers: int,
    heads: int,
    context: int,
    tied: bool,
    embedding_std: float,
    seed: int,
) -> PreTrainedModel:
    """A causal language model with random weights; `seed` fixes them all.

    `embedding_std` is the standard deviation of the input embedding. With an untied head .3 avoids a plateau on
    which small models with the usual .02 stay for hundreds of steps and which they leave at random.
    The model maps `input_ids (batch, length)` to `logits (batch, length, vocab)`.
    """
    set_seed(seed)
    config = CONFIGS[family](
        hidden,
        layers,
        heads,
        context,
        vocab_size=vocab_size,
        tie_word_embeddings=tied,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        embedding = model.get_input_embeddings().weight
        embedding.mul_(embedding_std / embedding.std())
    return model


def parameter_count(model: torch.nn.Module) -> int:
    """Number of parameters, a shared tensor counted once."""
    return sum(parameter.numel() for parameter in model.parameters())
