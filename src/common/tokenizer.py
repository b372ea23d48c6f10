"""Byte-level BPE tokenizers, and documents as one stream of token ids.

Byte-pair encoding of words: Sennrich, Haddow and Birch 2016; over bytes, with GPT-2's division into words:
Radford et al. 2019.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from common.errors import UserError
from common.files import atomic_folder

END = "<|endoftext|>"
USER, ASSISTANT = "<|user|>", "<|assistant|>"
# A turn begins with a space, as a word in a text does, so that an answer has the same tokens in either.
CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{%- if message['role'] not in ['user', 'assistant'] %}"
    "{{- raise_exception('roles are user and assistant, not ' + message['role']) }}{% endif %}"
    "{{- '<|' + message['role'] + '|> ' + message['content'] | trim }}"
    "{%- if message['role'] == 'assistant' %}{{- eos_token }}{% endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|assistant|>' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int, out: Path, *, chat: bool = False) -> None:
    """Train a byte-level BPE of exactly `vocab_size` tokens and save it as a Hugging Face folder.

    `AutoTokenizer.from_pretrained(out)` opens it; `<|endoftext|>` is its begin, end and padding token, with
    id 0. With `chat` it has tokens that open a user's and an assistant's turn, and a chat template made of them.
    Every text is encoded without loss, and the same texts give the same bytes of files.

    Raises `UserError` when `vocab_size` is too small for the 256 bytes and the special tokens, or too large for
    what the texts can fill.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = [END, USER, ASSISTANT] if chat else [END]
    smallest = len(alphabet) + len(special)
    if vocab_size < smallest:
        needed = ", ".join(["every byte", *special])
        raise UserError(f"vocab_size is {vocab_size}: at least {smallest} ({needed}) are needed")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    if (size := tokenizer.get_vocab_size()) < vocab_size:
        raise UserError(f"vocab_size is {vocab_size}, but the texts fill only {size}: give more text or less size")
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END, pad_token=END)
    if chat:
        wrapped.chat_template = CHAT_TEMPLATE
    with atomic_folder(out) as folder:
        wrapped.save_pretrained(folder)


def encode_documents(texts: Iterable[str], tokenizer_folder: Path) -> np.ndarray:
    """Ids of all documents in order, each followed by the tokenizer's end-of-text id; shape `(tokens,)`.

    The type is uint16 when every id fits, else uint32. A document that spells out `<|endoftext|>` gets the
    ids of its characters, so the end-of-text id stands at the end of documents only. Raises `UserError` when
    `tokenizer_folder` holds no tokenizer or one without an end-of-text token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{tokenizer_folder} holds no tokenizer: {str(error).splitlines()[0]}") from error
    if tokenizer.eos_token_id is None:
        raise UserError(f"{tokenizer_folder}: the tokenizer has no end-of-text token")
    dtype = np.uint16 if len(tokenizer) <= 2**16 else np.uint32
    parts = [np.empty(0, dtype)]
    for batch in _batches(texts, 256):
        encoded = tokenizer(
            batch,
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            verbose=False,
        )
        parts += [np.array([*ids, tokenizer.eos_token_id], dtype) for ids in encoded["input_ids"]]
    return np.concatenate(parts)


def _batches(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(texts)
    while batch := list(islice(iterator, size)):
        yield batch
