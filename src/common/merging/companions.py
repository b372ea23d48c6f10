"""What lies beside a model's weights: configuration, tokenizer, settings of generation; and the merged one's card."""

import json
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from common.errors import UserError
from common.files import digest, write_atomic
from common.merging.config import Config
from common.merging.recipe import METHODS

VOCABULARIES = ("tokenizer.json", "vocab.json", "tokenizer.model")
TOKENIZER = (
    *VOCABULARIES,
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt"),
    *("chat_template.jinja", "chat_template.json"),
)
GENERATION = "generation_config.json"
MEANING = (
    *("model_type", "num_attention_heads", "n_head", "num_key_value_heads", "head_dim", "hidden_act"),
    *("activation_function", "rope_theta", "rope_scaling", "rope_parameters"),
)
"""Keys of a configuration that say what weights of the same shape do."""
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def read_configuration(folder: Path) -> dict[str, Any]:
    """A folder's config.json. Raises `UserError` where it is missing or broken."""
    path = folder / "config.json"
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no configuration")
    return content


def check_configurations(configurations: Mapping[str, dict[str, Any]]) -> None:
    """Raise `UserError` where two models, given by name, use weights of the same name differently."""
    (first, expected), *others = configurations.items()
    for name, found in others:
        for key in MEANING:
            if key in expected and key in found and expected[key] != found[key]:
                raise UserError(f"{key} is {expected[key]!r} in {first} and {found[key]!r} in {name}")


def with_tokenizer(folders: Mapping[str, Path]) -> dict[str, Path]:
    """Those of the folders that hold a tokenizer."""
    return {name: folder for name, folder in folders.items() if any((folder / kind).is_file() for kind in VOCABULARIES)}


def check_vocabularies(folders: Mapping[str, Path]) -> None:
    """Raise `UserError` unless the tokenizers of all models, given by name, have one vocabulary."""
    if len(folders) < 2:
        return
    kind = next((kind for kind in VOCABULARIES if all((path / kind).is_file() for path in folders.values())), None)
    if kind is None:
        raise UserError(f"{', '.join(folders)} have vocabularies in different files, which cannot be compared")
    (first, folder), *others = folders.items()
    content = (folder / kind).read_bytes()
    for name, other in others:
        if (other / kind).read_bytes() == content:
            continue
        here, there = _vocabulary(folder / kind), _vocabulary(other / kind)
        if here != there:
            word = min(word for word in here.keys() | there.keys() if here.get(word) != there.get(word))
            ids = f"{word!r} has the id {here.get(word)} in {first} and {there.get(word)} in {name}"
            raise UserError(f"{name} has another vocabulary than {first}: {ids}")


def _vocabulary(path: Path) -> dict[str, int]:
    if path.suffix == ".model":
        return {f"{path.name} with the digest {digest(path)}": 0}
    try:
        if path.name == "vocab.json":
            return json.loads(path.read_text())
        return Tokenizer.from_file(str(path)).get_vocab(with_added_tokens=True)
    except Exception as error:  # the tokenizers library raises no narrower one on a broken file
        raise UserError(f"{path} cannot be read: {error}") from error


def write_configuration(out: Path, configuration: dict[str, Any], tokens: dict[str, Any], dtype: torch.dtype) -> None:
    """Write config.json: the donor's, with the type that the weights have and the special tokens of the tokenizer."""
    key = "torch_dtype" if "torch_dtype" in configuration else "dtype"
    ids = {key: tokens[key] for key in TOKEN_IDS if key in tokens}
    content = configuration | {key: str(dtype).removeprefix("torch.")} | ids
    write_atomic(out / "config.json", json.dumps(content, indent=2) + "\n")


def copy_tokenizer(folder: Path, out: Path) -> None:
    """Copy a tokenizer's files and what belongs to it: chat template, special tokens and settings of generation."""
    for name in (*TOKENIZER, GENERATION):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, out / name)


def write_card(out: Path, name: str, config: Config) -> None:
    """Write README.md: how the model was made."""
    method, models = config.recipe.method, list(config.names)
    what = (METHODS[method].__doc__ or "").strip().partition("\n")[0]
    lines = ["---", "library_name: transformers", "tags: [merge]", "---", f"# {name}", ""]
    if config.recipe.takes_base:
        lines += [f"Merged by `{method}` with `{models.pop(0)}` as the base from:", ""]
    else:
        lines += [f"Merged by `{method}` from:", ""]
    roles = config.recipe.roles or [""] * len(models)
    lines += [f"- `{model}`" + (f", {role}" if role else "") for model, role in zip(models, roles, strict=True)]
    lines += ["", f"`{method}`: {what}", "", "```yaml", config.text.strip("\n"), "```", ""]
    command = (
        f"`compendium merge{'' if config.recipe.seed is None else f' --seed {config.recipe.seed}'} config.yml OUT`"
    )
    made = f"Made by {command} of llm-compendium {version('llm-compendium')} with torch {torch.__version__}."
    write_atomic(out / "README.md", "\n".join([*lines, made, ""]))
