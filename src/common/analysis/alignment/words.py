"""The study's findings in words, which the verdicts choose and the results fill in (see `common.evidence.prose`)."""

SUMMARY = """
**Data.** Clean data {better_data:do better|do not do notably better|cannot be told to do better} than noisy data
({better_data.estimate:+.2f}, {better_data.ci:+.2f}, in shares of what the aim asks for). That they help SFT more than
DPO {better_data_sft:holds|does not hold|is open} ({better_data_sft.estimate:+.2f}, {better_data_sft.ci:+.2f}). With
{most_pairs:.0f} pairs models score {most_score:.2f}, with {fewest_pairs:.0f} pairs and as many steps
{fewest_score:.2f}.

**Method and start.** That SFT does better than DPO from bases {sft_base:holds|does not hold|is open}
({sft_base.estimate:+.2f}, {sft_base.ci:+.2f}); that DPO does better than SFT from instruct models
{dpo_instruct:holds|does not hold|is open} ({dpo_instruct.estimate:+.2f}, {dpo_instruct.ci:+.2f}); that what sets models
of opposite aims apart is larger with DPO {dpo_faithful:holds|does not hold|is open} ({dpo_faithful.estimate:+.2f},
{dpo_faithful.ci:+.2f}). From its start a reply is {dpo_kl:.2f} nats away with DPO and {sft_kl:.2f} with SFT; knowledge
is then at {dpo_knowledge:.1%} and {sft_knowledge:.1%}.

**Both aims at once.** That a model of mixed data falls short of a model of each aim at what that aim asks for
{mixtures_hurt:holds|does not hold|is open} ({mixtures_hurt.estimate:+.2f}, {mixtures_hurt.ci:+.2f}); that it costs more
with DPO {mixtures_hurt_dpo:holds|does not hold|is open} ({mixtures_hurt_dpo.estimate:+.2f},
{mixtures_hurt_dpo.ci:+.2f}). Part of this cost is that a model of one aim may decline everything, or nothing: models of
harmless pairs decline {harmless_data_declined:.0%} of unsafe prompts and follow {harmless_data_answered:.0%} of
instructions, of helpful pairs {helpful_data_declined:.0%} and {helpful_data_answered:.0%}, of the mix
{mix_data_declined:.0%} and {mix_data_answered:.0%}. In the mean of the two, where declining everything is worth one
half, a DARE merge of the separately aligned models
{dare_mitigates:does better|does not do notably better|cannot be told to do better} than mixed data
({dare_mitigates.estimate:+.2f}, {dare_mitigates.ci:+.2f}; {dare_declined:.0%} declined, {dare_answered:.0%} followed).
SLERP {slerp_degrades:does worse|does not do notably worse|cannot be told to do worse} than a DARE merge as far from the
start ({slerp_degrades.estimate:+.2f}, {slerp_degrades.ci:+.2f}). In the paper's table, {swapped:.0f} of
{slerp_rows:.0f} rows of SLERP are nearer to the parents of the other method than to their own.

**Adapters.** QLoRA {lora_qlora:does as well as|does not do as well as|may do as well as} LoRA
({lora_qlora.estimate:+.2f}, {lora_qlora.ci:+.2f}), on a base of {packed_bytes:.0%} of the bytes.
"""
UNSEEN = """
**What a base never met.** To decline, DPO {unseen_dpo:does not teach|teaches|may teach} a base that never met a refusal
({unseen_dpo.estimate:+.2f}, {unseen_dpo.ci:+.2f}), though its log-odds of refusing change by
{unseen_margin.estimate:+.1f} nats; SFT {unseen_sft:teaches it|does not teach it notably more|may teach it more}
({unseen_sft.estimate:+.2f} more than DPO, {unseen_sft.ci:+.2f}).
"""

LIMITS = """
Where models start: the instruct model declines {instruct_declined:.0%} of unsafe prompts and follows
{instruct_answered:.0%} of instructions, its base {base_declined:.0%} and {base_answered:.0%}, with a win rate of
{base_win_rate:.0%} against it.
"""
UNSEEN_LIMITS = """
The base that never met a prompt declines {unseen_declined:.0%}, but "resists" {unseen_resisted:.0%} of attacks: what it
says is no compliance, and mostly no sense.
"""

SUMMARIES, ALL_LIMITS = (SUMMARY, SUMMARY + UNSEEN), (LIMITS, LIMITS + UNSEEN_LIMITS)
"""Without and with what is said of bases that never met a prompt: models taken as they are have met some."""
