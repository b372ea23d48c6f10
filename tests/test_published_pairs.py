"""Others' preference data in the places of ours: from folders in the formats that people have them in."""

import csv
import json

import pytest
from pydantic import TypeAdapter, ValidationError

from common import hub
from common.errors import UserError
from common.pairs import sources as reading
from common.pairs.fetching import fetch, without_csv
from common.pairs.published import Pairs, Published, found
from common.pairs.table import load_pairs
from others_files import HARMS, SOURCES, hh, others_data
from pair_files import MAKING, lines

COMMIT = "0123456789abcdef" * 2 + "01234567"


@pytest.fixture
def data(tmp_path):
    return others_data(tmp_path)


@pytest.fixture
def scale(data, monkeypatch):
    """A scale that names these folders."""
    named = {
        name: {"id": f"owner/{name}", "kind": "dataset", "revision": None, "folder": str(folder)}
        for name, folder in data.items()
    }
    monkeypatch.setattr(hub, "has_section", lambda scale, name: True)
    monkeypatch.setattr(hub, "section", lambda scale, name: named)
    return named


def published(pairs=100, **sources):
    return Published.model_validate({"sources": SOURCES | sources, "pairs": pairs})


def kept(folder, place, pairs=100):
    there = found("x", published(pairs))
    cell = next(cell for cell in there.cells if cell["data"] == place)
    keep = folder / f"{place} {pairs}"
    keep.mkdir()
    return fetch(**cell, **there.folders, keep=keep), load_pairs(keep)


def test_data_sets_in_three_formats_become_tables_of_pairs(scale, tmp_path):
    count, pairs = kept(tmp_path, "hh-like")
    assert count == {"harmless": 9, "helpful": 9, "read": 18, "malformed": 0, "unpaired": 0}
    assert {len(prompt) for prompt in pairs["prompt"]} == {3}
    assert {tuple(row) for row in pairs[["chosen", "rejected"]].to_numpy()} == {
        (f"Good {number}.", f"Bad {number}.") for number in range(9)
    }
    count, pairs = kept(tmp_path, "beavertails-like")
    assert count == {"harmless": 6, "helpful": 8, "read": 20, "malformed": 0, "unpaired": 0}
    harmless = pairs[pairs["aim"] == "harmless"]
    assert {(row.chosen, row.rejected, row.category) for row in harmless.itertuples()} == {
        (f"Safe, {number}", f"Unsafe, {number}", HARMS[number % 2]) for number in range(6)
    }
    assert set(pairs["source"]) == {"beavertails-like"}


def test_fewer_pairs_are_drawn_of_each_aim_the_same_every_time_and_not_the_first(scale, tmp_path):
    count, few = kept(tmp_path, "hh-like", pairs=4)
    assert (count["harmless"], count["helpful"], count["read"]) == (4, 4, 18)
    (tmp_path / "again").mkdir()
    _, again = kept(tmp_path / "again", "hh-like", pairs=4)
    assert few.equals(again)
    assert set(few["chosen"]) < {f"Good {number}." for number in range(9)}
    assert few["chosen"].tolist()[:4] != [f"Good {number}." for number in range(4)]


def test_what_data_are_is_told_by_their_ids(scale):
    assert found("x", published()).origins == {
        "hh-like": "owner/hh, a folder", "beavertails-like": "owner/beavertails, a folder; owner/safe, a folder",
    }  # fmt: skip
    scale["hh"] |= {"folder": None, "revision": COMMIT}
    there = found("x", published())
    assert there.origins["hh-like"] == "owner/hh, 0123456"
    assert [(each["place"], each["revision"]) for each in there.cells[0]["sources"]] == [("owner/hh", COMMIT)] * 2
    assert set(there.folders) == {"beavertails", "safe"}


def test_data_at_a_commit_are_read_at_it_and_what_the_hub_does_not_give_is_one_line(scale, monkeypatch, tmp_path):
    scale["hh"] |= {"folder": None, "revision": COMMIT}
    asked = []

    def load(place, **options):
        asked.append((place, options))
        return [hh(number, "a") for number in range(3)]

    monkeypatch.setattr(reading, "load_dataset", load)
    assert kept(tmp_path, "hh-like")[0]["read"] == 6
    parts = [{"data_dir": f"{aim}-base", "split": "train", "revision": COMMIT} for aim in ("harmless", "helpful")]
    assert asked == [("owner/hh", part) for part in parts]

    def offline(place, **options):
        raise ConnectionError("no such name\nin a trace")

    monkeypatch.setattr(reading, "load_dataset", offline)
    with pytest.raises(UserError, match=f"owner/hh at revision {COMMIT} cannot be had: no such name$"):
        kept(tmp_path, "hh-like", pairs=5)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"folder": None}, "hub.hh: owner/hh has no revision: write the commit to use, "),
        ({"folder": "/no/such"}, "hub.hh: there is no folder /no/such"),
        ({"kind": "model"}, "hub.hh is a model, needed: a dataset"),
    ],
)
def test_data_that_cannot_be_had_are_one_line_before_anything_is_read(scale, change, says):
    scale["hh"] |= change
    with pytest.raises(UserError, match=says) as refused:
        found("x", published())
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ({"chosen": "\n\nHuman: a\n\nAssistant: b"}, "1 of 1 rows are malformed, .* line 1: no field 'rejected'"),
        (None, r"holds no file train\*, allowed: the kinds .jsonl"),
    ],
)
def test_folders_of_another_layout_are_one_line(scale, data, tmp_path, rows, says):
    (data["hh"] / "harmless-base/train.jsonl.gz").unlink()
    if rows:
        lines(data["hh"] / "harmless-base/train.jsonl", [rows])
    with pytest.raises(UserError, match=says) as refused:
        kept(tmp_path, "hh-like")
    assert "\n" not in str(refused.value)


def test_rows_of_a_csv_file_stand_on_the_lines_on_which_they_stood(tmp_path):
    text = 'prompt,flag,category\n"a\nb",true,"{""harm"": false}"\n"7",1\n\udcff,False,x\n"c",0.5,[1\n'
    (tmp_path / "in").mkdir()
    (tmp_path / "in/train.csv").write_bytes(text.encode(errors="surrogateescape"))
    rows = (without_csv(tmp_path / "in", tmp_path / "out") / "train.csv.jsonl").read_text().split("\n")
    assert [json.loads(row) if row else "" for row in rows] == [
        "", {"prompt": "a\nb", "flag": True, "category": {"harm": False}}, "", None, None,
        {"prompt": "c", "flag": 0.5, "category": "[1"}, "",
    ]  # fmt: skip
    (tmp_path / "in/train.csv").write_text('prompt\n"a')
    with pytest.raises(UserError, match=r"train.csv: line 2: unexpected end of data"):
        without_csv(tmp_path / "in", tmp_path / "again")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[" * 3000, None), ("-" * 20_000 + "1", None), ("{1, 2}", "{1, 2}"), ("{[1]: 2}", "{[1]: 2}"),
        ("b'a'", "b'a'"), ("{'harm': (True, None)}", {"harm": [True, None]}),
    ],
)  # fmt: skip
def test_a_field_of_a_csv_file_that_is_no_value_is_text_and_one_too_deep_no_row(text, value, tmp_path):
    (tmp_path / "in").mkdir()
    with (tmp_path / "in/train.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["category", "flag"], [text, "1"], ["x", "2"]])
    rows = (without_csv(tmp_path / "in", tmp_path / "out") / "train.csv.jsonl").read_text().split("\n")
    wrong, right = (json.loads(row) for row in rows[1:3])
    assert wrong == (value and {"category": value, "flag": 1})
    assert right == {"category": "x", "flag": 2}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hh-like": SOURCES["hh-like"][:1]}, "hh-like has no source of pairs that are helpful"),
        ({"hh-like": []}, "hh-like has no source of pairs that are harmless and helpful"),
        ({"hh-rlhf": SOURCES["hh-like"]}, "Input should be 'hh-like' or 'beavertails-like'"),
        (
            {"hh-like": [each | {"revision": COMMIT} for each in SOURCES["hh-like"]]},
            "hh: its revision stands in the section hub",
        ),
    ],
)
def test_sources_that_make_no_data_set_are_refused(change, says):
    with pytest.raises(ValidationError, match=says):
        published(**change)


def test_a_studys_pairs_are_ours_or_others_and_each_is_told_its_own_mistakes():
    kind = TypeAdapter(Pairs)
    kind.validate_python(MAKING)
    kind.validate_python({"sources": SOURCES, "pairs": 5})
    for wrong, says in ((MAKING | {"weak": 2}, "weak"), ({"sources": SOURCES, "pairs": 0}, "pairs")):
        with pytest.raises(ValidationError) as refused:
            kind.validate_python(wrong)
        assert [error["loc"][-1] for error in refused.value.errors()] == [says]
