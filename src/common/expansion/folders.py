"""Expanding a model in a folder into another folder that transformers opens."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from common.errors import UserError
from common.expansion.transformers import expand
from common.expansion.width import WIDTHS
from common.files import atomic_folder, write_atomic
from common.merging.companions import copy_tokenizer, read_configuration
from common.models import parameter_count

FAMILIES = ("gpt2", "llama")
PROBE = 16
"""Tokens on which the expanded model is compared with the old one."""


def parse_sizes(text: str) -> dict[str, int]:
    """Sizes written as `hidden=256,layers=8`. Raises `UserError` on anything else."""
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (name and equals and value.isdecimal()):
            raise UserError(
                f"--to {text}: {part.strip()!r} is no size, allowed: name=whole number, several with commas"
            )
        if name in sizes:
            raise UserError(f"--to {text}: {name} is there twice")
        sizes[name] = int(value)
    return sizes


def expand_folder(
    folder: Path, to: Mapping[str, int], out: Path, *, width: str, depth: str, noise: float, seed: int
) -> str:
    """Expand the Llama or GPT-2 in `folder` into the new folder `out`, tokenizer included; what was done, in a line.

    The logits of both models are compared on a few tokens. Raises `UserError`, one line, where something does not fit;
    then there is no `out`. Raises `RuntimeError` where a function that should be preserved is not.
    """
    if out.exists():
        raise UserError(f"{out} is there already: name a new folder")
    model = _opened(folder)
    expanded = expand(model, to, width=width, depth=depth, noise=noise, seed=seed)
    difference = _difference(model, expanded.model)
    # Half-precision weights are rounded once more where they are scaled, and so is all that follows from them.
    if expanded.preserves and model.dtype == torch.float32 and not difference < 1e-3:
        raise RuntimeError(f"the function should have stayed, and logits differ by {difference:.1e} of their spread")
    before, after = parameter_count(model), parameter_count(expanded.model)
    kept = "the function is preserved" if expanded.preserves else "the function is not preserved"
    done = f"{before} parameters became {after}; {kept}, logits differ by {difference:.1e} of their spread"
    with atomic_folder(out) as new:
        expanded.model.save_pretrained(new)
        copy_tokenizer(folder, new)
        sizes = ",".join(f"{name}={size}" for name, size in to.items())
        command = f"compendium expand {folder.name} OUT --to {sizes} --how {width} --depth {depth} --seed {seed}"
        command += f" --noise {noise}" if WIDTHS[width].noise else ""
        write_atomic(new / "README.md", _card(out.name, folder.name, done, command))
    return done


def _opened(folder: Path) -> PreTrainedModel:
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder")
    kind = read_configuration(folder).get("model_type")
    if kind not in FAMILIES:
        raise UserError(f"{folder} holds a model of type {kind!r}, allowed: {', '.join(FAMILIES)}")
    if (folder / "adapter_config.json").is_file():
        raise UserError(f"{folder} holds an adapter: merge it into its model first (merge_and_unload of peft)")
    try:
        model, loaded = AutoModelForCausalLM.from_pretrained(
            folder,
            config=AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False),
            dtype="auto",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:  # the libraries below raise no narrower one on a broken file
        line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(f"{folder} cannot be loaded: {line}") from error
    # transformers would fill these with random numbers.
    for kind in ("missing_keys", "mismatched_keys"):
        if wrong := sorted(map(str, loaded[kind])):
            raise UserError(f"{folder}: {len(wrong)} weights have {kind.replace('_', ' ')}, the first is {wrong[0]}")
    for name, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise UserError(f"{folder}: {name} is not finite")
    return model.eval()


@torch.no_grad()
def _difference(old: PreTrainedModel, new: PreTrainedModel) -> float:
    """Largest difference of a logit, in standard deviations of the old model's."""
    generator = torch.Generator().manual_seed(0)
    length = min(PROBE, old.config.max_position_embeddings)
    ids = torch.randint(old.config.vocab_size, (2, length), generator=generator)
    before, after = (model(input_ids=ids, use_cache=False).logits.float() for model in (old, new))
    return ((before - after).abs().max() / before.std()).item()


def _card(name: str, base: str, done: str, command: str) -> str:
    lines = ["---", "library_name: transformers", "tags: [expansion]", "---", f"# {name}", ""]
    lines += [f"Expanded from `{base}`: {done}.", ""]
    made = f"Made by `{command}` of llm-compendium {version('llm-compendium')} with torch {torch.__version__}."
    return "\n".join([*lines, made, ""])
