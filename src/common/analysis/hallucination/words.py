"""The study's findings in words, which the verdicts choose and the results fill in (see `common.evidence.prose`)."""

from collections.abc import Sequence

import pandas as pd

from common.analysis.hallucination.arms import ATTENTION, BASE, LARGE, RECURRENT, TUNED
from common.analysis.hallucination.claims import RARE, Basis, arms_of, share
from common.analysis.hallucination.tables import gained_table
from common.evidence import mean_interval

SUMMARY = """
**Universal.** Every architecture {universal:hallucinates|does not hallucinate|may or may not hallucinate}, on the world
and on what it is given: least share of wrong answers of any arm on either aspect {universal.estimate:.2f},
{universal.ci:.2f}.

**Rare facts.** Recurrent models {rare:are worse|are not notably worse|may be worse} than attention on the rarest facts
(share wrong {rare.estimate:+.2f}, {rare.ci:+.2f}; the nearest of them, {nearest}, {nearest_gap:+.2f},
[{nearest_low:+.2f}, {nearest_high:+.2f}]). **Memorised endings.** Told to end a proverb otherwise, they
{endings:go on from memory less often|do not go on from memory less often|may or may not do so less often} than
attention (share from memory, attention minus recurrent, {endings.estimate:+.2f}, {endings.ci:+.2f}). **Where.**
Compared to attention, recurrent models {differs:are|are not|may be} further behind on rare facts than on memorised
endings ({differs.estimate:+.2f}, {differs.ci:+.2f}).

**Size.** With it the factuality of attention
{size_attention_factuality:grows|does not grow notably|may grow} (share wrong less by
{size_attention_factuality.estimate:+.2f}, {size_attention_factuality.ci:+.2f}), and that of recurrent models
{size_recurrent_factuality:grows|does not grow notably|may grow} ({size_recurrent_factuality.estimate:+.2f},
{size_recurrent_factuality.ci:+.2f}). The faithfulness of attention
{size_attention_faithfulness:grows|does not grow notably|may grow} ({size_attention_faithfulness.estimate:+.2f},
{size_attention_faithfulness.ci:+.2f}); that of recurrent models
{size_recurrent_faithfulness:stays as it is|does not stay as it is|may or may not stay as it is}
({size_recurrent_faithfulness.estimate:+.2f}, {size_recurrent_faithfulness.ci:+.2f}).

**Tuning**, of the arms that follow stories in the pilot ({followers}),
{tuning_attention:makes|does not notably make|may make} attention more faithful (share wrong less by
{tuning_attention.estimate:+.2f}, {tuning_attention.ci:+.2f}) and
{tuning_recurrent:leaves|does not leave|may or may not leave} recurrent models as they were
({tuning_recurrent.estimate:+.2f}, {tuning_recurrent.ci:+.2f}). It
{tuning_differs:helps|does not notably help|may help} attention more ({tuning_differs.estimate:+.2f},
{tuning_differs.ci:+.2f}). Asked as they were before, tuned models with attention
{tuning_stories:follow|do not notably follow|may follow} a story more ({tuning_stories.estimate:+.2f},
{tuning_stories.ci:+.2f}). Asked what a story does not say, they gain {unknown:+.2f}, as who always says that it is
unknown would too; asked what it says, {answerable:+.2f}.

**Both in one model.** Hybrids {hybrid:follow|do not notably follow|may follow} a story more than attention alone
({hybrid.estimate:+.2f}, {hybrid.ci:+.2f}). What a story says is followed most by {follower}, at {followed:.2f} above
what guessing gives; attention alone follows it at {alone:.2f}.

**What this rests on.** Copying from a story, surely above what guessing gives by the margin: {copying}. The others
follow it hardly more than who guesses: {guessing}. Tasks on which no tuned arm of the pilot surely beats guessing
count for nothing: {guessed}. Claims whose bootstrap over seeds and items puts zero elsewhere than
the t interval does: {disagreeing}. Intervals stand for themselves, verdicts for all claims together: by Holm's
correction a claim can be inconclusive though its own interval lies on one side.
"""


def spoken(answers: pd.DataFrame, skills: pd.DataFrame, checked: pd.DataFrame, basis: Basis) -> dict[str, float | str]:
    """Names and numbers of which `SUMMARY` speaks: see `of_models`, `skill_table`, `bootstrapped` and `basis`.

    `nearest` is the recurrent arm that is least behind attention on the rarest facts, by how much and with the 95%
    interval over seeds; `follower` the arm that follows stories most, `followed` by how much above guessing, `alone`
    how much attention does; `answerable` and `unknown` what tuning gains attention where a story says what is asked for
    and where not; `guessed` the tasks that `basis` leaves out of tuned models.
    """
    base = answers[(answers["size"] == LARGE) & (answers["stage"] == BASE)]
    attention = share(base, kind=ATTENTION, **RARE)
    behind = {arm: mean_interval(share(base, arm=arm, **RARE) - attention) for arm in arms_of(base, RECURRENT)}
    nearest = min(behind, key=lambda arm: behind[arm].mean)
    large = skills.reset_index().query("size == @LARGE").set_index("arm")
    follows = large["conflict, estimate"]
    gained = gained_table(answers).loc[ATTENTION].mean()
    arms = [(f"{arm} ({size})", copies) for (size, _, arm), copies in skills["copies"].items()]
    return {
        "nearest": nearest,
        "nearest_gap": behind[nearest].mean,
        "nearest_low": behind[nearest].low,
        "nearest_high": behind[nearest].high,
        "follower": str(follows.idxmax()),
        "followed": float(follows.max()),
        "alone": float(follows[large["kind"] == ATTENTION].mean()),
        "copying": listed([name for name, copies in arms if copies]),
        "guessing": listed([name for name, copies in arms if not copies]),
        "answerable": float(gained["answerable"]),
        "unknown": float(gained["unanswerable"]),
        "followers": listed(basis.arms),
        "guessed": listed([task for task in answers["task"].unique() if task not in basis.tasks[TUNED]]),
        "disagreeing": listed(checked.loc[~checked["agree"], "claim"].tolist()),
    }


def counted(basis: Basis) -> dict[str, str]:
    """What a basis has, in words: tasks by stage, and under `follow` the arms."""
    return {stage: listed(tasks) for stage, tasks in basis.tasks.items()} | {"follow": listed(basis.arms)}


def listed(names: Sequence[str]) -> str:
    """Names with commas between, or none."""
    return ", ".join(names) or "none"
