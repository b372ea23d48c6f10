"""The study's findings in words, which the verdicts choose and the results fill in (see `common.evidence.prose`)."""

SUMMARY = """
**Data.** Clean data {better_data:do better|do not do notably better|may do better} than noisy data
({better_data.estimate:+.2f}, {better_data.ci:+.2f}, in shares of what the aim asks for), and
{better_data_sft:more so|not notably more so|perhaps more so} with SFT than with DPO ({better_data_sft.estimate:+.2f},
{better_data_sft.ci:+.2f}).

**Method and start.** From bases SFT {sft_base:does better|does not do notably better|may do better} than DPO
({sft_base.estimate:+.2f}, {sft_base.ci:+.2f}); from instruct models DPO
{dpo_instruct:does better|does not do notably better|may do better} than SFT ({dpo_instruct.estimate:+.2f},
{dpo_instruct.ci:+.2f}). What sets models of opposite aims apart is
{dpo_faithful:larger|not notably larger|perhaps larger} with DPO ({dpo_faithful.estimate:+.2f}, {dpo_faithful.ci:+.2f}).
What DPO costs: it goes {dpo_kl:.0f} nats a reply from its start, SFT {sft_kl:.0f}, and leaves knowledge at
{dpo_knowledge:.0%}, SFT at {sft_knowledge:.0%}.

**Both aims at once.** A model of mixed data {mixtures_hurt:falls short|does not fall short|may fall short} of a model
of each aim ({mixtures_hurt.estimate:+.2f}, {mixtures_hurt.ci:+.2f}),
{mixtures_hurt_dpo:more|not notably more|perhaps more} with DPO ({mixtures_hurt_dpo.estimate:+.2f},
{mixtures_hurt_dpo.ci:+.2f}). A DARE merge of the separately aligned models
{dare_mitigates:does better|does not do notably better|may do better} than mixed data ({dare_mitigates.estimate:+.2f},
{dare_mitigates.ci:+.2f}). SLERP {slerp_degrades:does worse|does not do notably worse|may do worse} than DARE
({slerp_degrades.estimate:+.2f}, {slerp_degrades.ci:+.2f}), and its merges
{slerp_between:are|are not notably|may be} nearer in toxicity to their own parents than to the other
method's. In the paper's table, {swapped:.0f} of {slerp_rows:.0f} rows of SLERP are nearer to the parents of the other
method than to their own.

**Adapters.** QLoRA {lora_qlora:does as well as|does not do as well as|may do as well as} LoRA
({lora_qlora.estimate:+.2f}, {lora_qlora.ci:+.2f}), on a base of {packed_bytes:.0%} of the bytes.

**What a base never met.** To decline, DPO {unseen_dpo:does not teach|teaches|may teach} a base that never met a refusal
({unseen_dpo.estimate:+.2f}, {unseen_dpo.ci:+.2f}), though its log-odds of refusing change by
{unseen_margin.estimate:+.1f} nats; SFT {unseen_sft:teaches it|does not teach it notably more|may teach it more}
({unseen_sft.estimate:+.2f} more than DPO, {unseen_sft.ci:+.2f}).
"""
