"""A model's own inclination to refuse, read off its likelihoods without generating anything."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.errors import UserError
from common.scoring.likelihood import continuation_scores


@dataclass(frozen=True)
class LikelihoodJudge:
    """Judges a model by how likely it finds given refusals and compliances; it reads no response.

    A prompt becomes the user's turn of the tokenizer's chat template and a reply the assistant's, with the token that
    ends it. Without a template a reply follows the prompt after a space.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    refusals: Sequence[str]
    compliances: Sequence[str]
    batch_size: int = 64

    def __post_init__(self):
        if not self.refusals or not self.compliances:
            counts = f"{len(self.refusals)} refusals and {len(self.compliances)} compliances"
            raise UserError(f"{counts}: likelihoods need at least one of each")

    def margins(self, prompts: Sequence[str]) -> np.ndarray:
        """Log-odds of refusing each prompt, in nats; float64 `(n,)`, above 0 where the model would rather refuse.

        log (1/R) Σ_r p(r | prompt) − log (1/C) Σ_c p(c | prompt): the likelihood of the mixture of all refusals
        against that of all compliances. Likelihoods are of whole replies, not per token, so that a model that says
        nothing but these replies gets its exact odds; refusals and compliances should be of like length.
        Raises `UserError` where a prompt and a reply are longer than the model's context.
        """
        replies = [*self.refusals, *self.compliances]
        framed = [self._frame(prompt) for prompt in prompts]
        heads = [head for head, _, _ in framed]
        tails = [[before + reply + after for reply in replies] for _, before, after in framed]
        scores = continuation_scores(self.model, self.tokenizer, heads, tails, self.batch_size)
        table = scores.log_likelihood.to_numpy().reshape(len(prompts), len(replies))
        refuse, comply = np.split(table, [len(self.refusals)], axis=1)
        odds = logsumexp(refuse, axis=1) - logsumexp(comply, axis=1)
        return odds - np.log(len(self.refusals) / len(self.compliances))

    def _frame(self, prompt: str) -> tuple[str, str, str]:
        """The prompt as the model reads it, and what a reply to it comes between."""
        if not self.tokenizer.chat_template:
            return prompt, " ", ""
        said = [{"role": "user", "content": prompt}]
        head = self.tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
        reply = self.refusals[0]
        said.append({"role": "assistant", "content": reply})
        whole = self.tokenizer.apply_chat_template(said, tokenize=False)
        if not whole.startswith(head) or whole[len(head) :].count(reply) != 1:
            raise UserError("the chat template writes a prompt otherwise where a reply follows: no likelihood")
        return head, *whole[len(head) :].split(reply)
