"""Preference data as people have them on the hub, each set in another format, and scales that name what is there."""

import csv
import functools

import pyarrow
import pyarrow.parquet
import yaml

from common import hub
from common.cells import carry_out, checked_cells
from common.scales import has_section, section
from pair_files import lines

HARMS = ("privacy_violation", "violence,incitement")
SOURCES = {
    "hh-like": [{"layout": "hh", "aim": aim, "place": "hh", "part": f"{aim}-base"} for aim in ("harmless", "helpful")],
    "beavertails-like": [
        {"layout": "beavertails", "aim": "harmless", "place": "beavertails", "split": "330k_train"},
        {"layout": "safe-rlhf", "aim": "helpful", "place": "safe"},
    ],
}
"""Which of them take whose place."""


def hh(number, aim):
    head = f"\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: {aim}, number {number}?\n\nAssistant: "
    return {"chosen": f"{head}Good {number}.", "rejected": f"{head}Bad {number}."}


def judged(number, safe):
    return {
        "prompt": f"True or {number}?", "response": f"{'Safe' if safe else 'Unsafe'}, {number}", "is_safe": safe,
        "category": {name: not safe and place == number % 2 for place, name in enumerate(HARMS)},
    }  # fmt: skip


def compared(number):
    return {
        "prompt": f"Which, {number}?", "response_0": f"A {number}", "response_1": f"B {number}",
        "is_response_0_safe": True, "is_response_1_safe": True, "better_response_id": number % 2,
        "safer_response_id": 0,
    }  # fmt: skip


def table(path, rows):
    """A CSV file as pandas and `datasets` write it: Python's words for what is no text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def parquet(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def others_data(folder):
    """Folders by name."""
    for aim in ("harmless", "helpful"):
        lines(folder / f"hh/{aim}-base/train.jsonl.gz", [hh(number, aim) for number in range(9)])
    answers = [judged(number, safe) for number in range(6) for safe in (True, False)]
    table(folder / "beavertails/330k_train.csv", answers)
    parquet(folder / "safe/train-00000.parquet", [compared(number) for number in range(8)])
    return {name: folder / name for name in ("hh", "beavertails", "safe")}


def scale_writer(root, monkeypatch, study, items, knobs):
    """What writes a scale `x` with a study that starts from items of the hub, given what changes some of them."""
    monkeypatch.setattr(hub, "section", functools.partial(section, root=root))
    monkeypatch.setattr(hub, "has_section", functools.partial(has_section, root=root))

    def write(**changes):
        named = {name: each | changes.get(name, {}) for name, each in items.items()}
        (root / "scales").mkdir(exist_ok=True)
        (root / "scales/x.yaml").write_text(yaml.safe_dump({"hub": named, study: knobs}))
        return knobs

    write()
    return write


def at_papers_scale(study, sweep, plots, folder, monkeypatch):
    """Names of the figures of a study's notebook there: `sweep` does no run, nothing is fetched and nothing drawn."""

    def pinned(scale, name):
        knobs = section(scale, name)
        return {key: each | {"revision": "0" * 40} for key, each in knobs.items()} if name == "hub" else knobs

    figures = []
    monkeypatch.setattr(hub, "section", pinned)
    monkeypatch.setattr("common.bases.locating.located", lambda given, scale: folder / given.model)
    monkeypatch.setattr("common.study.sweep", sweep)
    monkeypatch.setattr("common.study.Study.figure", lambda study, name, *drawn: figures.append(name))
    for name in [name for name, drawn in vars(plots).items() if callable(drawn)]:
        monkeypatch.setattr(plots, name, lambda *values, **named: None)
    monkeypatch.setenv("COMPENDIUM_WORK", str(folder))
    monkeypatch.setenv("COMPENDIUM_SCALE", "paper")
    carry_out(study, *checked_cells(study, "paper"))
    return figures
