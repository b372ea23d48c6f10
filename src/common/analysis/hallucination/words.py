"""The study's findings in words, which the verdicts choose and the results fill in (see `common.evidence.prose`)."""

from collections.abc import Sequence

import pandas as pd
from IPython.display import Markdown

from common.analysis.hallucination.arms import ATTENTION, BASE, LARGE, RECURRENT, TUNED
from common.analysis.hallucination.claims import ASPECTS, CONFLICT, RARE, Basis, arms_of, share
from common.analysis.hallucination.declaring import tasks_named
from common.analysis.hallucination.tables import gained_table
from common.evidence import mean_interval, prose
from common.hallucination.questions import CONTROL
from common.hallucination.world import QUARTILES

SUMMARY = """
**Universal.** {universal:Every architecture hallucinates|Not every architecture hallucinates notably|Every
architecture may hallucinate}, about the world and about what it is given: the least share of wrong answers of any arm
on either aspect is {universal.estimate:.2f}, {universal.ci:.2f}.

**Rare facts.** On the rarest facts recurrent models {rare:are worse than attention|are not notably worse than
attention|may be worse than attention}: share wrong, recurrent minus attention, {rare.estimate:+.2f}, {rare.ci:+.2f}.
Even the best of them at each seed {rare_each:is worse|is not notably worse|may be worse}: {rare_each.estimate:+.2f},
{rare_each.ci:+.2f}. By arm, the gap to attention from the most frequent quarter of the facts to the rarest: {gaps}.
It grows with rarity (interval of the change above zero) for: {growing}. Behind on the most frequent facts already,
which is not a matter of rarity: {behind}; the mean gap of the other recurrent arms on the rarest facts is {others}.

**Memorised endings.** Told to end a proverb otherwise, recurrent models {endings:go on from memory less often than
attention|do not go on from memory notably less often than attention|may or may not go on from memory less often than
attention}: share from memory, attention minus recurrent, {endings.estimate:+.2f}, {endings.ci:+.2f} (arms that know
the proverbs: {knowing}). **Where.** Compared with attention, recurrent models {differs:are further behind on rare
facts than on memorised endings|are not notably further behind on rare facts than on memorised endings|may be further
behind on rare facts than on memorised endings}: difference of the two gaps {differs.estimate:+.2f},
{differs.ci:+.2f}.

**Size** ({sized}). Numbers are shares of wrong answers, the smallest size minus the largest, so that a gain is
positive. Tasks of faithfulness: {counted_base}. The factuality of attention {size_attention_factuality:grows|does not
notably grow|may grow} with size: {size_attention_factuality.estimate:+.2f}, {size_attention_factuality.ci:+.2f}. That
of recurrent models {size_recurrent_factuality:grows|does not notably grow|may grow}:
{size_recurrent_factuality.estimate:+.2f}, {size_recurrent_factuality.ci:+.2f}. The faithfulness of attention
{size_attention_faithfulness:grows|does not notably grow|may grow}: {size_attention_faithfulness.estimate:+.2f},
{size_attention_faithfulness.ci:+.2f}. That the faithfulness of recurrent models stays as it is, within
±{size_recurrent_faithfulness.margin:.2f}, {size_recurrent_faithfulness:holds|does not hold|is open}:
{size_recurrent_faithfulness.estimate:+.2f}, {size_recurrent_faithfulness.ci:+.2f}. That faithfulness grows more for
attention {size_differs:holds|does not hold|is open}: {size_differs.estimate:+.2f}, {size_differs.ci:+.2f}.

**Tuning**, of the arms that follow stories in the pilot ({followers}). Numbers are shares of wrong answers, before
tuning minus after, so that a gain is positive. Tasks of faithfulness: {counted}. Tuning {tuning_attention:makes
attention more faithful|does not make attention notably more faithful|may make attention more faithful}:
{tuning_attention.estimate:+.2f}, {tuning_attention.ci:+.2f}. That it leaves the faithfulness of recurrent models as
it is, within ±{tuning_recurrent.margin:.2f}, {tuning_recurrent:holds|does not hold|is open}:
{tuning_recurrent.estimate:+.2f}, {tuning_recurrent.ci:+.2f}. That it helps attention more {tuning_differs:holds|does
not hold|is open}: {tuning_differs.estimate:+.2f}, {tuning_differs.ci:+.2f}. A gain on a task whose form is new
includes the learning of that form; the table under *Tuning* shows the tasks apart. Asked as they were before, tuned
models with attention {stories_attention:follow a story less|do not follow a story notably less|may follow a story
less}: share of conflicts not followed, after minus before, {stories_attention.estimate:+.2f},
{stories_attention.ci:+.2f}. That recurrent models do too {stories_recurrent:holds|does not hold|is open}:
{stories_recurrent.estimate:+.2f}, {stories_recurrent.ci:+.2f}. After tuning these two kinds answer
{unsaid_attention:.2f} and {unsaid_recurrent:.2f} of the conflicts with *unknown*, which counts as wrong but makes
nothing up. Where a story does not say what is asked, attention gains {unknown:+.2f}, as would a model that always
answers *unknown*; where it does, {answerable:+.2f}.

**Both in one model.** Hybrids {hybrid:follow a story more than attention alone|do not notably follow a story more
than attention alone|may follow a story more than attention alone}: {hybrid.estimate:+.2f}, {hybrid.ci:+.2f}. The arm
that follows stories most is {follower}, at {followed:.2f} above guessing; attention alone is at {alone:.2f}.

**What this rests on.** Arms that copy from a story, their interval above guessing by the margin: {copying}. Arms that
are not above guessing there by the margin: {guessing}. Tasks left out, on which no tuned arm of the pilot beats
guessing by the margin: {guessed}. Claims of which the bootstrap over seeds and items and the t interval disagree
about zero: {disagreeing}. An interval is that of its claim alone; verdicts are corrected for all claims together
(Holm), so that a claim can stay open though its interval lies on one side: *uncorrected* in brackets is its verdict
without the correction.
"""


COUNTED = """
Tasks that count, of base models: {base}; of tuned ones: {instruct}. Arms that follow stories: {following}. Arms that
know the proverbs: {knowing}.
"""


def spoken(answers: pd.DataFrame, skills: pd.DataFrame, checked: pd.DataFrame, basis: Basis) -> dict[str, float | str]:
    """Names and numbers of which `SUMMARY` speaks: see `of_models`, `skill_table`, `bootstrapped` and `basis`.

    Of rare facts see `rarity`. `follower` is the arm that follows stories most, `followed` by how much above guessing,
    `alone` how much attention does; `answerable` and `unknown` what tuning gains attention where a story says what is
    asked for and where not; `unsaid` how many conflicts tuned arms that follow answer by saying that it is unknown;
    `guessed` the tasks that `basis` leaves out of tuned models.
    """
    large = skills.reset_index().query("size == @LARGE").set_index("arm")
    follows = large["conflict, estimate"]
    gained = gained_table(answers).loc[ATTENTION].mean()
    tuned = answers[(answers["size"] == LARGE) & (answers["stage"] == TUNED) & answers["arm"].isin(basis.following)]
    conflicts = tuned[(tuned["task"] == CONFLICT) & (tuned["breakdown"] == "all") & (tuned["temperature"] == 0.0)]
    unsaid = conflicts.groupby("kind")["unknown"].mean().astype(float)
    faithful = set(answers.loc[answers["aspect"] == ASPECTS[1], "task"])
    means = {stage: tasks_named([task for task in own if task in faithful]) for stage, own in basis.tasks.items()}
    arms = [(f"{arm} ({size})", copies) for (size, _, arm), copies in skills["copies"].items()]
    return rarity(answers) | {
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
        "counted": means[TUNED],
        "counted_base": means[BASE],
        "guessed": listed([task for task in answers["task"].unique() if task not in {*basis.tasks[TUNED], CONTROL}]),
        "disagreeing": listed(checked.loc[~checked["agree"], "claim"].tolist()),
    }


def rarity(answers: pd.DataFrame) -> dict[str, str]:
    """How far recurrent arms are behind attention on facts, in words, by how often base models read them.

    `gaps` has each arm's share of wrong answers less attention's on the most frequent quarter and on the rarest;
    `growing` the arms whose gap is wider on the latter, `behind` those with one on the former, by 95% intervals over
    seeds; `others` the mean gap of the rest on the rarest, with its interval.
    """
    base = answers[(answers["size"] == LARGE) & (answers["stage"] == BASE)]

    def gap(arm: str, quarter: str) -> pd.Series:
        wanted = RARE | {"value": quarter}
        return share(base, arm=arm, **wanted) - share(base, kind=ATTENTION, **wanted)

    ends = {arm: (gap(arm, QUARTILES[0]), gap(arm, QUARTILES[-1])) for arm in arms_of(base, RECURRENT)}
    behind = [arm for arm, (first, _) in ends.items() if mean_interval(first).low > 0]
    rest = [last for arm, (_, last) in ends.items() if arm not in behind]
    mean = mean_interval(sum(rest) / len(rest)) if rest else None
    return {
        "gaps": ", ".join(f"{arm} {first.mean():+.2f} to {last.mean():+.2f}" for arm, (first, last) in ends.items()),
        "growing": listed([arm for arm, (first, last) in ends.items() if mean_interval(last - first).low > 0]),
        "behind": listed(behind),
        "others": f"{mean.mean:+.2f}, [{mean.low:+.2f}, {mean.high:+.2f}]" if mean else "not there, as all are",
    }


def counted(basis: Basis) -> Markdown:
    """What counts for the claims, in words."""
    tasks = {stage: listed(several) for stage, several in basis.tasks.items()}
    return prose(COUNTED, {}, **tasks, following=listed(basis.following), knowing=listed(basis.knowing))


def listed(names: Sequence[str]) -> str:
    """Names with commas between, or none."""
    return ", ".join(names) or "none"
