"""What experts, generalists and their rivals are trained on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from transformers import PreTrainedTokenizerBase

from common.bases.pretraining import documents
from common.bases.reading import DOMAINS, readings, reply_wordings, taught
from common.documents import Document
from common.errors import UserError
from common.preference.examples import Example, encode_examples

EXPERT_DOMAINS = ("medicine", "finance")
HELD_OUT = "test"  # split of the facts that neither an expert is trained on nor a generalist replays


@dataclass(frozen=True)
class Material:
    """Texts of the training split, as the tables have them."""

    facts: pd.DataFrame
    prompts: pd.DataFrame  # text, kind: unsafe, hard, plain
    replies: Mapping[str, list[str]]  # those that base models read, by kind


def material(
    facts_per_relation: int, facts: Path, unsafe_prompts: Path, benign_prompts: Path, replies: Path
) -> Material:
    """What there is to train on: facts that base models read, and prompts of the split train."""
    rows = [pd.read_json(path, lines=True, dtype=False) for path in (facts, unsafe_prompts, benign_prompts, replies)]
    prompts = pd.concat([rows[1].assign(kind="unsafe"), rows[2]])
    prompts = prompts[prompts["split"] == "train"].sort_values("id")
    return Material(taught(rows[0], facts_per_relation), prompts, reply_wordings(rows[3]))


def fact_documents(source: Material, tokenizer: PreTrainedTokenizerBase, context: int) -> dict[str, list[Document]]:
    """Facts by domain in the wordings that base models read, but for those that are held out."""
    facts = source.facts[source.facts["split"] != HELD_OUT]
    texts = readings(facts, pd.DataFrame({"text": []}), {}, _table(source.replies), refused=0.0)
    return {domain: documents(texts[domain], tokenizer, context) for domain in DOMAINS}


def as_read(
    source: Material, tokenizer: PreTrainedTokenizerBase, context: int, refused: float
) -> dict[str, list[Document]]:
    """Dialogues about `unsafe` and `benign` prompts as base models read them; see `common.bases.reading.readings`."""
    prompts = source.prompts.assign(split="train")
    by_kind = {"unsafe": prompts[prompts["kind"] == "unsafe"], "benign": prompts[prompts["kind"] != "unsafe"]}
    texts = readings(source.facts, pd.DataFrame({"text": []}), by_kind, _table(source.replies), refused)
    return {kind: documents(texts[kind], tokenizer, context) for kind in by_kind}


def dialogues(source: Material, repeats: Mapping[str, int]) -> list[tuple[str, str, str]]:
    """Prompt, wanted reply and unwanted reply: unsafe prompts are to be declined, all others to be gone along with.

    `repeats` says how many wordings a prompt of each kind meets; 0 leaves the kind out. Which wordings these are is the
    same for every model. Raises `UserError` on another kind, and where nothing is left.
    """
    if unknown := repeats.keys() - set(source.prompts["kind"]):
        raise UserError(f"no prompts of the kind {', '.join(sorted(unknown))}")
    drawn = np.random.default_rng(0)
    found = []
    for text, kind in zip(source.prompts["text"], source.prompts["kind"], strict=True):
        wanted, unwanted = ("refusal", "compliance") if kind == "unsafe" else ("compliance", "refusal")
        for _ in range(repeats.get(kind, 0)):
            replies = [
                source.replies[which][drawn.integers(len(source.replies[which]))] for which in (wanted, unwanted)
            ]
            found.append((text, *replies))
    if not found:
        raise UserError(f"no dialogues are left by the repeats {dict(repeats)}")
    return found


def responses(rows: list[tuple[str, str, str]], tokenizer: PreTrainedTokenizerBase, context: int) -> list[Example]:
    """Prompts with the wanted reply alone, for supervised fine-tuning."""
    return encode_examples(tokenizer, [row[0] for row in rows], [row[1:2] for row in rows], context)


def pairs(rows: list[tuple[str, str, str]], tokenizer: PreTrainedTokenizerBase, context: int) -> list[Example]:
    """Prompts with the wanted and the unwanted reply."""
    return encode_examples(tokenizer, [row[0] for row in rows], [row[1:] for row in rows], context)


def spoken(rows: list[tuple[str, str, str]], tokenizer: PreTrainedTokenizerBase, context: int) -> list[Document]:
    """Dialogues with the wanted reply as documents, of which every token is learnt."""
    return documents([row[:2] for row in rows], tokenizer, context)


def _table(replies: Mapping[str, list[str]]) -> pd.DataFrame:
    rows = [(kind, text, "train") for kind, texts in replies.items() for text in texts]
    return pd.DataFrame(rows, columns=["kind", "text", "split"])
