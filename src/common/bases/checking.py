"""What a model that others trained must be, so that studies can start from it: asked of its configuration and words."""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from common.errors import UserError
from common.preference.examples import encode_examples
from common.scoring.tokens import encode_pairs

UNSCALED = ("default", "linear", "llama3")
"""Kinds of rotary positions whose angles do not depend on the longest text."""
SAID = ("Which one is it?", "The first of them.", "And after that?", "None that I know of.")


def check_given(folder: Path, context: int) -> None:
    """Raise `UserError`, one line, where a folder holds no model to start from; of weights the heads of files are read.

    - A causal language model of transformers, whose weights are safetensors: all files that their index
      names, each as long as its head says.
    - `context` is at most its own longest text. A shorter one only limits texts, and is written into what is kept:
      that is legitimate where positions are rotary and their angles don't depend on the longest text. A table of
      learnt positions would no longer fit, and other ways of scaling would compute something else.
    - The tokenizer has a token that ends a text and one that pads.
    - The chat template goes through user's and assistant's turns and no others, writes what was said before the same
      whether or not a reply follows, the reply as it is right behind, and the end token right behind that: else a
      model would not learn to stop, or be trained on one prompt and asked by another. No token spans a prompt's end and
      a reply. A system prompt of the template's own is part of every prompt; what it writes behind the end token is
      learnt too.

    Where a tokenizer puts a begin token before every text, documents are learnt without it and questions asked with it.
    """
    check_weights(folder)
    _check_context(folder, _config(folder), context)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises no narrower one on a broken file
        raise UserError(f"{folder}: its tokenizer cannot be opened: {_line(error)}") from error
    _check_tokenizer(folder, tokenizer)


def _config(folder: Path) -> PretrainedConfig:
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the hub's library, which checks the values, has errors of its own
        raise UserError(f"{folder}: its configuration cannot be opened: {_line(error)}") from error
    wanted = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    if wanted is None or wanted not in (config.architectures or []):
        found = ", ".join(config.architectures or ["none"])
        raise UserError(f"{folder} holds no causal language model: its architecture is {found}")
    return config


def _check_context(folder: Path, config: PretrainedConfig, context: int) -> None:
    longest = getattr(config, "max_position_embeddings", None)
    if longest is None:
        raise UserError(f"{folder}: its configuration names no longest text (max_position_embeddings)")
    if context > longest:
        raise UserError(f"{folder}: context is {context}, allowed: at most the model's {longest}")
    rotary = getattr(config, "rope_parameters", None)
    if context < longest and (rotary or {}).get("rope_type") not in UNSCALED:
        raise UserError(f"{folder}: context is {context}, allowed: {longest}, as its positions depend on it")


def check_weights(folder: Path) -> None:
    """Raise `UserError`, one line, where a model's files are no safetensors, not all there or cut off."""
    if not any(folder.glob("*.safetensors")):
        raise UserError(f"{folder} holds no safetensors")
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "pt"):
                pass
        except (OSError, SafetensorError) as error:
            raise UserError(f"{file} cannot be read: {_line(error)}") from error
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            named = {*json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{index} cannot be read: {_line(error)}") from error
        if absent := sorted(name for name in named if not (folder / name).is_file()):
            raise UserError(f"{folder} lacks {absent[0]}, which {index.name} names")


def _check_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    if tokenizer.eos_token_id is None or tokenizer.pad_token_id is None:
        missing = "ends a text" if tokenizer.eos_token_id is None else "pads"
        raise UserError(f"{folder}: its tokenizer names no token that {missing}")
    if not tokenizer.chat_template:
        raise UserError(f"{folder}: its tokenizer has no chat template, which dialogues need")
    if "strftime_now" in str(tokenizer.chat_template):
        raise UserError(f"{folder}: its chat template writes the day's date, so that runs of two days would differ")
    roles = ("user", "assistant", "user", "assistant")
    turns = [{"role": role, "content": text} for role, text in zip(roles, SAID, strict=True)]
    for length in (1, 3):
        asked, reply = turns[:length], SAID[length]
        try:
            head = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
            whole = tokenizer.apply_chat_template(turns[: length + 1], tokenize=False)
        except Exception as error:  # Jinja has errors of its own, and what a template computes may raise any
            raise UserError(f"{folder}: its chat template fails at {length} turns: {_line(error)}") from error
        between, found, behind = whole[len(head) :].partition(reply)
        if not whole.startswith(head) or not found or reply in behind:
            raise UserError(f"{folder}: its chat template writes a prompt otherwise where a reply follows")
        if between:
            raise UserError(f"{folder}: its chat template writes {between!r} between a prompt and its reply")
        if not behind.lstrip().startswith(tokenizer.eos_token):
            ends = f"ends a reply with {behind!r}, not with the tokenizer's end token {tokenizer.eos_token!r}"
            raise UserError(f"{folder}: its chat template {ends}")
        try:  # as fine-tuning reads it, and as likelihoods are taken
            encode_examples(tokenizer, [asked], [[reply]], context=10**9)
            encode_pairs(tokenizer, [head, SAID[0]], [[reply + behind], [f" {reply}"]])
        except UserError as error:
            raise UserError(f"{folder}: {error}") from error


def _line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
