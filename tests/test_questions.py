"""Questions about facts: held-out wordings, fair candidates, and what can be had without knowing a subject."""

import itertools
import random
import re
from collections import Counter

import numpy as np
import pandas
import pytest

from common.corpus.facts import facts
from common.errors import UserError
from common.knowledge import TEMPLATES, choices, null_question, prior_accuracy, question, statement, templates
from common.knowledge.told import told_accuracy
from fact_files import few_facts

RELATIONS = ("capital", "currency", "continent", "symbol", "chapter", "block", "sector", "index")


def table(rows: list[tuple[str, str, str]], control: frozenset[str] = frozenset()) -> pandas.DataFrame:
    """Facts from (relation, subject, object)."""
    return pandas.DataFrame(
        {
            "id": f"{relation}/{subject}/{obj}",
            "relation": relation,
            "subject": subject,
            "object": obj,
            "split": "control" if subject in control else "train",
        }
        for relation, subject, obj in rows
    )


def currencies() -> pandas.DataFrame:
    """Twelve countries of three currencies, 6 : 4 : 2, and one of a fourth."""
    money = ["Crown"] * 6 + ["Ducat"] * 4 + ["Sou"] * 2 + ["Batz"]
    return table([("currency", f"Land {n}", name) for n, name in enumerate(money)])


def words(text: str) -> list[str]:
    return re.findall(r"\w+", re.sub(r"{\w+}", "", text).casefold())


# Templates


def test_every_relation_of_the_facts_has_templates_to_train_and_held_out_ones():
    assert {row["relation"] for row in facts(few_facts().__getitem__)} == set(RELATIONS)
    for relation in RELATIONS:
        made = Counter((t.kind, t.split) for t in TEMPLATES if t.relation == relation)
        assert made == {
            ("statement", "train"): 4,
            ("statement", "test"): 1,
            ("question", "train"): 4,
            ("question", "validation"): 2,
            ("question", "test"): 2,
        }


def test_no_wording_is_there_twice_and_each_names_its_subject_once():
    assert len({t.id for t in TEMPLATES}) == len({t.text for t in TEMPLATES}) == len(TEMPLATES)
    for template in TEMPLATES:
        holes = sorted(re.findall(r"{(\w+)}", template.text))
        assert holes == (["object", "subject"] if template.kind == "statement" else ["subject"]), template


def test_subjects_and_objects_change_places_and_requests_stand_beside_questions():
    for relation in RELATIONS:
        training = [t.text for t in TEMPLATES if t.relation == relation and t.split == "train"]
        asked = [text for text in training if "{object}" not in text]
        assert any(text.endswith("?") for text in asked)
        assert any(text.endswith(".") for text in asked)
        assert {text.find("{subject}") > 0 for text in asked} == {True, False}, relation
        told = [text for text in training if "{object}" in text]
        assert {text.find("{subject}") < text.find("{object}") for text in told} == {True, False}, relation


@pytest.mark.parametrize("kind", ["statement", "question"])
def test_held_out_wordings_use_words_that_training_ones_use_too(kind):
    known = {word for t in TEMPLATES if t.split == "train" for word in words(t.text)}
    for template in TEMPLATES:
        if template.kind == kind and template.split != "train":
            assert set(words(template.text)) <= known, template


def test_statements_and_questions_are_filled_in_as_they_stand():
    [told, *_] = templates("statement", "capital", "train")
    [asked, *_] = templates("question", "capital", "train")
    assert statement(told, "Avalia {x}", "Torm") == "The capital of Avalia {x} is Torm."
    assert question(asked, "Avalia") == "What is the capital of Avalia?"
    assert null_question(asked) == "What is the capital of that one?"
    with pytest.raises(ValueError, match="capital/question/1 is no statement"):
        statement(asked, "Avalia", "Torm")
    with pytest.raises(ValueError, match="capital/statement/1 is no question"):
        question(told, "Avalia")


@pytest.mark.parametrize("template", [t for t in TEMPLATES if t.kind == "question"], ids=lambda t: t.id)
def test_a_null_question_is_the_question_without_its_subject(template):
    null = null_question(template)
    assert null[0].isupper()
    assert "that one" in null.casefold()
    assert re.sub("that one", "{subject}", null, flags=re.IGNORECASE).casefold() == template.text.casefold()


@pytest.mark.parametrize(
    "wrong", [("question", "colour", "test"), ("statement", "capital", "validation"), ("answer", "capital", "train")]
)
def test_templates_that_there_are_not_are_refused_with_those_there_are(wrong):
    with pytest.raises(UserError, match=r"no .* about .*capital, currency.*train, validation, test"):
        templates(*wrong)


# Candidates


def test_every_fact_is_asked_by_every_template_of_the_split():
    items = choices(currencies(), "train", candidates=3)
    assert len(items) == 13 * 4
    assert items.columns.tolist() == ["fact", "relation", "template", "question", "candidates", "answer"]
    assert items.template.value_counts().to_dict() == {f"currency/question/{n}": 13 for n in range(1, 5)}
    assert items.question[0] == "Which currency does Land 0 have?"


def test_the_right_object_is_among_different_candidates_at_the_place_of_the_answer():
    made = currencies()
    obj = dict(zip(made.id, made.object, strict=True))
    for item in choices(made, "test", candidates=4, seed=3).itertuples():
        assert item.candidates[item.answer] == obj[item.fact]
        assert sorted(item.candidates) == ["Batz", "Crown", "Ducat", "Sou"]


def test_another_right_answer_is_never_a_candidate():
    made = pandas.concat([currencies(), table([("currency", "Land 0", "Ducat")])])
    for seed in range(40):
        items = choices(made, "test", candidates=3, seed=seed).drop_duplicates("fact").set_index("fact")
        assert set(items.candidates["currency/Land 0/Crown"]) == {"Crown", "Sou", "Batz"}
        assert set(items.candidates["currency/Land 0/Ducat"]) == {"Ducat", "Sou", "Batz"}


def test_candidates_come_from_the_relation_alone():
    made = pandas.concat([currencies(), table([("continent", f"Land {n}", f"Part {n % 5}") for n in range(12)])])
    items = choices(made, "test")
    for relation, shown in zip(items.relation, items.candidates, strict=True):
        assert all(obj.startswith("Part") == (relation == "continent") for obj in shown)


def test_a_draw_depends_on_seed_and_fact_and_not_on_the_order_or_other_relations():
    made = currencies()
    shuffled = made.sample(frac=1, random_state=1)
    more = pandas.concat([table([("continent", f"Land {n}", f"Part {n}") for n in range(5)]), shuffled])
    key = ["fact", "template"]
    first = choices(made, "test", seed=5).sort_values(key).reset_index(drop=True)
    for other in (shuffled, more):
        again = choices(other, "test", seed=5).query("relation == 'currency'").sort_values(key).reset_index(drop=True)
        pandas.testing.assert_frame_equal(first, again)
    assert not first.equals(choices(made, "test", seed=6).sort_values(key).reset_index(drop=True))


def test_all_questions_about_a_fact_have_the_same_candidates_at_the_same_places():
    items = choices(currencies(), "train", candidates=3)
    assert items.groupby("fact").candidates.agg(lambda column: len(set(map(tuple, column)))).max() == 1
    assert items.groupby("fact").answer.nunique().max() == 1


def test_candidates_are_drawn_as_often_as_they_are_answers():
    """Against the exact chances of two draws without replacement by weight, over 2,000 seeds (4.5 standard errors)."""
    made = currencies()
    weight = {"Ducat": 4, "Sou": 2, "Batz": 1}
    exact = Counter()
    for first, second in itertools.permutations(weight, 2):
        exact[frozenset([first, second])] += weight[first] / 7 * weight[second] / (7 - weight[first])
    one = made.id[0]
    drawn = (choices(made, "test", candidates=3, seed=seed) for seed in range(2000))
    seen = Counter(frozenset(items[items.fact == one].candidates.iloc[0]) - {"Crown"} for items in drawn)
    for pair, chance in exact.items():
        assert seen[pair] / 2000 == pytest.approx(chance, abs=4.5 * np.sqrt(chance * (1 - chance) / 2000))


def test_the_right_one_stands_at_every_place_equally_often():
    places = Counter(place for seed in range(150) for place in choices(currencies(), "test", seed=seed).answer)
    assert min(places.values()) > 0.9 * 150 * 2 * 13 / 4
    assert sorted(places) == [0, 1, 2, 3]


def test_capitals_stand_beside_those_of_the_same_continent_as_far_as_there_are():
    lands = [(f"Land {n}", f"Part {n % 3 if n < 12 else 3}") for n in range(14)]
    made = table([(r, s, o) for s, part in lands for r, o in (("continent", part), ("capital", f"Town of {s}"))])
    where = dict(lands)
    items = choices(made, "test")
    for item in items[items.relation == "capital"].itertuples():
        parts = [where[obj.removeprefix("Town of ")] for obj in item.candidates]
        own = parts[item.answer]
        assert parts.count(own) == (2 if own == "Part 3" else 4)


def test_symbols_stand_beside_those_with_the_same_first_letter():
    made = table([("symbol", f"Element {x}", x) for x in ("Ab", "Ac", "Ad", "Ae", "Bb", "Bc", "Bd", "Be")])
    for shown in choices(made, "test").candidates:
        assert len({obj[0] for obj in shown}) == 1


def test_objects_that_are_never_taught_stand_together():
    lands = [f"Land {n}" for n in range(20)]
    made = table([("capital", land, f"Town of {land}") for land in lands], control=frozenset(lands[:5]))
    kept = {f"Town of {land}" for land in lands[:5]}
    assert {len(kept & set(shown)) for shown in choices(made, "test").candidates} == {0, 4}


@pytest.mark.parametrize(
    ("made", "options", "said"),
    [
        (currencies(), {"candidates": 1}, "1 candidates leave no choice"),
        (currencies(), {"candidates": 5}, "'currency' has 3 other objects for 'Land 0': too few for 5"),
        (currencies().iloc[:0], {}, "no facts"),
        (currencies(), {"split": "control"}, "no control question"),
    ],
)
def test_questions_that_can_not_be_made_are_refused(made, options, said):
    with pytest.raises(UserError, match=said):
        choices(made, **{"split": "test"} | options)


# The prior


def test_the_prior_picks_the_candidate_most_often_taught():
    made = table([("currency", f"Land {n}", name) for n, name in enumerate("AAABBC")], control=frozenset(["Land 2"]))
    items = pandas.DataFrame(
        {
            "relation": "currency",
            "candidates": [["A", "C"], ["C", "A"], ["A", "B"], ["B", "A"], ["A", "B", "C"]],
            "answer": [0, 0, 0, 1, 2],
        }
    )
    # Taught are A, A, B, B, C: right, wrong, a tie of two, a tie of two, wrong.
    assert prior_accuracy(items, made) == pytest.approx((1 + 0 + 0.5 + 0.5 + 0) / 5)


def test_the_prior_counts_within_a_relation():
    made = table(
        [("sector", f"Firm {n}", "A") for n in range(9)] + [("index", "Firm 1", "A"), ("index", "Firm 2", "B")]
    )
    items = pandas.DataFrame({"relation": ["index"], "candidates": [["A", "B"]], "answer": [1]})
    assert prior_accuracy(items, made) == 0.5


def test_the_prior_is_what_guessing_by_frequency_gives_on_average():
    made = currencies()
    items = choices(made, "train", candidates=3, seed=1)
    count = made.object.value_counts().to_dict()
    generator = random.Random(0)
    right = 0
    for item in items.itertuples():
        for _ in range(20):
            best = max(item.candidates, key=lambda obj: (count[obj], generator.random()))
            right += best == item.candidates[item.answer]
    assert prior_accuracy(items, made) == pytest.approx(right / (20 * len(items)), abs=0.05)


def test_frequency_alone_tells_little_where_answers_are_not_too_skew():
    """Twenty objects, 1 to 20 times each: drawn evenly, the most frequent candidate would be right half of the time."""
    made = table([("chapter", f"Illness {n} {m}", f"Part {n}") for n in range(1, 21) for m in range(n)])
    fair = prior_accuracy(choices(made, "test"), made)
    assert 0.2 < fair < 0.33
    generator = random.Random(0)
    names = sorted(set(made.object))
    uneven = pandas.DataFrame(
        {"relation": "chapter", "candidates": [obj, *generator.sample([n for n in names if n != obj], 3)], "answer": 0}
        for obj in made.object
    )
    assert prior_accuracy(uneven, made) > fair + 0.1


def test_the_prior_of_no_items_is_refused():
    with pytest.raises(UserError, match="no items"):
        prior_accuracy(choices(currencies(), "test").iloc[:0], currencies())


# What the words of a subject tell


def diagnoses(told: bool) -> pandas.DataFrame:
    """Sixty made-up diagnoses of three chapters, twelve of them control; where `told`, by their endings."""
    rng = random.Random(0)
    endings, chapters = ("itis", "oma", "algia"), ("Infections", "Tumours", "Pains")
    rows = []
    for n in range(60):
        stem = "".join(rng.choices("bdfgklmnprst", k=3)).capitalize()
        rows.append(("chapter", f"{stem}{n}{endings[n % 3]}", chapters[n % 3 if told else rng.randrange(3)]))
    return table(rows, control=frozenset(subject for _, subject, _ in rows[48:]))


def told(facts: pandas.DataFrame) -> float:
    control = facts["split"] == "control"
    items = choices(facts, "test", 3)
    return told_accuracy(items[items["fact"].isin(facts.loc[control, "id"])], facts, facts[~control])


def test_subjects_whose_words_tell_their_object_are_guessed_and_others_are_not():
    assert told(diagnoses(told=True)) == 1.0
    assert told(diagnoses(told=False)) < 0.7


def test_an_object_that_was_never_read_is_never_guessed():
    facts = diagnoses(told=True)
    facts.loc[facts["split"] == "control", "object"] = [f"Chapter {n}" for n in range(12)]
    items = choices(facts, "test", 3)
    items = items[items["fact"].isin(facts.loc[facts["split"] == "control", "id"])]
    only = items["candidates"].map(lambda shown: not {"Infections", "Tumours", "Pains"} & set(shown))
    assert told_accuracy(items, facts, facts[facts["split"] != "control"]) <= only.mean() * 0.6


def test_words_are_guessed_by_those_who_read_other_facts_only():
    facts = diagnoses(told=True)
    with pytest.raises(ValueError, match="were read"):
        told_accuracy(choices(facts, "test", 3), facts, facts)
