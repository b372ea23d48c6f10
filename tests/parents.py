"""Tiny Llamas with random weights in folders, for merging."""

import copy
import json

import torch
from transformers import AutoModelForCausalLM

from tiny import CONFIGS, tiny_tokenizer

NAMES = ("base", "domain", "aligned")


def write_parents(root, *, tied=False, dtype=torch.float32, shard="5GB", tokenizer=True):
    """Folders `root/base`, `root/domain` and so on. Weights differ by less than they are large, as after training."""
    config = copy.deepcopy(CONFIGS["llama"])
    config.tie_word_embeddings = tied
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for seed, name in enumerate(NAMES):
        other = copy.deepcopy(model)
        source = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=source), alpha=0.1)
        if tokenizer:
            tiny_tokenizer(root / name)
        other.to(dtype).save_pretrained(root / name, max_shard_size=shard)
    return root


def edit(file, **changes):
    """Change keys of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
