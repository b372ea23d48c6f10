"""A small world's tables: countries with capital, currency and continent, and a few addresses."""

import json

from common.hallucination.reading import fit_tokenizer

CONTINENTS = ("Notria", "Sudria", "Ostria", "Westria")
CURRENCIES = ("Crown", "Ducat", "Thaler", "Guilder", "Florin", "Penny")
POPULATION = {"subjects": 12, "exponent": 1.0, "mistaken": 0.25, "repeats": 24}
WORLD = {"population": POPULATION, "told": 60, "exercises": 40, "prose": 20, "vocab_size": 560}
SYLLABLES = ("ba", "do", "ki", "lu", "mi", "no", "pa", "ra", "so", "tu", "va", "ze", "fo", "ge", "hu", "ja")


def rows():
    """Facts about sixteen countries, and one that has no currency."""
    made = []
    for number, syllable in enumerate(SYLLABLES):
        name = f"{syllable}lland".capitalize()
        for relation, obj in (
            ("capital", f"{syllable}{syllable}ton".capitalize()),
            ("currency", CURRENCIES[number % len(CURRENCIES)]),
            ("continent", CONTINENTS[number % len(CONTINENTS)]),
        ):
            made.append({"id": f"{relation}/{number}", "relation": relation, "subject": name, "object": obj})
    made.append({"id": "capital/x", "relation": "capital", "subject": "Nowhere", "object": "Sometown"})
    return [row | {"domain": "general", "split": "train", "popularity": None} for row in made]


def write_tables(folder):
    """Files of the tables by name."""
    text = ". ".join(f"The union has {word} more states and the people of it are at peace" for word in SYLLABLES)
    addresses = [
        {"id": f"a{n}", "split": "train", "text": f"{text}. {text}", "year": 1800, "president": "x"} for n in (1, 2)
    ]
    files = {"facts": folder / "facts.jsonl", "sotu": folder / "sotu.jsonl"}
    for file, several in zip(files.values(), (rows(), addresses), strict=True):
        file.write_text("".join(f"{json.dumps(row)}\n" for row in several))
    return files


def made_tokenizer(folder, files):
    fit_tokenizer(WORLD, keep=folder, **files)
    return folder
