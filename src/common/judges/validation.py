"""How well the default judges agree with people: the function that a sweep calls."""

from pathlib import Path

import pandas as pd

from common.judges.agreement import agreement
from common.judges.default import refusal_judge, safety_judge
from common.judges.rows import refusal_rows, safe_rows


def validate_judges(
    split: str, seed: int, *, judged_responses: Path, unsafe_prompts: Path, benign_prompts: Path, replies: Path
) -> dict[str, object]:
    """Table `agreement` of both default judges with people's verdicts on a split's objectives; see `agreement`.

    The column `judge` says safety or refusal. `seed` draws our own training pairs and the bootstrap's resamples.
    """
    files = (judged_responses, unsafe_prompts, benign_prompts, replies)
    judged, unsafe, benign, said = (pd.read_json(path, lines=True, dtype=False) for path in files)
    tables = [
        agreement(safety_judge(judged, unsafe, benign, said, seed), safe_rows(judged, split), seed).assign(
            judge="safety"
        ),
        agreement(refusal_judge(judged, said, seed), refusal_rows(judged, said, split), seed).assign(judge="refusal"),
    ]
    both = pd.concat(tables, ignore_index=True)
    overall = both[both["category"] == "all"].set_index("judge")
    kappas = {f"kappa_{name}": float(overall.loc[name, "kappa"]) for name in overall.index}
    return {**kappas, "agreement": both.to_dict("list")}
