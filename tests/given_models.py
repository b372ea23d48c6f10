"""Models as others would give them: folders with their own tokenizer, chat template, shards; and tables to train on."""

import json
from inspect import signature

import pandas as pd
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from common.tokenizer import train_tokenizer
from pair_files import SAYINGS, SYLLABLES, lines, own_tables

CONTEXT = 400  # tokens that the models take
LIMIT = 160  # tokens of the longest text of a study
READING = {"facts_per_relation": 6, "prose_documents": 1, "refused": 0.4}
FURTHER = {
    "shares": {"general": 0.4, "medicine": 0.2, "prose": 0.1, "unsafe": 0.2, "benign": 0.1}, "steps": 8,
    "batch_size": 4, "learning_rate": 0.01, "warmup": 1, "weight_decay": 0.1, "precision": "no",
}  # fmt: skip
# In the manner of ChatML: a system prompt of the template's own, and a line's end behind the end token.
TEMPLATE = (
    "{% for m in messages %}{% if loop.first %}{{ '<|im_start|>system\nBe brief<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def all_tables(folder):
    """Files by name, of every table that merging and alignment read."""
    files = own_tables(folder)
    unsafe, benign, replies = (
        [json.loads(line) for line in files[name].read_text().splitlines()]
        for name in ("unsafe_prompts", "benign_prompts", "replies")
    )
    for number, row in enumerate(unsafe + benign + replies):
        row |= {"category": "theft", "group": f"text{number}"}
    benign += [row | {"id": f"hard{row['id']}", "kind": "hard", "text": f"{row['text']} lid"} for row in benign]
    splits = ("train", "train", "validation", "test")
    rows = {
        "unsafe_prompts": unsafe,
        "benign_prompts": benign,
        "replies": replies,
        "sotu": [{"id": f"{n}", "split": split, "text": f"Address {n} on jars."} for n, split in enumerate(splits)],
        "judged_responses": [
            {"task": task, "objective": f"Do {n}", "response": f"{('No, I cannot', 'Sure, first')[n % 2]} {n}",
             "label": (n % 2 == 0) == (task == "refusal"), "category": "theft", "split": "train", "group": f"judged{n}"}
            for task in ("refusal", "harm") for n in range(12)
        ],
        "movie_reviews": [
            {"id": f"{n}", "split": splits[n % 4], "label": n % 2, "text": " ".join(SYLLABLES * 3)} for n in range(40)
        ],
    }  # fmt: skip
    return files | {name: lines(folder / f"{name}.jsonl", several) for name, several in rows.items()}


def give_model(folder, *, tied=False, shard="5GB", seed=0, template=TEMPLATE, **sizes):
    """Leave a Llama with random weights in a folder; `sizes` are more of its configuration."""
    said = [f"{text} {a}{b} jar?" for text in (*SAYINGS.values(), "Steal the", "Wash the") for a in SYLLABLES
            for b in SYLLABLES]  # fmt: skip
    train_tokenizer([*said, "Capital Currency Chapter Sector"], 320, folder)
    words = AutoTokenizer.from_pretrained(folder)
    words.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    words.eos_token, words.pad_token = "<|im_end|>", "<|im_end|>"
    words.chat_template = template
    words.model_max_length = 10**6  # as many tokenizers have it: more than their models take
    words.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(**{
        "vocab_size": len(words), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": tied, "eos_token_id": words.eos_token_id, "pad_token_id": words.pad_token_id, **sizes,
    })  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder, max_shard_size=shard)
    return folder


class Direct:
    """Does runs one after another in this process, and knows which were asked for."""

    scale = "tiny"

    def __init__(self, folder, files):
        self.folder, self.files, self.swept, self.kept = folder, files, {}, set()

    def tables(self, names):
        return {name: self.files[name] for name in names}

    def sweep(self, name, run, cells, inputs):
        self.swept[name] = (run, cells, inputs)
        taken, rows = signature(run).parameters, []
        chosen = {key for key, value in inputs.items() if value in self.kept} - taken.keys()
        for number, cell in enumerate(cells):
            named = {value for value in cell.values() if isinstance(value, str)}
            own = {key: value for key, value in inputs.items() if key not in chosen or key in named}
            for place in {"keep", "scratch"} & taken.keys():
                own[place] = self.folder / f"{name} {number} {place}"
                own[place].mkdir()
            rows.append({**cell, **run(**cell, **own), "kept": own.get("keep")})
        self.kept |= {row["kept"] for row in rows}
        return pd.DataFrame(rows) if "keep" in taken else pd.DataFrame(rows).drop(columns="kept")
