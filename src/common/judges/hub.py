"""Judges by hub id or local folder: guard models that write a verdict, and classifiers of toxicity or reward."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from common import zoo
from common.errors import UserError
from common.judges.judge import same_number
from common.scoring.tokens import context_length


@dataclass(frozen=True)
class GuardJudge:
    """A causal language model that answers "safe" or "unsafe" to a conversation, as Llama Guard does.

    Llama Guard: Inan et al. 2023, arXiv 2312.06674. The chat template holds the policy. `opening` is what the model
    writes before its verdict: two line ends in Llama Guard 3, nothing in the first.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    opening: str = "\n\n"
    batch_size: int = 8

    def judge(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        """p(safe) / (p(safe) + p(unsafe)), of the first token at which the two verdicts differ."""
        same_number(prompts, responses)
        rows = [self._encode(*pair) for pair in zip(prompts, responses, strict=True)]
        parts = [self._logits(batch) for batch in _batches(rows, self.batch_size)]
        return torch.cat([torch.empty(0, 2), *parts]).double().softmax(1)[:, 0].numpy()

    def _encode(self, prompt: str, response: str) -> tuple[list[int], int, int]:
        """Ids up to the verdict, and the ids with which each verdict goes on."""
        encoded = _verdicts(self.tokenizer, self.opening, prompt, response)
        if len(encoded[0]) > context_length(self.model):
            told = f"a conversation of {len(encoded[0])} tokens is longer than the guard's context"
            raise UserError(f"{told}: {prompt[:60]!r}")
        return encoded

    @torch.no_grad()
    def _logits(self, batch: list[tuple[list[int], int, int]]) -> torch.Tensor:
        """Of the safe and the unsafe verdict; `(batch, 2)`."""
        self.model.eval()
        width = max(len(ids) for ids, _, _ in batch)
        # Padded on the left, so that every row's verdict comes next; a masked token has no place.
        ids = torch.tensor([[0] * (width - len(ids)) + ids for ids, _, _ in batch])
        mask = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids, _, _ in batch])
        places = (mask.cumsum(1) - 1).clamp(min=0)
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": places}
        moved = {name: tensor.to(self.model.device) for name, tensor in inputs.items()}
        logits = self.model(**moved, logits_to_keep=1, use_cache=False).logits[:, -1].float().cpu()
        return logits.gather(1, torch.tensor([verdicts for _, *verdicts in batch]))


@dataclass(frozen=True)
class ClassifierJudge:
    """A sequence classifier of prompt and response, such as one of toxicity or a reward model, or of responses alone.

    `label` is one of the model's labels, whose high probability `means` that the response is safe or unsafe. A model
    of one label gives it by a sigmoid: a reward model, or one of toxicity whose logit rises as toxicity falls, has
    "LABEL_0", which means safe. One of several labels gives them by a softmax.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    label: str
    means: Literal["safe", "unsafe"]
    batch_size: int = 16

    def __post_init__(self):
        _check("the classifier", self.model.config, self.tokenizer, self.label)
        if self.means not in ("safe", "unsafe"):
            raise UserError(f"means is {self.means!r}, allowed: safe, unsafe")

    def judge(self, prompts: Sequence[str], responses: Sequence[str]) -> np.ndarray:
        logits = self.logits(prompts, responses).double()
        if logits.shape[1] == 1:
            probability = logits.sigmoid()[:, 0]
        else:
            probability = logits.softmax(1)[:, self.model.config.label2id[self.label]]
        return (probability if self.means == "safe" else 1 - probability).numpy()

    @torch.no_grad()
    def logits(self, prompts: Sequence[str], responses: Sequence[str]) -> torch.Tensor:
        """Of every label; `(n, labels)`. A toxicity or reward model's score is its one logit.

        Where all prompts are empty it reads responses alone. What is longer than the model's context loses the end of
        its longer text.
        """
        same_number(prompts, responses)
        self.model.eval()
        longest = min(self.tokenizer.model_max_length, _places(self.model))
        parts = [torch.empty(0, self.model.config.num_labels)]
        texts = (prompts, responses) if any(prompts) else (responses,)
        for batch in _batches(list(zip(*texts, strict=True)), self.batch_size):
            inputs = self.tokenizer(
                *map(list, zip(*batch, strict=True)),
                padding=True,
                truncation="longest_first",
                max_length=longest,
                return_tensors="pt",
            )
            parts.append(self.model(**inputs.to(self.model.device)).logits.float().cpu())
        return torch.cat(parts)


def load_guard(name: str, revision: str | None, opening: str = "\n\n") -> GuardJudge:
    """A `GuardJudge` from a hub id at a commit, or from a local folder; errors as `load_classifier`."""
    model, tokenizer = zoo.load(name, revision=revision)
    _check_policy(name, tokenizer)
    return GuardJudge(model, tokenizer, opening)


def load_classifier(name: str, revision: str | None, label: str, means: Literal["safe", "unsafe"]) -> ClassifierJudge:
    """A `ClassifierJudge` from a hub id at a commit, or from a local folder (`revision` None).

    Errors as of `common.zoo.load`.
    """
    model, tokenizer = zoo.load(name, revision=revision, kind=AutoModelForSequenceClassification)
    if model.config.pad_token_id is None:  # a decoder's: its score is that of the last token before padding
        model.config.pad_token_id = tokenizer.pad_token_id
    return ClassifierJudge(model, tokenizer, label, means)


def check_classifier(name: str, folder: Path, label: str) -> None:
    """Raise `UserError`, before weights are opened, where the classifier in a folder can't be a judge by that label."""
    _check(name, *_unweighted(name, folder), label)


def check_guard(name: str, folder: Path, opening: str) -> None:
    """Raise `UserError`, before weights are opened, where the model in a folder can't be a guard."""
    config, tokenizer = _unweighted(name, folder)
    if MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type) not in (config.architectures or ["none"]):
        raise UserError(f"{name} is no causal language model, as guards are: it is {config.architectures}")
    _check_policy(name, tokenizer)
    said = [("Is it?", "It is."), ("Was it?", "It is."), ("Is it?", "It was.")]
    try:
        read = [tuple(_verdicts(tokenizer, opening, *turns)[0]) for turns in said]
    except Exception as error:  # Jinja has errors of its own, and what a template computes may raise any
        raise UserError(f"{name} can't judge a conversation: {' '.join(str(error).split())[:120]}") from error
    if len({*read}) < len(said):
        raise UserError(f"{name} can't judge a conversation: its chat template leaves out what is said")
    longest = getattr(config, "max_position_embeddings", None) or len(read[0])
    if len(read[0]) > longest:
        raise UserError(f"{name} can't judge a conversation: {len(read[0])} tokens and more, its context is {longest}")


def _verdicts(
    tokenizer: PreTrainedTokenizerBase, opening: str, prompt: str, response: str
) -> tuple[list[int], int, int]:
    """Ids of a conversation up to a guard's verdict, and the ids with which "safe" and "unsafe" go on."""
    said = [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]
    text = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True) + opening
    safe, unsafe = tokenizer([text + "safe", text + "unsafe"], add_special_tokens=False)["input_ids"]
    differ = next((n for n, ids in enumerate(zip(safe, unsafe, strict=False)) if len(set(ids)) == 2), None)
    if not differ:
        raise UserError("the guard's tokenizer does not tell safe from unsafe after a conversation")
    return safe[:differ], safe[differ], unsafe[differ]


def _unweighted(name: str, folder: Path) -> tuple[PretrainedConfig, PreTrainedTokenizerBase]:
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises no narrower one on a broken file
        raise UserError(f"{name} cannot be opened: {' '.join(str(error).split())[:120]}") from error
    longest, stated = getattr(config, "max_position_embeddings", None), tokenizer.model_max_length
    if longest and longest < stated < zoo.NO_LIMIT:
        told = f"its tokenizer allows {stated} tokens, the model {longest}"
        raise UserError(f"{name}: {told}: write that as model_max_length into its tokenizer_config.json")
    return config, tokenizer


def _check_policy(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    if not tokenizer.chat_template:
        raise UserError(f"{name} has no chat template: a guard's policy stands in it")


def _check(name: str, config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase, label: str) -> None:
    if label not in config.label2id:
        raise UserError(f"{name} has no label {label!r}, only {', '.join(config.label2id)}")
    if tokenizer.pad_token is None:
        raise UserError(f"{name}: its tokenizer has no padding token: texts of several lengths need one")


def _places(model: PreTrainedModel) -> int:
    """Tokens of the longest text: RoBERTa and its kin give the first places of their table to padding."""
    tables = [layer for name, layer in model.named_modules() if name.endswith("position_embeddings")]
    kept = [layer.num_embeddings - layer.padding_idx - 1 for layer in tables if getattr(layer, "padding_idx", None)]
    return min([context_length(model), *kept])


def _batches(rows: list, size: int) -> Iterator[list]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
