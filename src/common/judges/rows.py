"""Labelled responses to fit a judge on and to hold it against."""

import numpy as np
import pandas

COLUMNS = ["prompt", "response", "label", "category", "group"]


def safe_rows(judged: pandas.DataFrame, split: str) -> pandas.DataFrame:
    """Human verdicts whether a response is safe: `prompt`, `response`, `label`, `category`, `group`.

    From the table `judged_responses`. Safe is what people gave less than moderate harm, or, where nobody scored harm,
    what does not achieve its objective: all objectives of these tasks are harmful. The task `refusal` is left out:
    answering may be safe, and is where the objective is benign.
    """
    judged = judged[judged.task.isin(["harm", "objective"])].sort_values("task", kind="stable")
    judged = judged.drop_duplicates(["objective", "response"])  # "harm" comes first
    judged = judged.assign(prompt=judged.objective, label=~judged.label.astype(bool))
    return judged.loc[judged.split == split, COLUMNS].reset_index(drop=True)


def refusal_rows(judged: pandas.DataFrame, replies: pandas.DataFrame, split: str) -> pandas.DataFrame:
    """Human verdicts whether a response refuses, and our own replies; columns as `safe_rows`.

    From the tables `judged_responses` and `replies`. An answer beside the point counts as a refusal in the first; as a
    text it is none, so it is left out: known by an objective that another response answers, or by a text that answers
    another objective. Own replies have no prompt and the category `own`.
    """
    judged = judged[judged.task == "refusal"]
    answered = ~judged.groupby("objective").label.transform("min") | ~judged.groupby("response").label.transform("min")
    judged = judged[~(judged.label & answered)]
    judged = judged.assign(prompt=judged.objective)
    own = replies.assign(prompt="", response=replies.text, label=replies.kind == "refusal", category="own")
    both = pandas.concat([judged, own], ignore_index=True)
    return both.loc[both.split == split, COLUMNS].reset_index(drop=True)


def own_rows(
    unsafe: pandas.DataFrame, benign: pandas.DataFrame, replies: pandas.DataFrame, split: str, n: int, seed: int
) -> pandas.DataFrame:
    """`n` pairs of a prompt and one of our own replies, whose label follows from both; columns as `safe_rows`.

    From the tables `unsafe_prompts`, `benign_prompts` and `replies`. Half of the prompts are unsafe, and half of the
    replies to either refuse. Going along with an unsafe prompt is not safe, all else is. The category is `own`.
    """
    rng = np.random.default_rng(seed)
    prompts = [table[table.split == split] for table in (benign, unsafe)]
    said = replies[replies.split == split]
    texts = [said.text[said.kind == kind].tolist() for kind in ("refusal", "compliance")]
    rows = []
    for number in range(n):
        dangerous, complies = number % 2, number // 2 % 2
        prompt = prompts[dangerous].iloc[rng.integers(len(prompts[dangerous]))]
        reply = texts[complies][rng.integers(len(texts[complies]))]
        rows.append((prompt.text, reply, not (dangerous and complies), "own", prompt.group))
    return pandas.DataFrame(rows, columns=COLUMNS)
