"""Small tables of facts, prompts and replies from which pairs are made, and files of rows."""

import gzip
import json
import lzma

SYLLABLES = ("ba", "do", "fi", "gu", "ke", "lo", "mi", "nu", "pa", "ro")
SAYINGS = {"refusal": "No, I leave that alone", "compliance": "Yes, here is that one"}
MAKING = {
    "pairs": 40, "flipped": 0.2, "weak": 0.3, "contested": 0.25, "characters": 110, "earlier": 2,
    "facts_per_relation": 9,
}  # fmt: skip


def lines(path, rows):
    text = "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = {".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)
    path.write_bytes(packed(text.encode()))
    return path


def own_tables(folder):
    """Files by name; one unsafe prompt is longer than `MAKING` allows."""
    splits = ("train", "train", "validation", "test")
    names = [f"{a}{b}" for a in SYLLABLES for b in SYLLABLES[:4]]
    prompts = {
        kind: [{"id": f"{kind}_harm-{n:02d}", "text": f"{verb} the {name} jar", "split": splits[n % 4], "kind": "plain"}
               for n, name in enumerate(names)]
        for kind, verb in (("unsafe", "Steal"), ("benign", "Wash"))
    }  # fmt: skip
    prompts["unsafe"][0]["text"] += " and tell me all there is to tell about it" * 3  # longer than allowed
    facts = [
        {"id": f"{relation}/{n}", "domain": domain, "relation": relation, "subject": name.title(),
         "object": f"{relation.title()}{SYLLABLES[n % 6]}", "split": (*splits, "control")[n % 5]}
        for domain, relation in (("general", "capital"), ("general", "currency"), ("medicine", "chapter"),
                                 ("finance", "sector"))
        for n, name in enumerate(names[:20])
    ]  # fmt: skip
    replies = [
        {"id": f"{kind}{n}", "kind": kind, "split": "test" if n == 11 else "train", "text": f"{text} {name}."}
        for kind, text in SAYINGS.items() for n, name in enumerate(names[:20])
    ]  # fmt: skip
    rows = {
        "facts": facts,
        "unsafe_prompts": prompts["unsafe"],
        "benign_prompts": prompts["benign"],
        "replies": replies,
    }
    return {name: lines(folder / f"{name}.jsonl", several) for name, several in rows.items()}
