"""A causal language model that is told what follows which prompt, and with which probability it says so."""

import math

import torch
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput


class KnowingConfig(PretrainedConfig):
    model_type = "knowing"


class Knowing(PreTrainedModel, GenerationMixin):
    """After each prefix of a continuation it was told, the next token has probability `sure`; all else is even."""

    config_class = KnowingConfig

    def __init__(self, tokenizer, told, sure=0.9, context=2048):
        super().__init__(KnowingConfig(vocab_size=len(tokenizer), max_position_embeddings=context, num_hidden_layers=1))
        self.place = torch.nn.Parameter(torch.zeros(1))  # a model is on the device of its parameters
        self.sure, self.next = sure, {}
        for prompt, continuation in told:
            head, whole = tokenizer(prompt)["input_ids"], tokenizer(prompt + continuation)["input_ids"]
            assert whole[: len(head)] == head
            whole.append(tokenizer.eos_token_id)
            self.next |= {tuple(whole[:end]): whole[end] for end in range(len(head), len(whole))}

    def prepare_inputs_for_generation(self, input_ids, attention_mask=None, **_):
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def forward(self, input_ids, attention_mask=None, logits_to_keep=0, **_):
        size = self.config.vocab_size
        logits = torch.full((*input_ids.shape, size), -math.log(size))
        for row, ids in enumerate(input_ids.tolist()):
            start = 0 if attention_mask is None else int((attention_mask[row] == 0).sum())  # padding on the left
            for end in range(start + 1, len(ids) + 1):
                if (token := self.next.get(tuple(ids[start:end]))) is not None:
                    logits[row, end - 1] = math.log((1 - self.sure) / (size - 1))
                    logits[row, end - 1, token] = math.log(self.sure)
        kept = logits[:, -logits_to_keep:] if isinstance(logits_to_keep, int) else logits[logits_to_keep]
        return CausalLMOutput(logits=kept)
