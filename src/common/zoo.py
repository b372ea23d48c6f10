"""Models that others trained, or earlier stages did: from a folder or, at a pinned commit, from the hub."""

import importlib.util
import re
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from common.errors import UserError
from common.models import device

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
COMMIT = re.compile(r"[0-9a-f]{40}")
NO_LIMIT = 10**20
"""Tokenizers that name no longest text carry a larger number than this."""


def load(
    name: str,
    *,
    root: Path | None = None,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    context: int | None = None,
    kind: type = AutoModelForCausalLM,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model, or another `kind` of transformers' classes, in evaluation mode and its tokenizer.

    The model is on the device on which models are trained (`common.models.device`).
    `name` is a folder in `root`, any folder, or `owner/name` on the hub with the 40 digits of a commit as `revision`:
    branches and tags move. Weights are safetensors, or one GGUF file in a folder, whose quantised weights become
    `dtype`. No pickle is opened and no code of a model is run.
    Where a tokenizer allows longer texts than its model, `context` settles how long they may be.

    Raises `UserError`, one line, where a model or tokenizer cannot be had or is not complete, or do not fit together.
    """
    folder = locate(name, root=root, revision=revision)
    weights = _weights(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **weights)
        model, loaded = kind.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **weights,
        )
    except Exception as error:  # the tokenizers library raises no narrower one on a broken file
        raise UserError(f"{name} cannot be loaded: {_line(error)}") from error
    # transformers would fill these with random numbers.
    if absent := sorted(loaded["missing_keys"]):
        raise UserError(f"{name} lacks {len(absent)} of its weights, the first is {absent[0]}")
    if wrong := sorted(loaded["mismatched_keys"]):
        key, found, wanted = wrong[0]
        raise UserError(f"{name}: {len(wrong)} weights have the wrong shape, the first is {key}: {found}, not {wanted}")
    if model.dtype != dtype:
        raise UserError(f"{name} was loaded as {model.dtype}, not as {dtype}")
    _check_fit(name, model, tokenizer, context)
    return model.eval().to(device()), tokenizer


def locate(name: str, *, root: Path | None = None, revision: str | None = None) -> Path:
    """The folder of a model whose name is what `load` takes; one from the hub is downloaded, pickles and code left out.

    Raises `UserError`, one line, where there is none.
    """
    if not name.strip():
        raise UserError("the name of a model is empty, allowed: a folder, or owner/name on the hub")
    for folder in ([root / name] if root else []) + [Path(name)]:
        if folder.is_dir():
            if revision is not None:
                raise UserError(f"{name} is the folder {folder}: a revision belongs to models on the hub")
            return folder
    if not HUB_ID.fullmatch(name):
        known = sorted(path.name for path in root.iterdir() if path.is_dir()) if root and root.is_dir() else []
        here = f", {root} has: {', '.join(known) or 'no model'}" if root else ""
        raise UserError(f"{name} is neither a folder nor owner/name on the hub{here}")
    if revision is None or not COMMIT.fullmatch(revision):
        where = f"{name} is no folder; for a model on the hub at revision {revision}"
        raise UserError(f"{where}: give the 40 hexadecimal digits of a commit, which cannot move")
    return _download(name, revision)


def _download(name: str, revision: str) -> Path:
    """The files of a model on the hub, but for pickles, code, and copies of the weights for other programs."""
    allowed = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
    try:
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=allowed, ignore_patterns=["*/*", "cons*"])
        )
    except GatedRepoError as error:
        raise UserError(f"{name} is gated: accept its terms on its page, then log in with `hf auth login`") from error
    except RepositoryNotFoundError as error:
        raise UserError(f"{name} is not on the hub, or private") from error
    except LocalEntryNotFoundError as error:
        raise UserError(f"{name} is not in the hub's cache, and the hub cannot be reached") from error
    except Exception as error:  # whatever the library beneath the hub's client raises
        raise UserError(f"{name} at revision {revision} cannot be had: {_line(error)}") from error


def _weights(folder: Path) -> dict[str, str]:
    """What transformers must be told to open the weights of a folder."""
    if (folder / "adapter_config.json").is_file():
        raise UserError(f"{folder} holds an adapter: load the model that it belongs to, then the adapter by peft")
    gguf = sorted(path.name for path in folder.glob("*.gguf"))
    if any(folder.glob("*.safetensors")):
        if not (folder / "config.json").is_file():
            raise UserError(f"{folder} holds weights and no config.json")
        if not any(path for kind in ("tokenizer*", "vocab*", "*.model") for path in folder.glob(kind)):
            raise UserError(f"{folder} holds no tokenizer")
        return {}
    if not gguf:
        others = sorted(path.name for kind in ("bin", "pt", "pth", "ckpt", "pkl") for path in folder.glob(f"*.{kind}"))
        found = f", only {others[0]}: a pickle could run code and is not opened" if others else ""
        raise UserError(f"{folder} holds no safetensors{found}")
    if len(gguf) > 1:
        raise UserError(f"{folder} holds {len(gguf)} GGUF files, allowed: one; found {', '.join(gguf)}")
    if importlib.util.find_spec("gguf") is None:
        raise UserError(f"{folder / gguf[0]} needs the package `gguf`, which is not installed")
    return {"gguf_file": gguf[0]}


def _check_fit(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, context: int | None) -> None:
    size, highest = model.get_input_embeddings().num_embeddings, max(tokenizer.get_vocab().values())
    if highest >= size:
        raise UserError(f"{name}: its tokenizer has ids up to {highest}, its model has embeddings for {size} only")
    longest = getattr(model.config, "max_position_embeddings", None)
    if context is not None and not 1 <= context <= (longest or context):
        raise UserError(f"context is {context}, allowed for {name}: 1 to {longest}")
    stated = context or tokenizer.model_max_length
    if longest and longest < stated < NO_LIMIT:
        raise UserError(f"{name}: its tokenizer allows {stated} tokens, the model {longest}; give context={longest}")
    tokenizer.model_max_length = min(stated, longest or stated)


def _line(error: Exception) -> str:
    """The first line of a message that may have many."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
