"""Two makings of `claims.json` and `metrics.json`."""

import json

from common.verification.levels import Level
from common.verification.tolerances import EXACT, tolerance_of

NUMBERS = ("estimate", "ci", "p", "p_holm", "p_against", "p_against_holm", "detectable", "n_to_decide")
"""What the data decide; the rest is declared."""


def verdicts(content: bytes) -> dict[str, str]:
    return {name: str(record["verdict"]) for name, record in json.loads(content).items()}


def compare_claims(old: bytes, new: bytes, moved: bool) -> tuple[Level, list[str]]:
    """Level of `claims.json`, and what differs.

    Estimates follow from the runs: they may move within each other's intervals where the runs `moved`, and only there.
    """
    one, other = json.loads(old), json.loads(new)
    before, after = verdicts(old), verdicts(new)
    if before != after:
        changed = [name for name in one | other if before.get(name) != after.get(name)]
        return Level.NONE, [f"{x}: {before.get(x, 'no claim')} → {after.get(x, 'no claim')}" for x in changed]
    words, off, outside = [], [], []
    for name, record in one.items():
        now = other[name]
        for field in dict.fromkeys([*record, *now]):
            if field in NUMBERS and field in record and field in now:
                if not _close(field, record[field], now[field]):
                    off.append(f"{name}.{field}: {_shown(record[field])} → {_shown(now[field])}")
            elif record.get(field) != now.get(field):
                words.append(f"{name}.{field}: {record.get(field)!r} → {now.get(field)!r}")
        if not (_inside(record["estimate"], now["ci"]) and _inside(now["estimate"], record["ci"])):
            outside.append(f"{name}: estimate {record['estimate']:.4g} → {now['estimate']:.4g}, not in each other's ci")
    if words:
        return Level.VERDICTS, words + off
    if not off:
        return Level.NUMERICAL, []
    if not moved:
        return Level.VERDICTS, [f"{off[0]}, and the runs did not move", *off[1:]]
    return (Level.VERDICTS, outside) if outside else (Level.STATISTICAL, off)


def compare_metrics(old: bytes, new: bytes, moved: bool) -> tuple[Level, list[str]]:
    """Level of `metrics.json`, and what differs.

    Its entries have no intervals of their own: they may move where the runs `moved`.
    """
    one, other = json.loads(old), json.loads(new)
    names = [name for name in one | other if not _close(name, one.get(name), other.get(name))]
    lines = [f"{name}: {_shown(one.get(name))} → {_shown(other.get(name))}" for name in names]
    if not names:
        return Level.NUMERICAL, []
    return (Level.STATISTICAL if moved and one.keys() == other.keys() else Level.VERDICTS), lines


def _close(name: str, one: object, other: object) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_close(name, a, b) for a, b in zip(one, other, strict=True))
    if not all(isinstance(value, int | float) for value in (one, other)):
        return one == other
    whole = isinstance(one, int) and isinstance(other, int)
    return (EXACT if whole else tolerance_of(name)).allows(one, other)


def _inside(estimate: float, interval: list[float]) -> bool:
    low, high = interval
    slack = tolerance_of("estimate")
    return low <= estimate <= high or slack.allows(estimate, low) or slack.allows(estimate, high)


def _shown(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
