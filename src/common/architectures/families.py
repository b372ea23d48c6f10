"""Configurations by architecture: the shape is given, one inner size is free to make up the number of parameters.

Llama: Touvron et al., arXiv 2302.13971. Mamba-2: Dao and Gu, arXiv 2405.21060. xLSTM: Beck et al., arXiv 2405.04517.
RecurrentGemma (Griffin): De et al., arXiv 2402.19427. Of these transformers has classes that train on a CPU at no less
than a third of Llama's speed; of Mamba-1, FalconMamba and Jamba it has none without a compiled scan.
"""

from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator
from transformers import LlamaConfig, Mamba2Config, PretrainedConfig, RecurrentGemmaConfig, xLSTMConfig

from common.architectures import xlstm  # noqa: F401  (registers the class)
from common.architectures.lstm import LSTMConfig

Family = Literal["llama", "lstm", "mamba2", "recurrent_gemma", "xlstm"]
Block = Literal["attention", "recurrent"]


class Shape(BaseModel):
    """What is alike in all architectures, and which blocks RecurrentGemma has.

    `blocks` repeat until there are `layers`; other families ignore them. An xLSTM's or a Mamba-2's layer has as many
    heads as an attention layer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    hidden: PositiveInt
    layers: PositiveInt
    heads: PositiveInt
    blocks: Annotated[tuple[Block, ...], Field(min_length=1)] = ("recurrent", "recurrent", "attention")

    @model_validator(mode="after")
    def _makes_sense(self) -> "Shape":
        if self.hidden % (2 * self.heads):
            raise ValueError(f"hidden must be a multiple of twice heads={self.heads}: rotary positions need even heads")
        return self


CHUNK = 8
"""Tokens that Mamba-2 and xLSTM compute at once: documents are short, and a chunk that is not full costs as much."""


def _llama(shape: Shape, inner: int, **rest: object) -> PretrainedConfig:
    return LlamaConfig(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=inner,
        initializer_range=shape.hidden**-0.5,  # with .02 a narrow model attends to all alike for hundreds of steps
        tie_word_embeddings=False,
        **rest,
    )


def _recurrent_gemma(shape: Shape, inner: int, *, max_position_embeddings: int, **rest: object) -> PretrainedConfig:
    config = RecurrentGemmaConfig(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=2 * inner,  # the class halves it
        block_types=list(shape.blocks),
        attention_window_size=max_position_embeddings,
        tie_word_embeddings=False,
        **rest,
    )
    # transformers asks the cache for its length, which one of recurrent layers alone does not know.
    config.use_cache = "sliding_attention" in config.layers_block_type
    return config


def _mamba2(shape: Shape, inner: int, *, max_position_embeddings: int, **rest: object) -> PretrainedConfig:
    # Three times the width instead of twice: the layer is also what a feed-forward is to the others. The state is left
    # to make up for the rest, which makes it about as large as the usual 128.
    return Mamba2Config(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        expand=3,
        num_heads=shape.heads,
        head_dim=3 * shape.hidden // shape.heads,
        n_groups=1,
        state_size=inner,
        chunk_size=CHUNK,
        tie_word_embeddings=False,
        **rest,
    )


def _xlstm(shape: Shape, inner: int, *, max_position_embeddings: int, **rest: object) -> PretrainedConfig:
    return xLSTMConfig(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_heads=shape.heads,
        ffn_proj_factor=inner / shape.hidden,
        ffn_round_up_to_multiple_of=1,
        chunk_size=CHUNK,
        autocast_kernel_dtype="float32",
        **rest,
    )


def _lstm(shape: Shape, inner: int, *, max_position_embeddings: int, **rest: object) -> PretrainedConfig:
    return LSTMConfig(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        inner_size=inner,
        initializer_range=shape.hidden**-0.5,
        **rest,
    )


FAMILIES: dict[str, Callable[..., PretrainedConfig]] = {
    "llama": _llama,
    "lstm": _lstm,
    "mamba2": _mamba2,
    "recurrent_gemma": _recurrent_gemma,
    "xlstm": _xlstm,
}
"""From a shape and an inner size to a configuration; the inner size is the width of the feed-forward, of LSTM layers
the width, of Mamba-2 the size of the state."""
