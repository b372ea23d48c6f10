"""Files and knobs of small networks that are grown."""

import json

import numpy as np

PERCEPTRON = {"hidden": [6, 6], "batch": 16, "base": {"steps": 20, "learning_rate": 0.01, "warmup": 2}}
LANGUAGE = {
    "family": "llama", "hidden": 16, "layers": 1, "heads": 2, "context": 16, "embedding_std": 0.3, "batch": 4,
    "held_out": 4, "base": {"steps": 6, "learning_rate": 0.01, "warmup": 2},
}  # fmt: skip
COURSE = {
    "judged": 16,
    "walk": {"count": 3, "steps": 4, "learning_rate": 0.02, "warmup": 1},
    "further": {"steps": 6, "learning_rate": 0.005, "warmup": 1},
}


def write_tables(folder):
    """Small tables `mnist` and `sotu`; their files by name."""
    rng = np.random.default_rng(0)
    digits = []
    for number in range(120):
        image = rng.integers(0, 60, (28, 28))
        image[:, 2 * (number % 10) : 2 * (number % 10) + 3] = 230
        split = {7: "validation", 8: "test", 9: "test"}.get(number // 10 % 10, "train")
        pixels = bytes(image.flatten().tolist()).hex()
        digits.append({"id": f"{number}", "split": split, "label": number % 10, "pixels": pixels})
    words = ["peace", "union", "states", "of", "the", "war", "treaty", "and"]
    texts = [
        {"id": f"{number}", "split": split, "text": " ".join(rng.choice(words, 200))}
        for number, split in enumerate(["train", "train", "validation", "test"])
    ]
    files = {}
    for name, rows in {"mnist": digits, "sotu": texts}.items():
        files[name] = folder / f"{name}.jsonl"
        files[name].write_text("".join(json.dumps(row) + "\n" for row in rows))
    return files
