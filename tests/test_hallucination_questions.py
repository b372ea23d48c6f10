"""What models are asked about a world: each task tells a model that knows the answers from one that does not."""

import numpy as np
import pandas as pd
import pytest
from transformers import AutoTokenizer

from common.architectures import Shape, build
from common.documents import document_loss
from common.errors import UserError
from common.hallucination.batches import batches_by_kind, encode
from common.hallucination.evaluation import by_group, chance, entity_f1, evaluate, names_in
from common.hallucination.questions import DISTRACTORS, FILLED, questions
from common.hallucination.wording import UNKNOWN
from common.hallucination.world import Facts, Population, facts_of
from common.tasks.items import Item, Task
from common.training import Plan, adamw, train
from worlds import POPULATION, WORLD, made_tokenizer, rows, write_tables

TABLE = facts_of(pd.DataFrame(rows()), Population(**POPULATION), 5)
FACTS = Facts(TABLE)
NUMBER = 4
TASKS = {task.name: task for task in questions(TABLE, NUMBER, 5)}
KNOWN = TABLE.set_index(["relation", "subject"])["object"]


def told_in(prompt):
    """What a story says: object by (relation, subject)."""
    sentences = [
        line for line in prompt.removeprefix("Story: ").split(". ") if line.startswith("The ") and " of " in line
    ]
    words = [line.removesuffix(".").split() for line in sentences]
    return {(line[1], line[3]): line[5] for line in words if len(line) == 6}


def test_questions_are_the_same_for_a_seed_and_name_nobody_of_the_exercises():
    again = questions(TABLE, NUMBER, 5)
    assert [task.items for task in again] == [task.items for task in TASKS.values()]
    assert questions(TABLE, NUMBER, 6)[3].items != TASKS["conflict"].items
    train = set(TABLE.loc[TABLE["asked"] == "train", "subject"])
    for name, task in TASKS.items():
        if name not in ("recall", "misconceptions", "endings", "proverbs"):
            assert not any(subject in item.prompt.split() for item in task.items for subject in train), name


def test_recall_asks_for_every_fact_and_misconceptions_for_those_about_which_people_err():
    asked = {tuple(np.array(item.prompt.split())[[1, 3]]): item.right for item in TASKS["recall"].items}
    assert asked == {place: (obj,) for place, obj in KNOWN.items()}
    wrong = TABLE[TABLE["mistake"] != ""]
    assert len(TASKS["misconceptions"].items) == len(wrong)
    for item, row in zip(TASKS["misconceptions"].items, wrong.itertuples(), strict=True):
        assert item.right == (f" {row.object}",)
        assert item.memorised == (f" {row.mistake}",)
        assert len({*item.right, *item.wrong}) == 4


def test_a_conflict_is_between_the_story_and_the_world_with_so_much_between():
    groups = [(item.groups.get("distractors"), item.groups.get("distance")) for item in TASKS["conflict"].items]
    settings = [("0", "0"), *((str(n), None) for n in DISTRACTORS if n), *((None, str(n)) for n in FILLED if n)]
    assert groups == [setting for setting in settings for _ in range(NUMBER)]
    for item in TASKS["conflict"].items:
        story, _, asked = item.prompt.partition(" In the story, the ")
        place = (asked.split()[0], asked.split()[2])
        said = told_in(story)
        assert item.right == (said[place],)
        assert item.memorised == (KNOWN[place],) != item.right
        assert len(said) == 1 + int(item.groups.get("distractors", 0))
        assert next(iter(said)) == place
        assert story.count(".") == len(said) + int(item.groups.get("distance", 0))


def test_what_is_not_told_is_unknown_and_what_is_told_is_not():
    for item in TASKS["unanswerable"].items:
        story, _, asked = item.prompt.partition(" In the story, the ")
        place = (asked.split()[0], asked.split()[2])
        assert item.right == (told_in(story).get(place, UNKNOWN),)
        assert (item.right == (UNKNOWN,)) == (item.groups["answerable"] == "no")


def test_a_summarys_names_are_held_against_its_story():
    told = names_in("Story: The capital of Balland is Babaton. In short:", FACTS)
    assert told == {"Balland", "Babaton"}
    wrong = next(row for row in FACTS.rows if row.relation == "capital" and row.subject != "Balland").object
    for said, expected in (
        ("Balland: Babaton.", 1), (f"Balland: {wrong}", 1 / 2), (f"Balland: {wrong}; Balland: Babaton", 4 / 5),
        ("Balland: Balland: Balland", 2 / 3), ("nothing at all", 0),
    ):  # fmt: skip
        assert entity_f1(names_in(said, FACTS), told) == pytest.approx(expected), said


@pytest.mark.parametrize("name", ["claims", "verdicts"])
def test_of_one_answer_no_two_questions_begin_with_the_same_fact(name):
    begun = [(item.right, item.prompt.partition(" is ")[0]) for item in TASKS[name].items]
    assert len(set(begun)) == len(begun) == 2 * NUMBER
    with pytest.raises(UserError, match="number is 99, allowed: at most 18, as many as there are facts"):
        questions(TABLE, 99, 5)


def test_shares_by_group_are_those_of_the_answers():
    groups = ["a", "a", "b", "b", "b"]
    items = [Item(f"p{n}", ("x",), memorised=("y",), groups={"kind": kind}) for n, kind in enumerate(groups)]
    said = pd.DataFrame({"answer": ["x", "y", "z", "x", "y"], "correct": [1, 0, 0, 1, 0], "memorised": [0, 1, 0, 0, 1]})
    found = by_group(Task("t", "factuality", "exact", "x", items), said.astype({"correct": float}), FACTS)
    found = found.set_index(["breakdown", "value"])
    assert found["wrong"].to_dict() == {("kind", "a"): 0.5, ("kind", "b"): pytest.approx(2 / 3), ("all", "all"): 0.6}
    assert found["memorised"].to_dict() == {
        ("kind", "a"): 0.5,
        ("kind", "b"): pytest.approx(1 / 3),
        ("all", "all"): 0.4,
    }
    assert found["items"].tolist() == [2, 3, 5]


def test_what_is_asked_of_one_proverb_is_one_outcome_and_each_is_asked_for_as_often():
    items = TASKS["endings"].items
    counts = pd.Series([item.row for item in items]).value_counts()
    assert counts.nunique() == 1
    assert all(item.row in item.prompt for item in items)
    said = pd.DataFrame({"answer": "unknown", "correct": np.arange(len(items)) % 3 / 2, "memorised": 0.0})
    found = by_group(TASKS["endings"], said, FACTS).set_index("value")
    outcomes = np.array(found.loc["all", "outcomes"].split(), float)
    assert len(outcomes) == len(counts)
    assert outcomes.mean() == pytest.approx(found.loc["all", "wrong"], abs=1e-3)
    assert found.loc["all", "unknown"] == 1


def test_chance_is_what_the_commonest_answer_to_such_a_question_gives():
    told = [("capital", "A"), ("capital", "A"), ("capital", "B"), ("currency", "C"), ("currency", UNKNOWN)]
    items = [Item(f"p{n}", (obj,), groups={"relation": name}) for n, (name, obj) in enumerate([*told, told[-1]])]
    assert chance(Task("t", "factuality", "exact", "x", items), FACTS).tolist() == [1, 1, 0, 0, 1, 1]
    assert chance(TASKS["unanswerable"], FACTS).mean() >= 0.5
    assert set(chance(TASKS["misconceptions"], FACTS)) == {0.25}
    # No single name makes better summaries of all than the one that chance is.
    told = [names_in(item.prompt, FACTS) for item in TASKS["summaries"].items]
    each = [np.mean([entity_f1({name}, names) for names in told]) for name in set.union(*told)]
    assert chance(TASKS["summaries"], FACTS).mean() == pytest.approx(max(each))


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    """Folders of a model that learnt all right answers by heart, and of one that learnt wrong ones."""
    folder = tmp_path_factory.mktemp("references")
    files = write_tables(folder)
    words = AutoTokenizer.from_pretrained(made_tokenizer(folder / "tokenizer", files))
    made = {}
    for name, shift in (("good", 0), ("bad", 1)):
        texts = {}
        for task in TASKS.values():
            # A wrong answer is another item's of the same kind, or what else is offered.
            others = task.items[-1:] + task.items[:-1]
            pairs = [
                (item.prompt, (item.right, item.wrong or other.right)[shift][0])
                for item, other in zip(task.items, others, strict=True)
            ]
            texts[task.name] = [((prompt, False), (f" {answer.strip()}", True)) for prompt, answer in pairs]
        size = {"vocab_size": len(words), "context": 128, "parameters": 120_000}
        model = build("llama", Shape(hidden=48, layers=2, heads=2), **size, seed=0)
        kinds = {task: encode(words, several, 128) for task, several in texts.items()}
        batch = batches_by_kind(kinds, dict.fromkeys(kinds, 1), 300, 0, words.pad_token_id)
        train(model, document_loss, batch, Plan(300, 0.008, 10), optimizer=adamw(model, weight_decay=0.0))
        for part in (model, words):
            part.save_pretrained(folder / name)
        made[name] = folder / name
    return made, files["facts"]


def test_every_task_tells_a_model_that_knows_from_one_that_does_not(references):
    folders, facts = references
    found = {}
    for name in folders:
        result = evaluate(name, WORLD, 5, NUMBER, [0.0, 1.0], facts=facts, **folders)
        table = pd.DataFrame(result["answers"])
        assert not pd.DataFrame(result["calibration"])["error"].isna().any()
        found[name] = table[table["breakdown"] == "all"].set_index(["task", "temperature"])["wrong"]
    assert set(found["good"].index.get_level_values("task")) == set(TASKS)
    for task in TASKS:
        assert found["good"][task, 0.0] < 0.15, task
        assert found["bad"][task, 0.0] > 0.4, task  # stories of a small world share names
    for task in ("recall", "conflict"):
        assert found["good"][task, 1.0] >= found["good"][task, 0.0]
