"""The study's findings in words, which the verdicts choose and the results fill in (see `common.evidence.prose`)."""

SUMMARY = """
**Experts and safety.** The generalist {unsafe_experts:declines|does not decline|may decline} more unsafe prompts
than the experts ({unsafe_experts.estimate:+.2f}, {unsafe_experts.ci:+.2f}): {gap:.2f} of safety to keep, and
{gain:.2f} of accuracy. Experts {experts_lose_safety:lose|do not lose|may lose} safety that their base had: the share
that is declined falls by {experts_lose_safety.estimate:.2f} ({experts_lose_safety.ci:+.2f}) from base to expert when
replies are sampled, and by {lost_greedy:.2f} when they are the likeliest; where that is negative, it rises.

**MergeAlign**, with a = {a:.2f} and b = {b:.2f}, {keeps_gain:keeps|does not keep|may keep (as
{keeps_gain.n_to_decide} seeds would decide)} nine tenths of the gain by multiple choice (lost:
{keeps_gain.estimate:.2f}, {keeps_gain.ci:.2f}); of the gain by exact match of written answers it keeps {exact:.2f}.
It {keeps_safety:keeps|does not keep|may keep} four fifths of the safety (lost: {keeps_safety.estimate:.2f},
{keeps_safety.ci:.2f}). Some decoding gets an answer to {attacked:.0%} of unsafe prompts ({its_attacked:.0%} of the
generalist). **What it costs:** the merge refuses {hard:.0%} of benign prompts that look unsafe and {plain:.0%} of
plain ones, the generalist {its_hard:.0%} and {its_plain:.0%}. Unsafe prompts declined less those false refusals,
which is what telling the two apart is worth, come to {apart:.2f}, of the generalist {its_apart:.2f}, of the base
{base_apart:.2f}. Of the base's share
of general questions answered it loses {forgot:.2f}.

**Other ways.** Free coefficients {free_tied:do better|do not do notably better|may do better} than tied ones
({free_tied.estimate:+.2f}, {free_tied.ci:+.2f}); SLERP
{slerp_even:does as well as|does otherwise than|may do as well as} the plain mean
({slerp_even.estimate:+.2f}, {slerp_even.ci:+.2f}). By the mean of gain and safety kept, the merge surely does no
worse than these rivals that train the expert: {beaten}. A rival trains on {rival_tokens:.0f} thousand tokens for
each expert; the generalist, there once for all experts, took {generalist_tokens:.0f} thousand, facts it replayed
among them, so that merging pays from expert number {breakeven:.0f} on at the latest.

**What it takes.** With DPO {dpo:more|not notably more|perhaps more} of the safety survives ({dpo.estimate:+.2f},
{dpo.ci:+.2f}), with replay {replay:more|not notably more|perhaps more} of the gain ({replay.estimate:+.2f},
{replay.ci:+.2f}). An expert that was taught to go along keeps {helpful:less|not notably less|perhaps less} safety
(difference {helpful.estimate:.2f}, {helpful.ci:+.2f}).

**Why.** More alike vectors {similarity:go with|do not go with|may or may not go with} more that is kept (rank
correlation {similarity.estimate:+.2f}, {similarity.ci:+.2f}). The highest barrier on a way is {barrier:.2f} nats a
token.
"""
