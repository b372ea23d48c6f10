"""What a language model answers to the items of a task, how sure it is, and whether that is right."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import softmax
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.scoring.generation import Decoding, generate
from common.scoring.likelihood import continuation_scores
from common.scoring.passes import log_likelihoods
from common.scoring.tokens import context_length, encode, start_token
from common.tasks.items import OFFERED, YES, Item, Task
from common.tasks.text import f1, is_exact, named

COLUMNS = ("answer", "correct", "memorised", "confidence", "mc2", "yes", "exact", "f1")


def answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    *,
    temperature: float = 0.0,
    seed: int = 0,
    batch_size: int = 32,
) -> pd.DataFrame:
    """One row for each item, in order; NaN in columns that do not apply.

    - `answer`: the likeliest of the texts offered, or the first line written with anything in it.
    - `correct` and `memorised`, 0 or 1. Offered: the best of `right` is likelier than all of `wrong`, which is MC1 (Lin
      et al. 2022, arXiv 2109.07958); one of `memorised` is the likeliest of these. Written: by the task's kind; of
      right and memorised answers in one line the first counts.
    - `confidence`: the model's probability of its answer, in [0, 1]. Offered: among the best right one and the wrong;
      written: of the line from its beginning, whatever may follow, and of the end token where there is none.
    - Offered: `mc2`, the probability of all of `right` among all that is offered (Lin et al.); of yes and no, `yes`,
      that of yes.
    - Written: `exact` and `f1` (see `common.tasks.text`).

    Likelihoods are of whole texts, not by token. `temperature` and `seed` are how answers are written; at temperature 0
    they are the likeliest tokens. Errors as of `continuation_scores` and `generate`.
    """
    if task.kind in OFFERED:
        rows = _offered(model, tokenizer, task.items, batch_size)
    else:
        decoding = Decoding(task.max_new_tokens, temperature, seed=seed)
        rows = _written(model, tokenizer, task, decoding, batch_size)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    if task.kind != "yes or no":
        table["yes"] = np.nan
    return table.astype(dict.fromkeys(COLUMNS[1:], float))


def unfit(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, task: Task) -> dict[int, str]:
    """Numbers of items that the model cannot be asked, with the reason: too long for it, or not to be parted from the
    prompt by its tokenizer.
    """
    longest = context_length(model)
    prompts = [item.prompt.rstrip() for item in task.items]
    heads = encode(tokenizer, prompts)
    reasons = {}
    if task.kind not in OFFERED:
        for number, head in enumerate(heads):
            if len(head) + task.max_new_tokens > longest:
                reasons[number] = "too long"
        return reasons
    texts = [(number, item.prompt + text) for number, item in enumerate(task.items) for text in item.right + item.wrong]
    wholes = encode(tokenizer, [text for _, text in texts])
    for (number, _), ids in zip(texts, wholes, strict=True):
        if ids[: len(heads[number])] != heads[number]:
            reasons[number] = "one token spans prompt and answer"
        elif len(ids) - 1 > longest:
            reasons[number] = "too long"
    return reasons


def _offered(model, tokenizer, items: Sequence[Item], batch_size: int) -> list[dict]:
    texts = [item.right + item.wrong for item in items]
    scores = continuation_scores(model, tokenizer, [item.prompt for item in items], texts, batch_size)
    logs = scores.groupby("prompt")["log_likelihood"].agg(np.array)
    return [_chosen(item, log) for item, log in zip(items, logs, strict=True)]


def _chosen(item: Item, logs: np.ndarray) -> dict:
    """From log-likelihoods `(right and wrong,)` of what an item offers to its row."""
    right = len(item.right)
    rivals = np.array([*logs[right:], logs[0]])  # the right one last: a tie is no knowledge
    chances, best = softmax(rivals).clip(max=1), int(rivals.argmax())
    text = (*item.wrong, item.right[0])[best]
    return {
        "answer": text,
        "correct": text == item.right[0],
        "memorised": text in item.memorised if item.memorised else np.nan,
        "confidence": chances[best],
        "mc2": softmax(logs)[:right].sum(),
        "yes": chances[-1] if item.right[0] == YES else chances[0],
    }


def _written(model, tokenizer, task: Task, decoding: Decoding, batch_size: int) -> list[dict]:
    prompts = [item.prompt for item in task.items]
    said = [_line(text) for text in generate(model, tokenizer, prompts, decoding, batch_size)]
    heads = [ids or [start_token(tokenizer)] for ids in encode(tokenizer, prompts)]
    end = start_token(tokenizer) if tokenizer.eos_token_id is None else tokenizer.eos_token_id
    # Bytes that are no text come back as more tokens than they were written in.
    tails = [ids[: task.max_new_tokens] or [end] for ids in encode(tokenizer, said, special=False)]
    pairs = [(head, [tail]) for head, tail in zip(heads, tails, strict=True)]
    sure = np.exp(log_likelihoods(model, pairs, batch_size).numpy()).clip(max=1)  # rounding
    rows = []
    for item, text, confidence in zip(task.items, said, sure, strict=True):
        answer = text.strip()
        rows.append(
            {
                "answer": answer,
                **_compared(task.kind == "exact", item, answer),
                "confidence": confidence,
                "exact": is_exact(answer, item.right),
                "f1": f1(answer, item.right),
            }
        )
    return rows


def _compared(exact: bool, item: Item, answer: str) -> dict:
    """Whether an answer is right, and whether it is what memory says."""
    if exact:
        correct, memorised = is_exact(answer, item.right), is_exact(answer, item.memorised)
    else:
        first = named(answer, (item.right, item.memorised))
        correct, memorised = first == 0, first == 1
    return {"correct": correct, "memorised": memorised if item.memorised else np.nan}


def _line(text: str) -> str:
    """A text up to the end of its first line with anything in it, with the white space before."""
    start = len(text) - len(text.lstrip())
    return text[:start] + text[start:].partition("\n")[0] if text.strip() else ""
