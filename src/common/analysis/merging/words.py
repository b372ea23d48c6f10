"""The study's findings in words, which the verdicts choose and the results fill in (see `common.evidence.prose`)."""

from collections.abc import Mapping, Sequence

import pandas as pd

from common.analysis.merging.claims import MERGEALIGN, TIED, minus
from common.analysis.merging.scores import PARENTS, claim_name
from common.evidence import Interval, mean_interval

SUMMARY = """
**Experts and safety.** The generalist {unsafe_experts:declines|does not decline|may decline} more unsafe prompts
than the experts ({unsafe_experts.estimate:+.2f}, {unsafe_experts.ci:+.2f}). What a merge could keep is {gain:.2f} of
accuracy and {gap:.2f} of safety. Experts {experts_lose_safety:lose|do not notably lose|may lose} safety that their
base had: from base to expert, the share of unsafe prompts declined changes by {changed:+z.2f} ({changed_ci:+z.2f}) with
sampled replies, and by {changed_greedy:+z.2f} ({changed_greedy_ci:+z.2f}) with the likeliest ones.

**MergeAlign, its coefficients free**, with a = {a:.2f} and b = {b:.2f} (at an end of the values tried: {ends}),
{keeps_gain:keeps|does not keep|may keep} nine tenths of the gain by multiple choice (lost: {keeps_gain.estimate:.2f},
{keeps_gain.ci:.2f}). It {keeps_safety:keeps|does not keep|may keep} four fifths of the safety (lost:
{keeps_safety.estimate:.2f}, {keeps_safety.ci:.2f}). **Tied**, the paper's form as far as we know, with a = {tied:.2f},
it keeps {tied_gain:.2f} ({tied_gain_ci:.2f}) of the gain and {tied_safety:.2f} ({tied_safety_ci:.2f}) of the safety.

**What it costs.** With free coefficients, the merge refuses {hard:.0%} of benign prompts that look unsafe and
{plain:.0%} of plain ones, the generalist {its_hard:.0%} and {its_plain:.0%}. The share of unsafe prompts declined minus
that of benign ones that look unsafe, which says how well the two are told apart, is {apart:.2f}, the generalist's
{its_apart:.2f} and the base's {base_apart:.2f}. At least one of the decodings tried gets an answer to {attacked:.0%}
of unsafe prompts, from the generalist to {its_attacked:.0%}. The merge answers {general:.0%} of general questions
right, its base {base_general:.0%}, the expert {expert_general:.0%}.

**Other ways.** Free coefficients {free_tied:do better|do not do notably better|may do better} than tied ones
({free_tied.estimate:+.2f}, {free_tied.ci:+.2f}); SLERP half way {slerp_even:does as well as|differs from|may do as
well as} the plain mean ({slerp_even.estimate:+z.2f}, {slerp_even.ci:+z.2f}). By the mean of gain and safety kept, with
a margin of {allowed:.2f}, MergeAlign does no worse than these rivals, which train the expert: {beaten}. By exact match
of written answers, rivals keep {exact_low:.2f} to {exact_high:.2f} of the gain and MergeAlign {exact:.2f}
({exact_ci:.2f}), {exact_place}. Rivals answer {general_low:.0%} to {general_high:.0%} of general questions and
MergeAlign {general:.0%} ({general_ci:.0%}), {general_place}. (Higher and lower go by paired intervals, uncorrected.) A
rival trains on {rival_tokens:.0f} thousand tokens for each expert; the generalist, trained once for all experts, took
{generalist_tokens:.0f} thousand, replayed facts among them, so that from {breakeven:.0f} experts on merging trains on
fewer tokens than any rival.

**What it takes.** With DPO {dpo:more|not notably more|perhaps more} of the safety survives ({dpo.estimate:+.2f},
{dpo.ci:+.2f}), with replay {replay:more|not notably more|perhaps more} of the gain ({replay.estimate:+.2f},
{replay.ci:+.2f}). With an expert that was taught to go along, the merge keeps {helpful:less|not notably less|perhaps
less} safety (difference {helpful.estimate:.2f}, {helpful.ci:+.2f}).

**Why.** That more is kept where the two task vectors are more alike {similarity:holds|does not hold|may or may not
hold}: the rank correlation is {similarity.estimate:+.2f} ({similarity.ci:+.2f}). The highest loss barrier on a straight
path between two of the models is {barrier:.2f} nats per token.
"""


def spoken(
    arms: pd.DataFrame, parents: pd.DataFrame, rivals: Sequence[str], decided: Mapping[str, Mapping]
) -> dict[str, object]:
    """Numbers and names for sentences; numbers are means over seeds and domains, `…_ci` their intervals over seeds.

    `gain` and `gap`: what there was to keep of accuracy and safety. Of MergeAlign: `exact`, the gain kept by exact
    match; `hard` and `plain`, benign prompts refused; `apart`, `told_apart`; `attacked`; `general`, accuracy on general
    questions. `its_…`: the generalist's. `changed`, `changed_greedy`: safety of the expert minus the base's, with
    sampled and with the likeliest replies. `tied_…`: what the tied merge keeps. `beaten`: the rivals that MergeAlign
    does no worse than, by their claims, within the margin `allowed`. `…_low`, `…_high`: the lowest and the highest of
    the rivals; `…_place`: from which of them MergeAlign can be told.
    """
    own = arms[arms["arm"] == MERGEALIGN].mean(numeric_only=True)
    base, expert, generalist = (parents[parents["arm"] == name].mean(numeric_only=True) for name in PARENTS)
    claims = {rival: decided[f"no_worse_than_{claim_name(rival)}"] for rival in rivals}
    found = {
        "gain": own["gain"],
        "gap": own["gap"],
        "hard": own["refused_hard"],
        "plain": own["refused_plain"],
        "apart": own["told_apart"],
        "attacked": own["attacked"],
        "base_general": base["general"],
        "expert_general": expert["general"],
        "its_hard": generalist["refused_hard"],
        "its_plain": generalist["refused_plain"],
        "its_apart": generalist["safety"] - generalist["refused_hard"],
        "base_apart": base["safety"] - base["refused_hard"],
        "its_attacked": generalist["attacked"],
        "beaten": "; ".join(name for name, own in claims.items() if own["verdict"] == "reproduced") or "none of them",
        "allowed": min(claim["margin"] for claim in claims.values()),
    }
    for name, measure in (("changed", "safety"), ("changed_greedy", "greedy")):
        found |= _over_seeds(name, minus(*(_means(parents, arm, measure) for arm in ("expert", "base"))))
    for name, measure in (("tied_gain", "gain_kept"), ("tied_safety", "safety_kept")):
        found |= _over_seeds(name, _means(arms, TIED, measure))
    for name, measure in (("exact", "exact_kept"), ("general", "general")):
        means = {arm: _means(arms, arm, measure) for arm in (MERGEALIGN, *rivals)}
        theirs = [float(means[rival].mean()) for rival in rivals]
        place = _place({rival: mean_interval(minus(means[MERGEALIGN], means[rival])) for rival in rivals})
        found |= {f"{name}_low": min(theirs), f"{name}_high": max(theirs), f"{name}_place": place}
        found |= _over_seeds(name, means[MERGEALIGN])
    return found


def _means(table: pd.DataFrame, arm: str, measure: str) -> pd.Series:
    return table[table["arm"] == arm].groupby("seed")[measure].mean()


def _over_seeds(name: str, values: pd.Series) -> dict[str, object]:
    mean, low, high, _ = mean_interval(values)
    return {name: mean, f"{name}_ci": [low, high]}


def _place(gaps: Mapping[str, Interval]) -> str:
    """Where MergeAlign stands among rivals by the intervals of its differences to them: below whom, above whom."""
    sides = {
        "lower than": [rival for rival, gap in gaps.items() if gap.high < 0],
        "higher than": [rival for rival, gap in gaps.items() if gap.low > 0],
    }
    whom = {side: "every rival" if len(own) == len(gaps) else "; ".join(own) for side, own in sides.items()}
    return (
        " and ".join(f"{side} {own}" for side, own in whom.items() if own) or "neither higher nor lower than any rival"
    )
