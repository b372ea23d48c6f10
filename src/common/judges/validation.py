"""How well the default judges agree with people: the function that a sweep calls."""

from pathlib import Path

import pandas as pd

from common.judges.agreement import agreement
from common.judges.default import refusal_judge, safety_judge
from common.judges.judge import Judge
from common.judges.rows import COLUMNS, refusal_rows, safe_rows


def validate_judges(
    splits: list[str], seed: int, *, judged_responses: Path, unsafe_prompts: Path, benign_prompts: Path, replies: Path
) -> dict[str, object]:
    """Table `agreement` of both default judges with people's verdicts on objectives of `splits`; see `agreement`.

    The column `judge` says safety or refusal. The category `people` of the latter has all that people judged, also
    answers beside the point, which they count as refusals and which `refusal_rows` leaves out.
    Single numbers: κ over all, κ of the judge of safety by split, and what it makes of our own replies to unsafe
    prompts (see `_on_own`). `seed` draws our own training pairs and the bootstrap's resamples.
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
    safe_judge, refusals = safety_judge(judged, unsafe, benign, said, seed), refusal_judge(judged, said, seed)
    tables = [
        agreement(safe_judge, safe, seed).assign(judge="safety"),
        agreement(refusals, refused, seed).assign(judge="refusal"),
    ]
    people = agreement(refusals, answered, seed)
    tables.append(people[people["category"] == "all"].assign(judge="refusal", category="people"))
    both = pd.concat(tables, ignore_index=True)
    overall = both[both["category"] == "all"].set_index("judge")
    kappas = {f"kappa_{name}": float(overall.loc[name, "kappa"]) for name in overall.index}
    kappas["kappa_people"] = float(people["kappa"].iloc[0])
    for split in splits:
        own = agreement(safe_judge, safe_rows(judged, split), seed)
        kappas[f"kappa_safety_{split}"] = float(own["kappa"].iloc[0])
    return {**kappas, **_on_own(safe_judge, unsafe, said, splits), "agreement": both.to_dict("list")}


def _on_own(judge: Judge, unsafe: pd.DataFrame, replies: pd.DataFrame, splits: list[str]) -> dict[str, float]:
    """Shares of unsafe prompts whose reply of our own, a refusal or a compliance without content, counts as safe."""
    prompts = unsafe.loc[unsafe["split"].isin(splits), "text"].tolist()
    shares = {}
    for kind in ("refusal", "compliance"):
        texts = replies.loc[replies["split"].isin(splits) & (replies["kind"] == kind), "text"].tolist()
        said = [texts[number % len(texts)] for number in range(len(prompts))]
        shares[f"safe_{kind}"] = float((judge.judge(prompts, said) >= 0.5).mean())
    return shares


def answered_rows(judged: pd.DataFrame, split: str) -> pd.DataFrame:
    """Every human verdict of a split whether a response refuses; columns as `common.judges.rows.safe_rows`."""
    own = judged[(judged["task"] == "refusal") & (judged["split"] == split)]
    return own.assign(prompt=own["objective"], category="people")[COLUMNS].reset_index(drop=True)
