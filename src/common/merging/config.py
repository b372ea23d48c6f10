"""The YAML file that says what to merge and how, in mergekit's words."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from common.errors import UserError
from common.merging.recipe import METHODS, Recipe, takes_base

KEYS = (
    *("merge_method", "base_model", "models", "slices", "parameters", "dtype", "out_dtype"),
    *("tokenizer_source", "tokenizer"),
)
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
IDLE = {
    "task_arithmetic": ("int8_mask", "rescale"),
    "ties": ("int8_mask",),
    "dare_linear": ("int8_mask",),
    "dare_ties": ("int8_mask",),
}
"""Parameters that mergekit takes and that change nothing: smaller masks where none is kept, and, in task arithmetic,
scaling up after entries were dropped, where none is."""


@dataclass(frozen=True)
class Config:
    """What to merge and how: models by name, the base's first where the method takes one.

    `layers` is the number that every model must have, where the file says it; `dtype` that of the merged tensors, by
    default the widest among the models; `donor` the model whose configuration the merged one gets.
    """

    names: tuple[str, ...]
    recipe: Recipe
    layers: int | None
    dtype: torch.dtype | None
    donor: str
    tokenizer_source: str | None
    text: str


@dataclass(frozen=True)
class _Source:
    model: str
    settings: dict[str, Any]


def read_config(path: Path, seed: int | None = None) -> Config:
    """Read a mergekit file of one of our methods.

    Raises `UserError`, one line, on what is not understood: nothing is ignored.
    """
    try:
        text = path.read_text()
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    try:
        return _config(content, text, seed)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def _config(content: Any, text: str, seed: int | None) -> Config:
    _check_keys("the file", content, KEYS)
    method, base = content.get("merge_method"), _name("base_model", content.get("base_model"))
    if method not in METHODS:
        raise ValueError(f"merge_method is {method!r}, allowed: {', '.join(METHODS)}")
    if ("models" in content) == ("slices" in content):
        raise ValueError("give either models or slices")
    shared, layers = [_settings("the file", content)], None
    if "slices" in content:
        whole = _list("slices", content["slices"])
        if len(whole) > 1:
            raise ValueError("slices has more than one entry: models are merged whole, from first to last layer")
        _check_keys("slices", whole[0], ("sources", "base_model", "parameters"))
        base = _name("base_model", whole[0].get("base_model")) or base
        shared.insert(0, _settings("slices", whole[0]))
        entries = _list("sources", whole[0].get("sources"))
        layers = _layers(entries)
        sources = [_source(entry, ("model", "layer_range", "parameters")) for entry in entries]
    else:
        sources = [_source(entry, ("model", "parameters")) for entry in _list("models", content["models"])]
    names = [source.model for source in sources]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{twice[0]} is there more than once")
    sources, first = _order(method, base, sources)
    recipe = Recipe(method, _without_idle(shared, method), [[source.settings] for source in sources], seed)
    source = _tokenizer_source(content, base)
    return Config(
        names=(*first, *(source.model for source in sources)),
        recipe=recipe,
        layers=layers,
        dtype=_dtype(content),
        donor=base or names[0],
        tokenizer_source=source,
        text=text,
    )


def _tokenizer_source(content: Mapping[str, Any], base: str | None) -> str | None:
    """The model whose tokenizer the file asks for, in either of mergekit's ways to say it."""
    if "tokenizer" in content and "tokenizer_source" in content:
        raise ValueError("give either tokenizer or tokenizer_source")
    if "tokenizer" in content:
        _check_keys("tokenizer", content["tokenizer"], ("source",))
        where, source = "the source of tokenizer", content["tokenizer"].get("source")
    else:
        where, source = "tokenizer_source", content.get("tokenizer_source")
    source = _name(where, source)
    if source == "union":
        raise ValueError(f"{where} is union, allowed: base or a model (vocabularies are not joined)")
    if source == "base" and base is None:
        raise ValueError(f"{where} is base, and there is no base_model")
    return base if source == "base" else source


def _order(method: str, base: str | None, sources: list[_Source]) -> tuple[list[_Source], list[str]]:
    """The models that have parameters of their own, and the base before them where the method takes one."""
    if not takes_base(method):
        # As in mergekit a base is one more model here.
        added = [_Source(base, {})] if base is not None and base not in {source.model for source in sources} else []
        return sources + added, []
    if base is None:
        raise ValueError(f"{method} needs base_model")
    if any(source.settings for source in sources if source.model == base):
        raise ValueError(f"{base} is the base: it takes no parameters of its own")
    return [source for source in sources if source.model != base], [base]


def _without_idle(shared: list[dict[str, Any]], method: str) -> list[dict[str, Any]]:
    return [{name: value for name, value in scope.items() if name not in IDLE.get(method, ())} for scope in shared]


def _source(entry: Any, keys: Collection[str]) -> _Source:
    _check_keys("a model", entry, keys)
    name = _name("model", entry.get("model"))
    if name is None:
        raise ValueError("an entry names no model")
    return _Source(name, _settings(name, entry))


def _layers(entries: list[Any]) -> int:
    ranges = [entry.get("layer_range") if isinstance(entry, dict) else None for entry in entries]
    first = ranges[0]
    whole = isinstance(first, list) and len(first) == 2 and first[0] == 0 and isinstance(first[1], int)
    if not whole or any(each != first for each in ranges):
        raise ValueError(f"layer_range is {ranges}, allowed: the whole model, [0, number of layers], of each source")
    return first[1]


def _settings(where: str, content: Mapping[str, Any]) -> dict[str, Any]:
    settings = content.get("parameters") or {}
    if not isinstance(settings, dict):
        raise ValueError(f"parameters of {where} is {settings!r}, allowed: names with values")
    return settings


def _dtype(content: Mapping[str, Any]) -> torch.dtype | None:
    for key in ("dtype", "out_dtype"):
        if content.get(key) not in (None, *DTYPES):
            raise ValueError(f"{key} is {content[key]!r}, allowed: {', '.join(DTYPES)}")
    return DTYPES.get(content.get("out_dtype") or content.get("dtype"))


def _name(key: str, value: Any) -> str | None:
    if value is None or (isinstance(value, str) and value and "+" not in value):
        return value
    if isinstance(value, str) and value:
        raise ValueError(f"{key} is {value}: adapters are not merged; first merge it into its model (peft)")
    raise ValueError(f"{key} is {value!r}, allowed: a folder, or owner/name@commit")


def _list(key: str, value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{key} is {value!r}, allowed: a list")
    return value


def _check_keys(where: str, content: Any, allowed: Collection[str]) -> None:
    if not isinstance(content, dict):
        raise ValueError(f"{where} is {content!r}, allowed: {', '.join(allowed)} with values")
    for key in content:
        if key not in allowed:
            raise ValueError(f"{key} is not supported; allowed in {where}: {', '.join(allowed)}")
