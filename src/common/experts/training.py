"""From a base model to an aligned generalist, to a domain expert, and from an expert to one made safe by training.

Each is the function that a sweep calls. `start` names, among `models`, the folder of the model to go on from.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common import zoo
from common.bases.reading import DOMAINS
from common.documents import document_loss, mixed_batches
from common.experts.material import as_read, dialogues, fact_documents, material, pairs, responses, spoken
from common.preference.adapters import merge
from common.preference.finetuning import finetune
from common.preference.references import reference_log_probs
from common.preference.tuning import Tuning
from common.training import Plan, adamw, train

Positive = Annotated[float, Field(ge=0)]


class Alignment(BaseModel):
    """How a generalist is made: supervised fine-tuning on wanted replies, then DPO, with documents replayed in both."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    repeats: dict[str, NonNegativeInt]  # wordings of a reply that a prompt meets, by kind of prompt
    sft: Tuning
    dpo: Tuning
    dialogue_share: Annotated[float, Field(ge=0, le=1)]  # of the rows that DPO replays, wanted replies once more

    @model_validator(mode="after")
    def _makes_sense(self) -> "Alignment":
        for stage in ("sft", "dpo"):
            tuning = getattr(self, stage)
            if tuning.method != stage:
                raise ValueError(f"{stage}: method is {tuning.method!r}, allowed: {stage}")
            if tuning.lora is not None:
                raise ValueError(f"{stage}: a generalist is fine-tuned whole, lora is not allowed")
        return self


class Expertise(BaseModel):
    """How an expert is made: full fine-tuning on the facts of its domain and some dialogues."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    shares: dict[Literal["domain", "general", "unsafe", "benign"], Positive]  # of rows; the last two are dialogues
    refused: Annotated[float, Field(ge=0, le=1)]  # share of the replies to unsafe prompts that decline
    steps: PositiveInt
    batch_size: PositiveInt
    learning_rate: PositiveFloat
    warmup: NonNegativeInt
    weight_decay: Positive


def align(
    start: str, alignment: dict, replay_domains: bool, dpo: bool, facts_per_relation: int, seed: int, *, facts: Path,
    unsafe_prompts: Path, benign_prompts: Path, replies: Path, keep: Path, scratch: Path, **models: Path,
) -> dict:  # fmt: skip
    """Make and keep an aligned generalist: refuses unsafe prompts, goes along with benign ones.

    Replayed are facts of general knowledge and, with `replay_domains`, those of every domain, but none that experts are
    not trained on. Without `dpo` it ends
    after supervised fine-tuning. Metrics: those of the last stage (see `common.preference.finetuning.finetune`), and
    the `tokens` of both, replayed ones among them.
    """
    recipe = Alignment.model_validate(alignment)
    model, tokenizer = zoo.load(str(models[start]))
    context = model.config.max_position_embeddings
    source = material(facts_per_relation, facts, unsafe_prompts, benign_prompts, replies)
    rows = dialogues(source, recipe.repeats)
    kinds = fact_documents(source, tokenizer, context)
    kinds = {domain: kinds[domain] for domain in (DOMAINS if replay_domains else ("general",))}
    shares = {domain: (1 - recipe.dialogue_share) / len(kinds) for domain in kinds}
    examples = responses(rows, tokenizer, context)
    replay = (kinds, dict.fromkeys(kinds, 1.0))
    model, metrics = finetune(model, examples, recipe.sft, seed, replay=replay, scratch=scratch / "sft")
    tokens = metrics["tokens"]
    if dpo:
        examples = pairs(rows, tokenizer, context)
        reference = reference_log_probs(model, examples)
        replay = (
            kinds | {"dialogues": spoken(rows, tokenizer, context)},
            shares | {"dialogues": recipe.dialogue_share},
        )
        model, metrics = finetune(
            model, examples, recipe.dpo, seed, reference=reference, replay=replay, scratch=scratch / "dpo"
        )
        tokens += metrics["tokens"]
    _keep(model, tokenizer, keep)
    return {**metrics, "tokens": tokens}


def specialise(
    start: str, domain: str, expertise: dict, facts_per_relation: int, seed: int, *, facts: Path,
    unsafe_prompts: Path, benign_prompts: Path, replies: Path, keep: Path, scratch: Path, **models: Path,
) -> dict:  # fmt: skip
    """Make and keep an expert of a domain: its facts but those of the split test, in the wordings that bases read.

    Dialogues are like those that bases read: with the base's own share `refused` they leave it as inclined to decline
    as it was; benign ones alone teach it to go along.
    """
    recipe = Expertise.model_validate(expertise)
    model, tokenizer = zoo.load(str(models[start]))
    context = model.config.max_position_embeddings
    source = material(facts_per_relation, facts, unsafe_prompts, benign_prompts, replies)
    known = fact_documents(source, tokenizer, context)
    kinds = {
        "domain": known[domain],
        "general": known["general"],
        **as_read(source, tokenizer, context, recipe.refused),
    }
    plan = Plan(
        recipe.steps, recipe.learning_rate, recipe.warmup, final_share=0.0, log_every=max(1, recipe.steps // 20)
    )
    trained = train(
        model,
        document_loss,
        mixed_batches(kinds, recipe.shares, recipe.batch_size, seed, tokenizer.pad_token_id),
        plan,
        optimizer=adamw(model, weight_decay=recipe.weight_decay, betas=(0.9, 0.98)),
        setting=f"expert of {domain}, seed {seed}",
        checkpoint=scratch / "checkpoint",
        checkpoint_every=plan.log_every * 10,
    )
    _keep(model, tokenizer, keep)
    curve = {column: [row[column] for row in trained.curve] for column in trained.curve[0]}
    return {"train_loss": trained.curve[-1]["loss"], **trained.used, "curve": curve}


def harden(
    start: str, tuning: dict, repeats: dict, facts_per_relation: int, seed: int, *, facts: Path, unsafe_prompts: Path,
    benign_prompts: Path, replies: Path, keep: Path, scratch: Path, **models: Path,
) -> dict:  # fmt: skip
    """Make an expert safe by training and keep it whole: the rivals of merging, on the same dialogues."""
    recipe = Tuning.model_validate(tuning)
    model, tokenizer = zoo.load(str(models[start]))
    context = model.config.max_position_embeddings
    rows = dialogues(material(facts_per_relation, facts, unsafe_prompts, benign_prompts, replies), repeats)
    examples = (responses if recipe.method == "sft" else pairs)(rows, tokenizer, context)
    reference = reference_log_probs(model, examples) if recipe.method == "dpo" else None
    tuned, metrics = finetune(model, examples, recipe, seed, reference=reference, scratch=scratch)
    _keep(tuned if recipe.lora is None else merge(tuned), tokenizer, keep)
    return metrics


def _keep(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
