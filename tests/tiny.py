"""Tiny language models with random or planted weights, a tokenizer for them, and their likelihoods one by one."""

import math

import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BloomConfig,
    GPT2Config,
    LlamaConfig,
    Mamba2Config,
    MistralConfig,
    RecurrentGemmaConfig,
)

from common.tokenizer import train_tokenizer

VOCABULARY, CONTEXT = 320, 48
TOKENS = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
WIDTH = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48}
SEEN = {**TOKENS, **WIDTH, "max_position_embeddings": CONTEXT}
SSM = {"state_size": 8, "n_groups": 1, "num_heads": 8, "head_dim": 8, "chunk_size": 8}
CONFIGS = {
    "llama": LlamaConfig(**SEEN),
    "llama, eager": LlamaConfig(**SEEN, attn_implementation="eager"),
    "mistral, window 12": MistralConfig(**SEEN, num_key_value_heads=1, sliding_window=12),
    "gpt2": GPT2Config(**TOKENS, n_embd=32, n_layer=3, n_head=2, n_positions=CONTEXT),
    "bloom": BloomConfig(**TOKENS, hidden_size=32, n_layer=3, n_head=2),
    "recurrent_gemma, hybrid": RecurrentGemmaConfig(**TOKENS, **WIDTH, attention_window_size=8),
    "recurrent_gemma, recurrent": RecurrentGemmaConfig(**TOKENS, **WIDTH, block_types=["recurrent"]),
    "mamba2": Mamba2Config(**TOKENS, hidden_size=32, num_hidden_layers=3, **SSM),
}
WORDS = (
    *("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "while", "seven", "small", "birds", "sing"),
    *("of", "rain", "and", "sun", "in", "old", "green", "hills"),
)


def random_model(name):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[name]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Larger weights than usual: what a token sees moves its logits by far more than any tolerance.
            if parameter.dim() == 2:
                parameter.normal_(std=0.3)
    return model


def planted_model(following):
    """A model that looks at the last token alone: `following[last][next]` is a probability, the rest is even."""
    config = LlamaConfig(
        **{**SEEN, "hidden_size": VOCABULARY, "num_attention_heads": 1, "num_hidden_layers": 0, "rms_norm_eps": 0.0},
        tie_word_embeddings=False,
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    logs = np.full((VOCABULARY, VOCABULARY), -math.log(VOCABULARY))
    for last, row in following.items():
        logs[last] = math.log((1 - sum(row.values()) + 1e-9) / (VOCABULARY - len(row)))
        for token, probability in row.items():
            logs[last, token] = math.log(probability)
    with torch.no_grad():
        model.get_input_embeddings().weight.copy_(torch.eye(VOCABULARY))
        # The norm makes the last token's place sqrt(vocabulary) instead of 1.
        model.get_output_embeddings().weight.copy_(torch.from_numpy(logs.T / math.sqrt(VOCABULARY)))
    return model


def tiny_tokenizer(folder):
    rng = np.random.default_rng(0)
    train_tokenizer((" ".join(rng.choice(WORDS, 12)) for _ in range(200)), VOCABULARY, folder)
    return AutoTokenizer.from_pretrained(folder)


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def token_logs(model, ids):
    """Log-probabilities `(length, vocab)` in float64 after each token of one sequence, without a cache."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double().log_softmax(-1)


def naive(model, prompt, continuation):
    """Log-likelihood of a continuation's ids, one sequence at a time."""
    logs = token_logs(model, prompt + continuation)
    return sum(logs[len(prompt) - 1 + place, token].item() for place, token in enumerate(continuation))
