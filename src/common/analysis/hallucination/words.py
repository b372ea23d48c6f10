"""The study's findings in words, which the verdicts choose and the results fill in (see `common.evidence.prose`)."""

from collections.abc import Sequence

import pandas as pd
from IPython.display import Markdown

from common.analysis.hallucination.arms import ATTENTION, BASE, LARGE, RECURRENT, TUNED
from common.analysis.hallucination.claims import ASPECTS, CONFLICT, RARE, Basis, arms_of, share
from common.analysis.hallucination.tables import gained_table
from common.evidence import mean_interval, prose
from common.hallucination.questions import CONTROL

SUMMARY = """
**Universal.** Every architecture {universal:hallucinates|does not hallucinate|may or may not hallucinate}, on the world
and on what it is given: least share of wrong answers of any arm on either aspect {universal.estimate:.2f},
{universal.ci:.2f}.

**Rare facts.** Recurrent models {rare:are worse|are not notably worse|may be worse} than attention on the rarest facts
(share wrong {rare.estimate:+.2f}, {rare.ci:+.2f}; the nearest of them, {nearest}, {nearest_gap:+.2f},
[{nearest_low:+.2f}, {nearest_high:+.2f}]). **Memorised endings.** Told to end a proverb otherwise, they
{endings:go on from memory less often|do not go on from memory less often|may or may not do so less often} than
attention (arms that know the proverbs: {knowing}; share from memory, attention minus recurrent,
{endings.estimate:+.2f}, {endings.ci:+.2f}). **Where.**
Compared to attention, recurrent models {differs:are|are not|may be} further behind on rare facts than on memorised
endings ({differs.estimate:+.2f}, {differs.ci:+.2f}).

**Size** ({sized}). With it the factuality of attention
{size_attention_factuality:grows|does not grow notably|may grow} (share wrong less by
{size_attention_factuality.estimate:+.2f}, {size_attention_factuality.ci:+.2f}), and that of recurrent models
{size_recurrent_factuality:grows|does not grow notably|may grow} ({size_recurrent_factuality.estimate:+.2f},
{size_recurrent_factuality.ci:+.2f}). The faithfulness of attention
{size_attention_faithfulness:grows|does not grow notably|may grow} ({size_attention_faithfulness.estimate:+.2f},
{size_attention_faithfulness.ci:+.2f}); that of recurrent models
{size_recurrent_faithfulness:stays as it is|does not stay as it is|may or may not stay as it is}
({size_recurrent_faithfulness.estimate:+.2f}, {size_recurrent_faithfulness.ci:+.2f}). That it grows more for attention
is {size_differs:so|not so|open} ({size_differs.estimate:+.2f}, {size_differs.ci:+.2f}).

**Tuning**, of the arms that follow stories in the pilot ({followers}),
{tuning_attention:makes|does not notably make|may make} attention more faithful (share wrong less by
{tuning_attention.estimate:+.2f}, {tuning_attention.ci:+.2f}) and
{tuning_recurrent:leaves|does not leave|may or may not leave} recurrent models as they were
({tuning_recurrent.estimate:+.2f}, {tuning_recurrent.ci:+.2f}). That it helps attention more is
{tuning_differs:so|not so|open} ({tuning_differs.estimate:+.2f}, {tuning_differs.ci:+.2f}). These are means over
{counted}; the table under *Tuning* has them apart. Asked as they were before, tuned models
{stories_attention:follow|do not follow|may follow} a story less with attention (share not followed
{stories_attention.estimate:+.2f}, {stories_attention.ci:+.2f}) and {stories_recurrent:do so|do not do so|may do so}
where they are recurrent ({stories_recurrent.estimate:+.2f}, {stories_recurrent.ci:+.2f}). Of conflicts they then answer
{unsaid_attention:.2f} and {unsaid_recurrent:.2f} by saying that it is unknown, which is wrong there and makes nothing
up. Asked what a story does not say, attention gains {unknown:+.2f}, as who always says that it is unknown would too;
asked what it says, {answerable:+.2f}.

**Both in one model.** Hybrids {hybrid:follow|do not notably follow|may follow} a story more than attention alone
({hybrid.estimate:+.2f}, {hybrid.ci:+.2f}). What a story says is followed most by {follower}, at {followed:.2f} above
what guessing gives; attention alone follows it at {alone:.2f}.

**What this rests on.** Copying from a story, surely above what guessing gives by the margin: {copying}. The others
follow it hardly more than who guesses: {guessing}. Tasks on which no tuned arm of the pilot surely beats guessing
count for nothing: {guessed}. Claims whose bootstrap over seeds and items puts zero elsewhere than
the t interval does: {disagreeing}. Intervals stand for themselves, verdicts for all claims together: by Holm's
correction a claim can be inconclusive though its own interval lies on one side.
"""


COUNTED = """
Tasks that count, of base models: {base}; of tuned ones: {instruct}. Arms that follow stories: {following}. Arms that
know the proverbs: {knowing}.
"""


def spoken(answers: pd.DataFrame, skills: pd.DataFrame, checked: pd.DataFrame, basis: Basis) -> dict[str, float | str]:
    """Names and numbers of which `SUMMARY` speaks: see `of_models`, `skill_table`, `bootstrapped` and `basis`.

    `nearest` is the recurrent arm that is least behind attention on the rarest facts, by how much and with the 95%
    interval over seeds; `follower` the arm that follows stories most, `followed` by how much above guessing, `alone`
    how much attention does; `answerable` and `unknown` what tuning gains attention where a story says what is asked for
    and where not; `unsaid` how many conflicts tuned arms that follow answer by saying that it is unknown; `guessed` the
    tasks that `basis` leaves out of tuned models.
    """
    base = answers[(answers["size"] == LARGE) & (answers["stage"] == BASE)]
    attention = share(base, kind=ATTENTION, **RARE)
    behind = {arm: mean_interval(share(base, arm=arm, **RARE) - attention) for arm in arms_of(base, RECURRENT)}
    nearest = min(behind, key=lambda arm: behind[arm].mean)
    large = skills.reset_index().query("size == @LARGE").set_index("arm")
    follows = large["conflict, estimate"]
    gained = gained_table(answers).loc[ATTENTION].mean()
    tuned = answers[(answers["size"] == LARGE) & (answers["stage"] == TUNED) & answers["arm"].isin(basis.following)]
    conflicts = tuned[(tuned["task"] == CONFLICT) & (tuned["breakdown"] == "all") & (tuned["temperature"] == 0.0)]
    unsaid = conflicts.groupby("kind")["unknown"].mean().astype(float)
    faithful = set(answers.loc[answers["aspect"] == ASPECTS[1], "task"])
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
        "unsaid_attention": unsaid[ATTENTION],
        "unsaid_recurrent": unsaid[RECURRENT],
        "sized": listed(sorted(set(answers.loc[answers["size"] != LARGE, "arm"]))),
        "followers": listed(basis.following),
        "knowing": listed(basis.knowing),
        "counted": listed([task for task in basis.tasks[TUNED] if task in faithful]),
        "guessed": listed([task for task in answers["task"].unique() if task not in {*basis.tasks[TUNED], CONTROL}]),
        "disagreeing": listed(checked.loc[~checked["agree"], "claim"].tolist()),
    }


def counted(basis: Basis) -> Markdown:
    """What counts for the claims, in words."""
    tasks = {stage: listed(several) for stage, several in basis.tasks.items()}
    return prose(COUNTED, {}, **tasks, following=listed(basis.following), knowing=listed(basis.knowing))


def listed(names: Sequence[str]) -> str:
    """Names with commas between, or none."""
    return ", ".join(names) or "none"
