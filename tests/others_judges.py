"""Judges as people have them on the hub, in folders: each finds the same of whatever it reads."""

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertForSequenceClassification, LlamaConfig

from given_models import CONTEXT

POLICY = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + ' ' }}{% endfor %}Safe or not?"


def steady(words, folder, labels, logit):
    """A classifier: `logit` for its last label, 0 for others. `words` has the tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(words)
    tokenizer.pad_token, tokenizer.model_max_length = tokenizer.eos_token, CONTEXT
    tokenizer.save_pretrained(folder)
    sizes = {"vocab_size": len(tokenizer), "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 8, "max_position_embeddings": CONTEXT, "num_labels": labels}
    model = BertForSequenceClassification(BertConfig(**sizes))
    torch.nn.init.zeros_(model.classifier.weight)
    model.classifier.bias.data = torch.tensor([*[0.0] * (labels - 1), logit])
    model.save_pretrained(folder)
    return folder


def guard(words, folder, logit, opening="\n\n"):
    """A guard whose log-odds of "safe" are `logit`: a Llama of no layers, the same after every token."""
    tokenizer = AutoTokenizer.from_pretrained(words)
    tokenizer.chat_template, tokenizer.model_max_length = POLICY, 10 * CONTEXT
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 8, "num_hidden_layers": 0, "num_attention_heads": 1, "rms_norm_eps": 0.0}
    sizes |= {"vocab_size": len(tokenizer), "max_position_embeddings": 10 * CONTEXT, "tie_word_embeddings": False}
    model = AutoModelForCausalLM.from_config(LlamaConfig(**sizes))
    said = [tokenizer(f"?{opening}{word}", add_special_tokens=False)["input_ids"] for word in ("safe", "unsafe")]
    verdict = next(pair for pair in zip(*said, strict=False) if pair[0] != pair[1])[0]
    with torch.no_grad():
        torch.nn.init.ones_(model.get_input_embeddings().weight)
        head = torch.nn.init.zeros_(model.get_output_embeddings().weight)
        head[verdict] = logit / 8
    model.save_pretrained(folder)
    return folder
