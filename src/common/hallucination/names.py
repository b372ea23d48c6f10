"""A tokenizer in which every name is one token, so that to name a thing is one decision."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken
from transformers import AutoTokenizer

from common.files import atomic_folder
from common.tokenizer import train_tokenizer


def fit_names(texts: Iterable[str], names: Iterable[str], vocab_size: int, out: Path) -> None:
    """A byte-level BPE of `vocab_size` tokens trained on `texts`, and a token for each name with the space before it.

    Saved as a Hugging Face folder: see `common.tokenizer.train_tokenizer`, whose errors it has. A name at the
    beginning of a text, without a space, is no token, and a longer name is preferred to one that it begins with.
    """
    with atomic_folder(out) as folder:
        train_tokenizer(texts, vocab_size, folder / "words")
        tokenizer = AutoTokenizer.from_pretrained(folder / "words")
        for file in (folder / "words").iterdir():
            file.unlink()
        (folder / "words").rmdir()
        whole = dict.fromkeys(f" {name}" for name in names)
        tokenizer.add_tokens([AddedToken(name, normalized=False, special=False) for name in whole])
        tokenizer.save_pretrained(folder)
