"""The faults that are tried on a study that was run before: what is broken, and the line that tells."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from breaking import STUDY, Fault
from pipeline import rows_of
from places import Place
from surroundings import (
    altered,
    damaged,
    filled_when_drawing,
    full_disk,
    interrupted,
    offline,
    offline_without_sources,
    read_only,
    second,
    untouched,
)


def _record(place: Place) -> Path:
    """The record of a run of the study that keeps no files."""
    return next(path for path in _records(place) if not path.with_suffix("").is_dir())


def _weights(place: Place) -> Path:
    """Weights of a model that a run of the study kept."""
    return next(file for path in _records(place) for file in path.with_suffix("").rglob("*.safetensors"))


def _records(place: Place) -> list[Path]:
    keys = [row["key"] for row in rows_of(place.root / "results/tiny" / STUDY)]
    return [place.root / ".cache/runs" / key[:2] / f"{key}.json" for key in keys]


def _data_object(place: Place) -> Path:
    """The largest object in DVC's cache; the data that it is of are gone from the work tree."""
    shutil.rmtree(place.root / "data")
    return max((place.root / ".dvc/cache").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)


def _flip(content: bytes) -> bytes:
    """One bit in the middle is another."""
    place = len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def _half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _other(old: str, new: str, occurrence: int = 0) -> Callable[[bytes], bytes]:
    """One occurrence of a text, counted from the first, replaced."""

    def change(content: bytes) -> bytes:
        parts = content.decode().split(old)
        head, tail = parts[: occurrence + 1], parts[occurrence + 1 :]
        assert tail, (old, occurrence)
        return (old.join(head) + new + old.join(tail)).encode()

    return change


SCALE, PARAMS, NOTEBOOK = "scales/tiny.yaml", "params.yaml", f"notebooks/{STUDY}.ipynb"
FAULTS = [
    Fault(
        "params.yaml: a number for the studies",
        "studies is 3, allowed",
        altered(PARAMS, lambda _: b"scale: tiny\nstudies: 3\n"),
    ),
    Fault(
        "params.yaml: no study", r"studies is \[\], allowed", altered(PARAMS, lambda _: b"scale: tiny\nstudies: []\n")
    ),
    Fault("params.yaml: not YAML", "params.yaml is not valid YAML", altered(PARAMS, lambda _: b"scale: [tiny\n")),
    Fault("scale: not text", "is not text in UTF-8", altered(SCALE, lambda content: b"\xff\xfe" + content)),
    Fault(
        "scale: a word for a number",
        "candidates is 'four'",
        altered(SCALE, _other("candidates: 4", "candidates: four")),
    ),
    Fault(
        "scale: a knob that there isn't",
        "canditates is no parameter",
        altered(SCALE, _other("candidates: 4", "canditates: 4")),
    ),
    Fault("scale: a share of seven", "margin is 7", altered(SCALE, _other("margin: 0.1 #", "margin: 7 #"))),
    Fault("scale: no steps", "steps is 0", altered(SCALE, _other("steps: 20", "steps: 0"))),
    Fault(
        "scale: a learning rate that breaks training",
        "error: .*[Ll]oss",
        altered(SCALE, _other("learning_rate: 0.01", "learning_rate: 1.0e+30")),
    ),
    Fault(
        "scale: a word for the size of the vocabulary",
        "vocab_size is 'many'",
        altered(SCALE, _other("vocab_size: 512", "vocab_size: many")),
    ),
    Fault(
        "scale: a list for a study's knobs",
        f"{STUDY} is \\[1, 2\\]",
        altered(SCALE, lambda content: re.sub(rb"(?ms)^bases:.*?^merging:", b"bases: [1, 2]\nmerging:", content)),
    ),
    Fault("notebook cut off", "is not a notebook", altered(NOTEBOOK, _half)),
    Fault(
        "notebook: a cell that isn't Python",
        "is not Python",
        altered(NOTEBOOK, _other("study = Study", "study == = Study")),
    ),
    Fault(
        "dvc.lock cut off in a word",
        "dvc.lock",
        altered("dvc.lock", lambda content: content[: content.rindex(b"md5: ")] + b"md5 ["),
    ),
    Fault(
        "a finished run's record altered",
        "damaged cache file .*checksum",
        damaged(_record, _flip),
        fails=False,
        again=1,
    ),
    Fault(
        "a finished run's record cut off",
        "damaged cache file",
        damaged(_record, _half),
        fails=False,
        again=1,
    ),
    Fault(
        "a trained model's weights altered",
        "damaged cache file .*files kept",
        damaged(_weights, _flip),
        fails=False,
        again=1,
    ),
    Fault(
        "a table of the data altered",
        "Importing 'build/corpus' -> 'data'",
        damaged(lambda place: place.root / "data/facts.jsonl", _flip),
        fails=False,
    ),
    Fault(
        "an object in DVC's cache altered, its data gone",
        "Running stage 'corpus'",
        damaged(_data_object, _flip),
        fails=False,
    ),
    Fault(
        "results altered",
        "",
        damaged(lambda place: place.root / f"results/tiny/{STUDY}/claims.json", _half),
        fails=False,
    ),
    Fault("results/ read-only", "Read-only file system", read_only("results")),
    Fault(
        ".cache/runs read-only, nothing in it", "error: .*Read-only file system", read_only(".cache/runs"), cold=True
    ),
    Fault("all of the checkout read-only", "Read-only file system", read_only(".")),
    Fault("disk full", "No space left on device", full_disk(0)),
    Fault("disk full after some runs", "^error: .*No space left on device", full_disk(400), cold=True),
    Fault("disk full when drawing", "^error: .*No space left on device", full_disk(50_000), filled_when_drawing),
    Fault("no network", "figures/tiny: ", offline, fails=False),
    Fault("no network and no data yet", "no network", offline_without_sources),
    Fault("the same command twice at once", "is already running", untouched, second, cold=True),
    Fault("Ctrl-C", "interrupted", untouched, interrupted, cold=True),
]
