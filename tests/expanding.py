"""Tiny language models with large random weights, norms and biases included, to be expanded."""

from itertools import pairwise

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

TOKENS = {"vocab_size": 37, "bos_token_id": 0, "eos_token_id": 0}


def llama(*, tied=False, biases=True, dtype=torch.float64, **sizes):
    shape = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    shape |= {"intermediate_size": 10, "head_dim": 4, "max_position_embeddings": 16}
    config = LlamaConfig(
        **{**shape, **sizes}, **TOKENS, attention_bias=biases, mlp_bias=biases, tie_word_embeddings=tied
    )
    return shaken(LlamaForCausalLM, config, dtype)


def gpt2(*, tied=True, dtype=torch.float64, **sizes):
    shape = {"n_embd": 12, "n_layer": 2, "n_head": 3, "n_positions": 16}
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    return shaken(
        GPT2LMHeadModel, GPT2Config(**{**shape, **sizes}, **dropout, **TOKENS, tie_word_embeddings=tied), dtype
    )


def shaken(kind, config, dtype):
    torch.manual_seed(0)
    model = kind(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model.to(dtype)


def mlp(*sizes, dtype=torch.float64, activation=nn.ReLU):
    torch.manual_seed(0)
    layers = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*layers[:-1]).to(dtype)


def ids(rows=3, length=9, seed=1):
    return torch.randint(TOKENS["vocab_size"], (rows, length), generator=torch.Generator().manual_seed(seed))


def exact_norms(monkeypatch):
    """transformers' RMSNorm works in float32 whatever it is given; here it works in what it is given."""

    def forward(self, values):
        return self.weight * values * torch.rsqrt(values.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)

    monkeypatch.setattr(LlamaRMSNorm, "forward", forward)


def gradients(model, tokens):
    loss = model(input_ids=tokens, labels=tokens).loss
    return dict(zip(dict(model.named_parameters()), torch.autograd.grad(loss, list(model.parameters())), strict=True))
