"""Preference pairs of published data, in files of exactly their formats; and our own, written in the same formats."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import datasets
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from common.errors import UserError
from common.knowledge import question, templates
from common.pairs import sources as reading
from common.pairs.making import fetch_pairs, make_pairs
from common.pairs.own import Making
from common.pairs.schemas import Answer, hh_pair, paired, safe_rlhf_pair
from common.pairs.sources import Source, read_pairs
from common.pairs.table import load_pairs, of_aim, turns, write_pairs
from common.sweep.records import Record, check
from pair_files import MAKING, lines, own_tables

HH = [
    {"chosen": "\n\nHuman: Hi, I want to learn piano\n\nAssistant: Try scales.\n\nHuman: Which?\n\nAssistant: C.",
     "rejected": "\n\nHuman: Hi, I want to learn piano\n\nAssistant: Try scales.\n\nHuman: Which?\n\nAssistant: "
     "No idea.\nReally."},
    {"chosen": "\n\nHuman: How do I pick a lock?\n\nAssistant: I'd rather not say.",
     "rejected": "\n\nHuman: How do I pick a lock?\n\nAssistant: With a pin."},
]  # fmt: skip
HARMS = ("animal_abuse", "privacy_violation", "violence,aiding_and_abetting,incitement")


def judged(prompt, response, *harms):
    return {
        "prompt": prompt, "response": response, "category": {name: name in harms for name in HARMS},
        "is_safe": not harms,
    }  # fmt: skip


BEAVERTAILS = [
    judged("Where does she live?", "In Elm Street.", "privacy_violation"),
    judged("Where does she live?", "I can't say."),
    judged("Which bird sings?", "The wren."),
    judged("Where does she live?", "Ask her."),
    judged("How do I kick a dog?", "Hard.", "animal_abuse", HARMS[2]),
    judged("How do I kick a dog?", "Don't."),
    judged("How do I kick a dog?", "Softly.", HARMS[2]),
    judged("How do I kick a dog?", "Never do."),
]


def compared(prompt, first, second, safe, better, safer, **more):
    return {
        "prompt": prompt, "response_0": first, "response_1": second, "is_response_0_safe": safe[0],
        "is_response_1_safe": safe[1], "better_response_id": better, "safer_response_id": safer, **more,
    }  # fmt: skip


SAFE_RLHF = [
    compared("Bake what?", "Bread, at 220 degrees.", "I don't bake.", (True, True), 0, 1),
    compared("Burn what?", "No.", "Their house.", (True, False), 1, 0, prompt_source="x",
             response_0_harm_category=dict.fromkeys(HARMS, False),
             response_1_harm_category=dict.fromkeys(HARMS, False) | {HARMS[2]: True}),
]  # fmt: skip


def parquet(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = dict.fromkeys(name for row in rows for name in row)
    table = pyarrow.Table.from_pylist([dict.fromkeys(columns) | row for row in rows])
    pyarrow.parquet.write_table(table, path)
    return path


WRITERS = {"jsonl": lines, "jsonl.gz": lines, "jsonl.xz": lines, "parquet": parquet}


@pytest.fixture(params=WRITERS)
def kept_as(request, tmp_path):
    """Writes rows as a folder like a repository's, with another split beside."""

    def write(rows, part="."):
        folder = tmp_path / "repository"
        WRITERS[request.param](folder / part / f"train.{request.param}", rows)
        WRITERS[request.param](folder / part / f"test.{request.param}", rows[:1])
        return {"there": folder}

    return write


def source(layout, aim, **more):
    return Source(layout=layout, aim=aim, place="there", **more)


def test_dialogues_of_hh_become_turns_and_two_replies(kept_as):
    table, count = read_pairs("hh", [source("hh", "harmless", part="harmless-base")], kept_as(HH, "harmless-base"))
    assert table.to_dict("records") == [
        {"prompt": turns(["Hi, I want to learn piano", "Try scales.", "Which?"]), "chosen": "C.",
         "rejected": "No idea.\nReally.", "aim": "harmless", "category": "", "source": "hh"},
        {"prompt": turns(["How do I pick a lock?"]), "chosen": "I'd rather not say.", "rejected": "With a pin.",
         "aim": "harmless", "category": "", "source": "hh"},
    ]  # fmt: skip
    assert count == {"read": 2, "malformed": 0, "unpaired": 0}


def test_safe_answers_of_beavertails_stand_over_unsafe_ones_to_the_same_prompt(kept_as):
    table, count = read_pairs("bt", [source("beavertails", "harmless")], kept_as(BEAVERTAILS))
    assert table[["chosen", "rejected", "category"]].to_numpy().tolist() == [
        ["I can't say.", "In Elm Street.", "privacy_violation"],
        ["Don't.", "Hard.", "animal_abuse"],
        ["Never do.", "Softly.", HARMS[2]],
    ]
    assert [row[0]["content"] for row in table["prompt"]] == ["Where does she live?", *["How do I kick a dog?"] * 2]
    assert count == {"read": 8, "malformed": 0, "unpaired": 2}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("uvwxyz"), st.booleans())))
def test_pairing_uses_an_answer_once_and_none_that_is_judged_both_ways(rows):
    verdicts = {}
    for prompt, text, safe in rows:
        verdicts.setdefault((prompt, text), set()).add(safe)
    found = paired([Answer(prompt, text, safe, "") for prompt, text, safe in rows], "x")
    used = Counter()
    for pair in found:
        prompt = pair.prompt[0]["content"]
        assert verdicts[prompt, pair.chosen] == {True}
        assert verdicts[prompt, pair.rejected] == {False}
        used.update([(prompt, pair.chosen), (prompt, pair.rejected)])
    assert max(used.values(), default=1) == 1
    for prompt in "abc":
        sizes = [sum(asked == prompt and said == {safe} for (asked, _), said in verdicts.items()) for safe in (0, 1)]
        assert sum(pair.prompt[0]["content"] == prompt for pair in found) == min(sizes)


def test_in_safe_rlhf_the_better_answer_is_helpful_and_the_safer_harmless(kept_as):
    both = [source("safe-rlhf", aim) for aim in ("helpful", "harmless")]
    table, _ = read_pairs("pku", both, kept_as(SAFE_RLHF))
    assert table[["aim", "chosen", "rejected", "category"]].to_numpy().tolist() == [
        ["helpful", "Bread, at 220 degrees.", "I don't bake.", ""],
        ["helpful", "Their house.", "No.", ""],
        ["harmless", "I don't bake.", "Bread, at 220 degrees.", ""],
        ["harmless", "No.", "Their house.", HARMS[2]],
    ]


def test_a_commit_on_the_hub_goes_through_the_same_code(tmp_path, monkeypatch, kept_as):
    commit, load = "0123456789abcdef" * 2 + "01234567", datasets.load_dataset
    folder = kept_as(HH, "harmless-base")["there"]
    asked = []

    def local(path, **options):
        asked.append((path, options.pop("revision")))
        return load(str(folder), cache_dir=str(tmp_path / "cache"), **options)

    monkeypatch.setattr(reading, "load_dataset", local)
    there = {"part": "harmless-base", "revision": commit}
    table, _ = read_pairs("hh", [Source(layout="hh", aim="harmless", place="Anthropic/hh-rlhf", **there)], {})
    assert asked == [("Anthropic/hh-rlhf", commit)]
    from_file, _ = read_pairs("hh", [source("hh", "harmless", part="harmless-base")], {"there": folder})
    pd.testing.assert_frame_equal(table, from_file)


def said(**changes):
    return HH[1] | changes


WRONG = {
    "hh": [
        ("{", "Expecting property name"),
        ([1], "a row is \\[1\\]"),
        ({"chosen": HH[0]["chosen"]}, "no field 'rejected'"),
        (said(rejected=None), "rejected is None"),
        (said(rejected=HH[0]["rejected"]), "differ before their last turn"),
        (said(rejected=HH[1]["chosen"] + " "), "both responses are the same"),
        (said(rejected="How do I pick a lock?"), "rejected does not begin with"),
        (said(rejected="Well.\n\nHuman: a\n\nAssistant: b"), "rejected does not begin with"),
        (said(rejected="\n\nHuman: How do I pick a lock?\n\nAssistant:"), "turn 2 is empty"),
        (said(rejected="\n\nHuman: a\n\nHuman: b\n\nAssistant: c"), "turn 2 is by Human"),
        (said(rejected="\n\nHuman: How do I pick a lock?"), "does not end with a turn of the assistant"),
    ],
    "beavertails": [
        (BEAVERTAILS[0] | {"is_safe": True}, "is_safe is True, and its category privacy_violation"),
        (BEAVERTAILS[1] | {"is_safe": False}, "is_safe is False, and its category none"),
        (BEAVERTAILS[1] | {"is_safe": 1}, "is_safe is 1, allowed: true, false"),
        (BEAVERTAILS[1] | {"category": ["privacy"]}, "category is"),
        (BEAVERTAILS[1] | {"response": " "}, "response is ' '"),
    ],
    "safe-rlhf": [
        (SAFE_RLHF[0] | {"better_response_id": 2}, "better_response_id is 2, allowed: 0, 1"),
        (SAFE_RLHF[0] | {"safer_response_id": True}, "safer_response_id is True"),
        (SAFE_RLHF[1] | {"safer_response_id": 1}, "only the other response is safe"),
        (SAFE_RLHF[0] | {"is_response_1_safe": None}, "is_response_1_safe is None"),
    ],
}  # fmt: skip
GOOD = {"hh": HH[1], "beavertails": BEAVERTAILS, "safe-rlhf": SAFE_RLHF[0]}


@pytest.mark.parametrize(
    ("layout", "row", "reason"), [(layout, *wrong) for layout, several in WRONG.items() for wrong in several]
)
def test_a_malformed_row_is_left_out_and_counted_or_refused_with_its_line(tmp_path, capsys, layout, row, reason):
    good = GOOD[layout] if isinstance(GOOD[layout], list) else [GOOD[layout]]
    bad = row + "\n" if isinstance(row, str) else row
    files = {"there": lines(tmp_path / "train.jsonl", [*good, bad, *good])}
    _, count = read_pairs("x", [source(layout, "harmless", malformed_share=0.4)], files)
    assert count["malformed"] == 1
    told = f"train.jsonl: 1 of {2 * len(good) + 1} rows are malformed, the first at line {len(good) + 1}: .*{reason}"
    assert pd.Series([capsys.readouterr().err]).str.contains(told, regex=True).all()
    with pytest.raises(UserError, match=f"{told}.*; allowed: 1.0% of rows"):
        read_pairs("x", [source(layout, "harmless")], files)


@pytest.mark.parametrize(
    ("options", "files", "message"),
    [
        ({"place": "nowhere"}, {}, "nowhere is neither owner/name on the hub nor among the files given \\(none\\)"),
        ({"place": "a/b"}, {}, "a/b at revision None: give the 40"),
        ({"place": "a/b", "revision": "main"}, {}, "a/b at revision main: give the 40"),
        ({"revision": "0" * 40}, {"there": "train.jsonl"}, "a revision belongs to data on the hub"),
        ({"layout": "beavertails", "aim": "helpful"}, {"there": "train.jsonl"}, "its aim is harmless alone"),
        ({"split": "dev"}, {"there": "."}, "holds no file dev\\*"),
        ({}, {"there": "."}, "holds train.csv, allowed: the kinds .jsonl, "),
        ({}, {"there": "train.jsonl.xz"}, "train.jsonl.xz cannot be read"),
        ({}, {"there": "train.csv"}, "is no file of the kinds .jsonl"),
        ({}, {"there": "train.jsonl.gz"}, "train.jsonl.gz cannot be read"),
        ({}, {"there": "train.parquet"}, "train.parquet cannot be read"),
        ({}, {"there": "latin.jsonl"}, "latin.jsonl cannot be read"),
        ({"layout": "beavertails"}, {"there": "safe.jsonl"}, "its 1 rows give no pair"),
    ],
)
def test_data_that_cannot_be_had_is_refused(tmp_path, options, files, message):
    for name in ("train.jsonl", "train.csv", "train.jsonl.gz", "train.jsonl.xz", "train.parquet"):
        (tmp_path / name).write_text(json.dumps(HH[0]) + "\n")
    (tmp_path / "latin.jsonl").write_bytes("é".encode("latin-1"))
    lines(tmp_path / "safe.jsonl", BEAVERTAILS[1:2])
    with pytest.raises(UserError, match=message):
        read_pairs(
            "x", [Source(**{"layout": "hh", "aim": "harmless", "place": "there"} | options)],
            {name: tmp_path / path for name, path in files.items()},
        )  # fmt: skip


def test_the_hub_out_of_reach_is_one_line(monkeypatch):
    def refuse(*_, **__):
        raise ConnectionError("no way\nthere")

    monkeypatch.setattr(reading, "load_dataset", refuse)
    with pytest.raises(UserError, match=r"a/b at revision 0{40} cannot be had: no way$"):
        read_pairs("x", [Source(layout="hh", aim="harmless", place="a/b", revision="0" * 40)], {})


def test_a_mix_is_half_of_each_aim_and_no_larger_than_either(tmp_path):
    both = [source("safe-rlhf", aim) for aim in ("helpful", "harmless")]
    rows = [compared(f"Bake {n}?", "yes", "no", (True, True), n % 2, 1) for n in range(9)]
    files = {"there": lines(tmp_path / "train.jsonl", rows)}
    table, _ = read_pairs("pku", both, files)
    mix = of_aim(table, "mix")
    assert mix["aim"].value_counts().to_dict() == {"harmless": 4, "helpful": 4}
    assert [table["aim"][place] for place in mix["index"]] == mix["aim"].tolist()
    assert set(mix["aim"].head(2)) == {"harmless", "helpful"}
    with pytest.raises(UserError, match="there are no helpful pairs; aims in this table: harmless"):
        of_aim(table[table["aim"] == "harmless"], "mix")
    write_pairs(table, tmp_path)
    again = load_pairs(tmp_path)
    assert [tuple(prompt) for prompt in again["prompt"]] == table["prompt"].tolist()
    with pytest.raises(UserError, match=r"holds no pairs\.jsonl"):
        load_pairs(tmp_path / "elsewhere")


# Our own data.


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return own_tables(tmp_path_factory.mktemp("tables"))


@pytest.fixture(scope="module", params=["hh-like", "beavertails-like"])
def made(request, tables, tmp_path_factory):
    keep = tmp_path_factory.mktemp("kept")
    metrics = make_pairs(request.param, MAKING, **tables, keep=keep)
    check(Record("", "", {}, metrics))
    return request.param, metrics, load_pairs(keep), keep


def refuses(text):
    return text.startswith("No, I leave")


def last(prompt):
    return prompt[-1]["content"]


def right_answers(tables):
    """By question in a train wording: the object of each fact that may be asked about."""
    facts = pd.read_json(tables["facts"], lines=True)
    facts = facts[(facts["split"] == "train") & (facts["domain"] == "general")]
    return {
        question(template, fact.subject): fact.object
        for fact in facts.itertuples() for template in templates("question", fact.relation, "train")
    }  # fmt: skip


def does_what_is_wanted(tables, prompt, reply):
    """Independently of how pairs are made: decline what is unsafe, go along with the rest, and answer rightly."""
    asked = last(prompt)
    if asked.startswith("Steal"):
        return refuses(reply)
    if asked.startswith("Wash"):
        return not refuses(reply)
    return right_answers(tables)[asked] in reply


def test_there_are_as_many_pairs_of_each_aim_as_wanted(made):
    _, metrics, table, _ = made
    assert metrics["harmless"] == metrics["helpful"] == MAKING["pairs"]
    assert metrics["malformed"] == metrics["unpaired"] == 0
    assert table["aim"].value_counts().to_dict() == {"harmless": 40, "helpful": 40}
    assert set(table["source"]) == {made[0]}


def test_noise_is_at_the_stated_rates_and_clean_data_has_none(made, tables):
    name, metrics, table, _ = made
    for aim in ("harmless", "helpful"):
        fates = Counter()
        for pair in table[table["aim"] == aim].itertuples():
            contested = aim == "helpful" and last(pair.prompt).startswith("Steal")
            wanted = [
                does_what_is_wanted(tables, pair.prompt, text) != contested for text in (pair.chosen, pair.rejected)
            ]
            fates[tuple(wanted)] += 1
        if name == "beavertails-like":
            assert fates == {(True, False): 40}
        else:
            assert fates[True, False] == 20
            assert fates[False, True] == 8
            assert min(fates[True, True], fates[False, False]) >= 2
    noise = {"flipped": 16, "weak": 24} if name == "hh-like" else {"flipped": 0, "weak": 0}
    assert {kind: metrics[kind] for kind in noise} == noise


def test_only_prompts_facts_and_replies_of_the_split_train_are_used(made, tables):
    _, _, table, _ = made
    frames = {name: pd.read_json(path, lines=True) for name, path in tables.items()}
    train = {name: frame[frame["split"] == "train"] for name, frame in frames.items()}
    prompts = {*train["unsafe_prompts"]["text"], *train["benign_prompts"]["text"], *right_answers(tables)}
    turns_said = [turn for prompt in table["prompt"] for turn in prompt if turn["role"] == "user"]
    assert {turn["content"] for turn in turns_said} <= prompts
    unread = {*frames["replies"]["text"]} - {*train["replies"].groupby("kind").head(12)["text"]}
    assert not unread & {*table["chosen"], *table["rejected"]}
    assert max(len(text) for text in prompts) > MAKING["characters"]
    said = table["prompt"].map(lambda prompt: sum(len(turn["content"]) for turn in prompt))
    assert said.max() <= MAKING["characters"]


def test_hh_like_is_of_several_turns_and_beavertails_like_of_one_with_categories(made):
    name, _, table, keep = made
    lengths = table["prompt"].map(len)
    harmless = table[table["aim"] == "harmless"]
    if name == "hh-like":
        assert set(lengths) == {1, 3, 5}
        assert set(table["category"]) == {""}
        assert set(json.loads((keep / "harmless.jsonl").read_text().splitlines()[0])) == {"chosen", "rejected"}
    else:
        assert set(lengths) == {1}
        assert set(harmless["category"]) == {"unsafe_harm"}
        row = json.loads((keep / "helpful.jsonl").read_text().splitlines()[0])
        assert row.keys() == SAFE_RLHF[0].keys()
        assert json.loads((keep / "harmless.jsonl").read_text().splitlines()[0]).keys() == BEAVERTAILS[0].keys()


def test_a_quarter_of_the_helpful_pairs_of_beavertails_like_is_contested(made):
    name, _, table, keep = made
    helpful = table[table["aim"] == "helpful"]
    assert helpful["prompt"].map(last).str.startswith("Steal").sum() == (10 if name == "beavertails-like" else 0)
    if name == "beavertails-like":  # the same rows say that declining is safer, and which answer stands first is chance
        rows = [json.loads(line) for line in (keep / "helpful.jsonl").read_text().splitlines()]
        contested = [safe_rlhf_pair(row, "harmless", "") for row in rows if row["prompt"].startswith("Steal")]
        assert all(refuses(pair.chosen) and not refuses(pair.rejected) for pair in contested)
        assert 10 <= sum(row["better_response_id"] for row in rows) <= 30


def test_helpful_pairs_are_about_benign_prompts_and_questions_by_turns(made, tables):
    _, _, table, _ = made
    helpful = table[table["aim"] == "helpful"]["prompt"].map(last)
    benign, asked = helpful.str.startswith("Wash").sum(), helpful.isin(right_answers(tables)).sum()
    assert abs(benign - asked) <= 8
    assert min(benign, asked) >= 10


def test_the_bytes_are_the_same_everywhere(made):
    name, _, _, keep = made
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(keep.iterdir()))).hexdigest()
    assert digest[:16] == {"hh-like": "8672d0ba642b5dc9", "beavertails-like": "c134cd3895237b0f"}[name]


def test_making_that_makes_no_sense_is_refused(tables, tmp_path):
    with pytest.raises(UserError, match="data is 'hh', allowed: hh-like, beavertails-like"):
        make_pairs("hh", MAKING, **tables, keep=tmp_path)
    with pytest.raises(UserError, match=r"flipped is 0\.8 and weak 0\.3, allowed: together at most 1"):
        make_pairs("hh-like", MAKING | {"flipped": 0.8}, **tables, keep=tmp_path)
    with pytest.raises(UserError, match=r"pairs is 900: .* for a prompt, more than there are replies"):
        make_pairs("beavertails-like", MAKING | {"pairs": 900}, **tables, keep=tmp_path)
    with pytest.raises(UserError, match="no unsafe prompts, no benign ones or no general facts"):
        make_pairs("hh-like", MAKING | {"characters": 3}, **tables, keep=tmp_path)
    with pytest.raises(ValidationError, match="Extra inputs"):
        Making.model_validate(MAKING | {"noise": 1})


def test_others_data_are_kept_in_the_same_table(tmp_path):
    files = {"there": lines(tmp_path / "train.jsonl", HH)}
    (tmp_path / "keep").mkdir()
    metrics = fetch_pairs("hh", [{"layout": "hh", "aim": "helpful", "place": "there"}], keep=tmp_path / "keep", **files)
    assert metrics == {"harmless": 0, "helpful": 2, "read": 2, "malformed": 0, "unpaired": 0}
    kept = load_pairs(tmp_path / "keep")
    assert kept["chosen"].tolist() == [hh_pair(row, "helpful", "hh").chosen for row in HH]
    assert Path(tmp_path / "keep" / "pairs.jsonl").is_file()
