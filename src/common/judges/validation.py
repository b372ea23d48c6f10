"""How well the default judges agree with people: the function that a sweep calls."""

from pathlib import Path

import pandas as pd

from common.judges.agreement import agreement
from common.judges.default import refusal_judge, safety_judge
from common.judges.rows import COLUMNS, refusal_rows, safe_rows


def validate_judges(
    splits: list[str], seed: int, *, judged_responses: Path, unsafe_prompts: Path, benign_prompts: Path, replies: Path
) -> dict[str, object]:
    """Table `agreement` of both default judges with people's verdicts on objectives of `splits`; see `agreement`.

    The column `judge` says safety or refusal. The category `people` of the latter has all that people judged, also
    answers beside the point, which they count as refusals and which `refusal_rows` leaves out. `seed` draws our own
    training pairs and the bootstrap's resamples.
    """
    files = (judged_responses, unsafe_prompts, benign_prompts, replies)
    judged, unsafe, benign, said = (pd.read_json(path, lines=True, dtype=False) for path in files)
    safe, refused, answered = (
        pd.concat([rows(split) for split in splits], ignore_index=True)
        for rows in (
            lambda split: safe_rows(judged, split),
            lambda split: refusal_rows(judged, said, split),
            lambda split: answered_rows(judged, split),
        )
    )
    refusals = refusal_judge(judged, said, seed)
    tables = [
        agreement(safety_judge(judged, unsafe, benign, said, seed), safe, seed).assign(judge="safety"),
        agreement(refusals, refused, seed).assign(judge="refusal"),
    ]
    people = agreement(refusals, answered, seed)
    tables.append(people[people["category"] == "all"].assign(judge="refusal", category="people"))
    both = pd.concat(tables, ignore_index=True)
    overall = both[both["category"] == "all"].set_index("judge")
    kappas = {f"kappa_{name}": float(overall.loc[name, "kappa"]) for name in overall.index}
    kappas["kappa_people"] = float(people["kappa"].iloc[0])
    return {**kappas, "agreement": both.to_dict("list")}


def answered_rows(judged: pd.DataFrame, split: str) -> pd.DataFrame:
    """Every human verdict of a split whether a response refuses; columns as `common.judges.rows.safe_rows`."""
    own = judged[(judged["task"] == "refusal") & (judged["split"] == split)]
    return own.assign(prompt=own["objective"], category="people")[COLUMNS].reset_index(drop=True)
