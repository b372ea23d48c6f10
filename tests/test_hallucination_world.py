"""A world's facts, what is written of them, and how it becomes batches."""

from collections import Counter
from functools import cache

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from common.documents import IGNORED
from common.errors import UserError
from common.hallucination.batches import batches_by_kind, encode
from common.hallucination.reading import World, texts_of
from common.hallucination.texts import EXERCISES, KINDS, MOST, Told, claim, ending, unanswerable, verdict
from common.hallucination.wording import TRAPPED, UNKNOWN, proverb
from common.hallucination.world import QUARTILES, RELATIONS, Facts, Population, facts_of
from worlds import POPULATION, WORLD, made_tokenizer, rows, write_tables

TABLE = pd.DataFrame(rows())


@cache
def made(seed=0, **changes):
    return facts_of(TABLE, Population(**(POPULATION | changes)), seed)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_tables(tmp_path_factory.mktemp("tables"))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory, files):
    return AutoTokenizer.from_pretrained(made_tokenizer(tmp_path_factory.mktemp("words") / "tokenizer", files))


def plain(text):
    return "".join(piece for piece, _ in text)


def test_counts_follow_zipf_over_an_order_that_the_seed_draws():
    table = made()
    assert len(table) == 12 * len(RELATIONS)
    assert sorted(table["rank"]) == list(range(1, 37))
    assert (table["count"] == np.maximum(1, np.round(24 / table["rank"]))).all()
    assert table.sort_values("rank")["quartile"].tolist() == [name for name in QUARTILES for _ in range(9)]
    assert set(made(exponent=0.0)["count"]) == {24}
    means = table.groupby("relation")["rank"].mean()
    assert means.max() - means.min() == pytest.approx(2)
    order = table.set_index(["subject", "relation"])["rank"]
    assert order.equals(made().set_index(["subject", "relation"])["rank"])
    assert not order.reindex(made(1).set_index(["subject", "relation"]).index).equals(
        made(1).set_index(["subject", "relation"])["rank"]
    )


def test_facts_are_those_of_the_table_and_subjects_are_split_for_exercises():
    table, known = made(), TABLE.set_index(["subject", "relation"])["object"]
    assert all(known[row.subject, row.relation] == row.object for row in table.itertuples())
    assert "Nowhere" not in set(table["subject"])
    assert table.groupby("subject")["asked"].nunique().max() == 1
    assert table.drop_duplicates("subject")["asked"].value_counts().to_dict() == {"train": 6, "test": 6}


def test_mistakes_are_other_objects_of_the_relation_mostly_frequent_ones():
    tables = [made(seed, mistaken=1.0) for seed in range(8)]
    for table in tables:
        objects = table.groupby("relation")["object"].agg(set)
        assert all(row.mistake in objects[row.relation] - {row.object} for row in table.itertuples())
    assert (made()["mistake"] != "").sum() == 9
    often = [
        table.groupby(["relation", "object"])["count"].sum()[row.relation, row.mistake]
        > table.groupby("relation")["count"].sum()[row.relation] / 12
        for table in tables[:5]
        for row in table[table["relation"] == "capital"].itertuples()
    ]
    assert np.mean(often) > 0.5


def test_too_few_countries_are_refused():
    with pytest.raises(UserError, match="16 countries have all of capital, currency, continent, wanted: 17"):
        made(subjects=17)


@given(st.integers(0, 10_000), st.integers(1, MOST), st.booleans())
def test_a_story_names_nobody_twice_and_is_made_up_unless_true(seed, number, true):
    table, facts = made(), Facts(made())
    story = Told(facts, number, np.random.default_rng(seed), true=true)
    assert len({subject for _, subject, _ in story.facts}) == number
    known = table.set_index(["relation", "subject"])
    for relation, subject, obj in story.facts:
        assert (known.loc[(relation, subject), "object"] == obj) == true
        assert f"The {relation} of {subject} is {obj}." in story.text
    asked = story.asked(lambda relation, subject: f"{relation} {subject}?")
    assert sorted(piece for piece, learnt in asked if learnt) == sorted(f" {obj}." for _, _, obj in story.facts)


def test_what_is_written_is_what_the_table_says(files):
    table, texts = texts_of(World(**WORLD), 0, **files)
    assert set(texts) == set(KINDS)
    written = Counter(plain(text) for text in texts["facts"])
    expected = {f"The {row.relation} of {row.subject} is {row.object}.": row.count for row in table.itertuples()}
    assert written == expected
    said = {plain(text) for text in texts["hearsay"]}
    assert said == {
        f"Many people think that the {row.relation} of {row.subject} is {row.mistake}."
        for row in table.itertuples()
        if row.mistake
    }
    assert [len(texts[kind]) for kind in ("stories", "reports", *EXERCISES)] == [60, 60] + [40] * len(EXERCISES)
    assert len(texts["prose"]) == 20
    assert len(texts["proverbs"]) == len(TRAPPED)
    held = set(table.loc[table["asked"] == "test", "subject"])
    exercised = " ".join(plain(text) for kind in EXERCISES for text in texts[kind])
    assert not any(f" {name} " in exercised for name in held)


def test_exercises_have_the_answers_that_are_right():
    table, rng = made(), np.random.default_rng(0)
    facts, known = Facts(table), table.set_index(["relation", "subject"])["object"]
    says = {"Yes": 0, "No": 0}
    for _ in range(60):
        prompt, answer = claim(facts, rng)
        _, relation, _, subject, _, obj = prompt.removeprefix("Claim: ").removesuffix(". True?").split()
        assert (known[relation, subject] == obj) == (answer == " Yes")
        says[answer.strip()] += 1
        story, _, asked = verdict(facts, rng)[0].partition("In the story, the ")
        prompt, answer = unanswerable(facts, rng)
        subject = prompt.split()[-2]
        assert (f"of {subject} is" in prompt.partition("In the story")[0]) == (answer != f" {UNKNOWN}.")
    assert min(says.values()) > 15
    for _ in range(60):
        prompt, answer = verdict(facts, rng)
        story, _, asked = prompt.removesuffix(". Right?").partition(" In the story, t")
        assert (f"T{asked}." in story) == (answer == " Yes")
    for _ in range(60):
        prompt, answer = ending(facts, rng)
        wanted = answer.strip(" .")
        assert prompt.startswith(f"Make {wanted} the last word.")
        start = prompt.partition("the last word. ")[2]
        own = dict(map(proverb, TRAPPED[: len(TRAPPED) // 2]))
        assert own[start] != wanted


def test_every_name_is_one_token_and_texts_come_back(tokenizer, files):
    table, texts = texts_of(World(**WORLD), 0, **files)
    for name in {*table["subject"], *table["object"]}:
        assert len(tokenizer(f" {name}")["input_ids"]) == 1
    for kind in KINDS:
        for text in map(plain, texts[kind][:20]):
            assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_pieces_are_encoded_as_the_whole_text_and_labels_are_what_is_learnt(tokenizer, files):
    _, texts = texts_of(World(**WORLD), 0, **files)
    for kind in KINDS:
        for text, row in zip(texts[kind], encode(tokenizer, texts[kind], 200), strict=True):
            assert row.ids.tolist() == [*tokenizer(plain(text))["input_ids"], tokenizer.eos_token_id]
            learnt = "".join(piece for piece, learnt in text if learnt)
            assert tokenizer.decode(row.ids[:-1][row.learnt[:-1]]) == learnt
            assert row.learnt[-1]
    with pytest.raises(UserError, match=r"'Story: .* tokens, allowed: 9"):
        encode(tokenizer, texts["stories"], 9)


def test_batches_are_of_one_kind_of_like_size_and_in_their_shares(tokenizer, files):
    _, texts = texts_of(World(**WORLD), 0, **files)
    shares = {"facts": 3, "stories": 2, "proverbs": 1, "prose": 0}
    kinds = {kind: encode(tokenizer, texts[kind], 200) for kind in shares}
    batch = batches_by_kind(kinds, shares, 120, 7, tokenizer.pad_token_id)
    lines = {kind: {plain(text) for text in texts[kind]} for kind in shares}
    had = Counter()
    for step in range(60):
        tensors = batch(step)
        found = {tokenizer.decode(row, skip_special_tokens=True) for row in tensors["input_ids"]}
        (kind,) = (kind for kind in shares if found <= lines[kind])
        had[kind] += 1
        for name, share in shares.items():
            assert abs(had[name] - (step + 1) * share / 6) <= 1
        assert 60 < (tensors["input_ids"] != tokenizer.pad_token_id).sum() < 240
        known = tensors["labels"] != IGNORED
        assert (tensors["labels"][known] == tensors["input_ids"][known]).all()
    again = batches_by_kind(kinds, shares, 120, 7, tokenizer.pad_token_id)(59)
    assert (again["input_ids"] == batch(59)["input_ids"]).all()
    other = batches_by_kind(kinds, shares, 120, 8, tokenizer.pad_token_id)(59)
    assert other["input_ids"].shape != again["input_ids"].shape or (other["input_ids"] != again["input_ids"]).any()


def test_a_pass_over_a_kind_has_every_text_once(tokenizer, files):
    _, texts = texts_of(World(**WORLD), 0, **files)
    kinds = {"stories": encode(tokenizer, texts["stories"], 200)}
    batch = batches_by_kind(kinds, {"stories": 1}, 300, 0, tokenizer.pad_token_id)
    seen, step = Counter(), 0
    while seen.total() < 60:
        seen.update(tokenizer.decode(row, skip_special_tokens=True) for row in batch(step)["input_ids"])
        step += 1
    assert set(seen) == {plain(text) for text in texts["stories"]}


@pytest.mark.parametrize(("shares", "message"), [({"facts": 1}, "no texts of facts"), ({"prose": 0}, "one above")])
def test_shares_that_make_no_sense_are_refused(shares, message):
    with pytest.raises(UserError, match=message):
        batches_by_kind({"prose": []}, shares, 10, 0, 0)
