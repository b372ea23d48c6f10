"""The sizes of language models: read, checked, written, and the number of parameters that they come to."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from transformers import PretrainedConfig

from common.errors import UserError

NAMES = ("hidden", "ff", "heads", "kv_heads", "layers")


@dataclass(frozen=True)
class Sizes:
    """Residual width, feed-forward units a layer, heads of queries and of keys and values, layers, entries a head."""

    hidden: int
    ff: int
    heads: int
    kv_heads: int
    layers: int
    head_dim: int


def sizes_of(config: PretrainedConfig) -> Sizes:
    """The sizes in a Llama's or GPT-2's configuration."""
    if config.model_type == "gpt2":
        ff = config.n_inner or 4 * config.n_embd
        return Sizes(config.n_embd, ff, config.n_head, config.n_head, config.n_layer, config.n_embd // config.n_head)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = config.num_attention_heads
    keys = config.num_key_value_heads
    return Sizes(config.hidden_size, config.intermediate_size, heads, keys, config.num_hidden_layers, head_dim)


def grown_sizes(config: PretrainedConfig, to: Mapping[str, int]) -> Sizes:
    """The sizes of a larger model; what `to` leaves out follows `hidden` in proportion, heads of keys the heads.

    Raises `UserError` on an unknown or missing name, a size below the old one, and sizes that do not fit together.
    """
    old = sizes_of(config)
    if unknown := [name for name in to if name not in NAMES]:
        raise UserError(f"there is no size {unknown[0]!r}, allowed: {', '.join(NAMES)}")
    for name, size in to.items():
        least = getattr(old, name)
        if isinstance(size, bool) or not isinstance(size, int) or size < least:
            raise UserError(f"{name} is {size}, allowed: {least}, which the model has, or more")
    follow = {name: _in_proportion(name, old, to) for name in ("ff", "heads") if name not in to}
    new = replace(old, **{**follow, **to})
    if "kv_heads" not in to:
        same_share, rest = divmod(new.heads * old.kv_heads, old.heads)
        new = replace(new, kv_heads=old.kv_heads if rest else same_share)
    if new.heads % new.kv_heads:
        raise UserError(f"heads is {new.heads} on kv_heads {new.kv_heads}, allowed: a multiple of them")
    if new.hidden % new.heads:  # transformers opens no other, though nothing in a Llama depends on it
        raise UserError(f"heads is {new.heads}, allowed: divisors of hidden, which is {new.hidden}")
    if config.model_type == "gpt2":
        if new.kv_heads != new.heads:
            raise UserError(f"kv_heads is {new.kv_heads}, allowed in a GPT-2: its heads, which are {new.heads}")
        if new.heads * new.head_dim != new.hidden:
            raise UserError(
                f"heads of a GPT-2 share its width and keep their size of {new.head_dim}: "
                f"hidden={new.hidden} needs heads={new.hidden / new.head_dim:g}, not {new.heads}"
            )
    return new


def _in_proportion(name: str, old: Sizes, to: Mapping[str, int]) -> int:
    size, rest = divmod(getattr(old, name) * to.get("hidden", old.hidden), old.hidden)
    if rest:
        raise UserError(f"{name} would not be whole at hidden={to['hidden']} of {old.hidden}: name it too")
    return size


def resized(config: PretrainedConfig, sizes: Sizes) -> PretrainedConfig:
    """The same configuration with other sizes."""
    new = copy.deepcopy(config)
    if config.model_type == "gpt2":
        named = {"n_embd": sizes.hidden, "n_inner": sizes.ff, "n_head": sizes.heads, "n_layer": sizes.layers}
    else:
        named = {
            "hidden_size": sizes.hidden,
            "intermediate_size": sizes.ff,
            "num_attention_heads": sizes.heads,
            "num_key_value_heads": sizes.kv_heads,
            "num_hidden_layers": sizes.layers,
            "head_dim": sizes.head_dim,
        }
    for key, value in named.items():
        setattr(new, key, value)
    return new


def parameters_at(config: PretrainedConfig, sizes: Sizes) -> int:
    """The number of parameters of a Llama or GPT-2 of these sizes, a tied head counted once, in closed form."""
    hidden, ff, layers = sizes.hidden, sizes.ff, sizes.layers
    queries, keys = sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
    tokens = config.vocab_size * hidden * (1 if config.tie_word_embeddings else 2)
    if config.model_type == "gpt2":
        attention = 3 * queries * (hidden + 1) + hidden * (queries + 1)
        return tokens + config.n_positions * hidden + 2 * hidden + layers * (
            attention + ff * (hidden + 1) + hidden * (ff + 1) + 4 * hidden
        )  # fmt: skip
    attention = hidden * (2 * queries + 2 * keys) + config.attention_bias * (queries + 2 * keys + hidden)
    feed_forward = 3 * hidden * ff + config.mlp_bias * (2 * ff + hidden)
    return tokens + hidden + layers * (attention + feed_forward + 2 * hidden)


def sizes_with(
    config: PretrainedConfig, parameters: int, *, hidden: Sequence[int], layers: Sequence[int]
) -> list[dict[str, int]]:
    """All ways to grow to exactly `parameters` at these widths and depths, as `expand` takes them.

    At each width and depth at most one number of feed-forward units fits, as heads follow the width.
    Raises `UserError` where none does, with the nearest number that one can have.
    """
    found, nearest = [], None
    for wide in hidden:
        for deep in layers:
            least = grown_sizes(config, {"hidden": wide, "layers": deep, "ff": sizes_of(config).ff})
            start = parameters_at(config, least)
            each = parameters_at(config, replace(least, ff=least.ff + 1)) - start
            extra, rest = divmod(parameters - start, each)
            if extra < 0:
                continue
            if not rest:
                sizes: dict[str, Any] = asdict(replace(least, ff=least.ff + extra))
                found.append({name: sizes[name] for name in NAMES})
            near = parameters - rest if rest * 2 < each else parameters - rest + each
            nearest = near if nearest is None or abs(near - parameters) < abs(nearest - parameters) else nearest
    if not found:
        raise UserError(f"no model of these widths and depths has {parameters} parameters; the nearest has {nearest}")
    return found
