"""The study's findings in words, which the verdicts choose and the results fill in (see `common.evidence.prose`)."""

EDGES = "Best at an end of the rates tried: {edges}."

AGREEMENT = """
Rank correlations whose interval excludes zero: {sure} (of {correlations:.0f}). Where an interval includes zero, these
rows cannot tell whether our models rank the settings as the paper's do.
"""

SUMMARY = """
**Data.** Clean data {better_data:do better|do not do notably better|cannot be shown to do better} than noisy data:
{better_data.estimate:+.2f} {better_data.ci:+.2f} in score. That they help SFT more than DPO
{better_data_sft:holds|does not hold|is open}: {better_data_sft.estimate:+.2f} {better_data_sft.ci:+.2f}. Models of
{most_pairs:.0f} pairs score {most_score:.2f}; of {fewest_pairs:.0f} pairs, trained for as many steps,
{fewest_score:.2f}.

**Method and start.** That SFT does better than DPO from bases {sft_base:holds|does not hold|is open}:
{sft_base.estimate:+.2f} {sft_base.ci:+.2f}. That DPO does better than SFT from instruct models
{dpo_instruct:holds|does not hold|is open}: {dpo_instruct.estimate:+.2f} {dpo_instruct.ci:+.2f}. That DPO sets models of
opposite aims further apart {dpo_faithful:holds|does not hold|is open}: {dpo_faithful.estimate:+.2f}
{dpo_faithful.ci:+.2f}. At the learning rates chosen, KL to the start is {dpo_kl:.2f} nats per reply with DPO and
{sft_kl:.2f} with SFT; knowledge, {start_knowledge:.1%} before, is then {dpo_knowledge:.1%} and {sft_knowledge:.1%}.

**Both aims at once.** That a model of mixed data falls short of a model of each aim, at that aim,
{mixtures_hurt:holds|does not hold|is open}: {mixtures_hurt.estimate:+.2f} {mixtures_hurt.ci:+.2f}. That mixing costs
more with DPO {mixtures_hurt_dpo:holds|does not hold|is open}: {mixtures_hurt_dpo.estimate:+.2f}
{mixtures_hurt_dpo.ci:+.2f}. Of the first cost, {by_measure:+.2f} comes from the measure, which scores a model of one
aim on that aim alone and a model of mixed data on both. Scored on both aims, models of one aim reach {single_both:.2f}
and of mixed data {mix_both:.2f}; in the mean of unsafe prompts declined and instructions followed,
{single_balanced:.2f} and {mix_balanced:.2f}.

**Merges** are made from models of the clean data and compared with mixed data by that mean, in which declining
everything counts one half. Of the clean data's models, those of harmless pairs decline {harmless_data_declined:.0%} of
unsafe prompts and follow {harmless_data_answered:.0%} of instructions, those of helpful pairs
{helpful_data_declined:.0%} and {helpful_data_answered:.0%}, those of the mix {mix_data_declined:.0%} and
{mix_data_answered:.0%}. With both task vectors whole, a DARE merge
{dare_mitigates:does better|does not do notably better|cannot be shown to do better} than mixed data:
{dare_mitigates.estimate:+.2f} {dare_mitigates.ci:+.2f} ({dare_declined:.0%} declined, {dare_answered:.0%} followed).
With half of each it reaches {halves_balanced:.2f}, mixed data {mix_data_balanced:.2f} ({halves_gain:+.2f}
{halves_gain_ci:+.2f}). The paper's weights are not known to us, so the verdict is about whole task vectors only.
SLERP half way {slerp_degrades:does worse|does not do notably worse|cannot be shown to do worse} than DARE with halves:
{slerp_degrades.estimate:+.2f} {slerp_degrades.ci:+.2f} (DARE minus SLERP). In the paper's table, {swapped:.0f} of
{slerp_rows:.0f} rows of SLERP are nearer to the parents of the other method than to their own.

**Adapters.** QLoRA {lora_qlora:does as well as|does not do as well as|may do as well as} LoRA:
{lora_qlora.estimate:+.3f} {lora_qlora.ci:+.3f}, with a base of {packed_bytes:.0%} of the bytes.
"""
UNSEEN = """
**What a base never met.** That DPO does not teach declining to a base that never met a refusal
{unseen_dpo:holds|does not hold|is open}: the share of unsafe prompts declined changes by {unseen_dpo.estimate:+.2f}
{unseen_dpo.ci:+.2f}. The log-odds of refusing change by {unseen_margin.estimate:+.1f} {unseen_margin.ci:+.1f} nats.
That SFT teaches it {unseen_sft:holds|does not hold|is open}: the share declined after SFT, minus that after DPO, is
{unseen_sft.estimate:+.2f} {unseen_sft.ci:+.2f}.
"""

LIMITS = """
Where models start: the instruct model declines {instruct_declined:.0%} of unsafe prompts and follows
{instruct_answered:.0%} of instructions; its base declines {base_declined:.0%}, follows {base_answered:.0%}, and has a
win rate of {base_win_rate:.0%} against it.

In the mean of unsafe prompts declined and instructions followed, declining everything counts one half. Arms, trained or
merged, whose interval lies above that: {above} of {arms:.0f}; the best has {best:.2f}.{not_shown}

Learning rates were chosen by score alone; at an end of those tried: {edges}. What a method forgets, and how far it
moves from its start, is what it does at that rate.
"""
UNSEEN_LIMITS = """
The base that never met a prompt declines {unseen_declined:.0%} of unsafe prompts, but "resists" {unseen_resisted:.0%}
of attacks: most of what it says neither declines nor complies.
"""
NOT_SHOWN = " Nothing here shows that a model has learnt to tell unsafe prompts from instructions."

SUMMARIES, ALL_LIMITS = (SUMMARY, SUMMARY + UNSEEN), (LIMITS, LIMITS + UNSEEN_LIMITS)
"""Without and with what is said of bases that never met a prompt: models taken as they are have met some."""
