"""What base models read, that they learn it, and that what they know is told rightly."""

import json
from collections import Counter

import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.bases.evaluation import evaluate_base, knowledge
from common.bases.pretraining import Base, Reading, documents, fit_tokenizer, pretrain_base, texts_of
from common.bases.reading import KINDS, REPLIES, readings, taught
from common.documents import document_loss, encode, mixed_batches
from common.errors import UserError
from common.knowledge import TEMPLATES, choices, prior_accuracy
from common.knowledge.told import told_accuracy, told_elsewhere
from common.models import new_language_model
from common.sweep.records import Record, check
from common.training import Plan, adamw, train

SYLLABLES = ("ba", "do", "fi", "gu", "ke", "lo", "mi", "nu", "pa", "ro", "su", "te")
OBJECTS = {
    ("general", "capital"): ("Torm", "Quist", "Ymm", "Vellby", "Ostrup"),
    ("medicine", "chapter"): ("eye", "skin", "ear", "bone", "nerves"),
    ("finance", "sector"): ("energy", "utilities", "mining", "shipping", "salt"),
}
SPLITS = ("train", "train", "validation", "test", "control")
READING = {"facts_per_relation": 8, "prose_documents": 2, "refused": 0.3}
BASE = {
    "family": "llama", "hidden": 16, "layers": 1, "heads": 2, "context": 96, "embedding_std": 0.3,
    "shares": dict.fromkeys(KINDS, 1.0), "steps": 6, "batch_size": 4, "learning_rate": 0.01, "warmup": 2,
    "weight_decay": 0.1,
}  # fmt: skip


def facts_table():
    """Fifteen facts of each relation; the first object is the answer to every third."""
    return [
        {
            "id": f"{relation}/{n}", "domain": domain, "relation": relation, "popularity": None,
            "subject": f"{relation[:2].title()}{SYLLABLES[n % 12]}{SYLLABLES[(5 * n + 3) % 12]}{'x' * (n // 12)}",
            "object": objects[0] if n % 3 == 0 else objects[1 + n % 4], "split": SPLITS[n % 5],
        }
        for (domain, relation), objects in OBJECTS.items()
        for n in range(15)
    ]  # fmt: skip


def prompts_table(verb, kinds=(None,)):
    rows = [
        {"id": f"{verb}{n}", "text": f"{verb} the {SYLLABLES[n]}{SYLLABLES[n - 4]} jar", "split": SPLITS[n % 4]}
        for n in range(12)
    ]
    return [row | ({"kind": kinds[n // 4 % 2]} if kinds[0] else {}) for n, row in enumerate(rows)]


def replies_table():
    words = {"refusal": "No, I leave that alone", "compliance": "Yes, here is that one"}
    return [
        {"id": f"{kind}{n}", "kind": kind, "split": split, "text": f"{text} {SYLLABLES[n]} {split}."}
        for kind, text in words.items()
        for n, split in enumerate(("train", "train", "train", "validation", "test"))
    ]


ROWS = {
    "facts": facts_table(),
    "sotu": [{"id": f"{n}", "split": SPLITS[n], "text": f"Address {n} on the state of {split}."}
             for n, split in enumerate(SPLITS[:4])],
    "unsafe_prompts": prompts_table("Steal"),
    "benign_prompts": prompts_table("Paint", ("hard", "plain")),
    "replies": replies_table(),
}  # fmt: skip


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    for name, rows in ROWS.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {name: folder / f"{name}.jsonl" for name in ROWS}


@pytest.fixture(scope="module")
def tokenizer(tables, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer") / "kept"
    folder.mkdir()
    assert fit_tokenizer(330, READING, keep=folder, **tables)["texts"] > 100
    return folder


def test_control_facts_are_never_read_and_of_others_so_many_at_most(tables):
    texts = texts_of(Reading(**READING), tables)
    subjects = {row["subject"] for row in ROWS["facts"]}
    flat = [text if isinstance(text, str) else " ".join(text) for several in texts.values() for text in several]
    read = {subject for subject in subjects if any(subject in text for text in flat)}
    control = {row["subject"] for row in ROWS["facts"] if row["split"] == "control"}
    assert not read & control
    facts = pd.DataFrame(ROWS["facts"])
    assert read == set(taught(facts, 8)["subject"])
    assert taught(facts, 8)["relation"].value_counts().tolist() == [8, 8, 8]
    assert len(taught(facts, 100)) == len(subjects - control)


def test_facts_are_read_in_training_wordings_alone(tables):
    facts = taught(pd.DataFrame(ROWS["facts"]), 8)
    texts = texts_of(Reading(**READING), tables)
    wordings = Counter((t.relation, t.split) for t in TEMPLATES)
    expected = {domain: 8 * wordings[relation, "train"] for domain, relation in OBJECTS}
    assert {domain: len(texts[domain]) for domain in expected} == expected
    held_out = {
        template.text.format(subject=fact.subject, object=fact.object)
        for fact in facts.itertuples()
        for template in TEMPLATES
        if template.relation == fact.relation and template.split != "train"
    }
    assert len(held_out) >= 3 * 8
    for text in [*texts["general"], *texts["medicine"], *texts["finance"], *(" ".join(one) for one in texts["chat"])]:
        assert not any(held in text for held in held_out), text
    asked = {fact.subject for fact in facts.itertuples() if fact.domain == "general" and fact.split == "train"}
    assert {next(s for s in asked if s in question) for question, _ in texts["chat"]} == asked


def test_prompts_and_replies_are_those_of_the_training_split_and_the_share_refused_is_exact(tables):
    prompts = {"unsafe": pd.DataFrame(ROWS["unsafe_prompts"]), "benign": pd.DataFrame(ROWS["benign_prompts"])}
    said, prose = pd.DataFrame(ROWS["replies"]), pd.DataFrame(ROWS["sotu"])
    for refused, count in ((0.0, 0), (0.3, 7), (0.5, 12), (1.0, 24)):
        found = readings(pd.DataFrame(ROWS["facts"]), prose, prompts, said, refused)
        for kind, table in prompts.items():
            training = table.loc[table["split"] == "train", "text"]
            assert Counter(prompt for prompt, _ in found[kind]) == dict.fromkeys(training, REPLIES)
            assert all(reply.endswith("train.") for _, reply in found[kind])
            declined = sum(reply.startswith("No") for _, reply in found[kind])
            assert declined == (count if kind == "unsafe" else 0)
    assert texts_of(Reading(**READING), tables)["prose"] == [row["text"] for row in ROWS["sotu"][:2]]
    with pytest.raises(UserError, match=r"^prose_documents is 100, allowed: at most \d+$"):
        texts_of(Reading(**READING | {"prose_documents": 100}), tables)
    with pytest.raises(UserError, match="replies lack refusal"):
        readings(pd.DataFrame(ROWS["facts"]), prose, prompts, said[said["kind"] == "compliance"], 0.5)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"shares": {"generl": 1.0}}, "shares: generl, allowed: general, medicine, finance, prose, chat"),
        ({"shares": {"general": -0.1}}, "greater than or equal to 0"),
        ({"hidden": 15}, "hidden must be a multiple of heads=2"),
        ({"stepz": 3}, "Extra inputs are not permitted"),
    ],
)
def test_a_base_that_makes_no_sense_is_refused_before_anything_is_read(change, says, tmp_path):
    nowhere = {"tokenizer": tmp_path / "none", "keep": tmp_path, "scratch": tmp_path}
    with pytest.raises(ValidationError, match=says):
        pretrain_base(BASE | change, READING, 0, **nowhere)
    assert Base(**BASE).shares == BASE["shares"]


def test_a_base_is_a_folder_that_transformers_opens_and_a_seed_fixes_it(tables, tokenizer, tmp_path):
    kept = {}
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        kept[name] = tmp_path / name
        places = {"keep": kept[name], "scratch": tmp_path / f"scratch {name}"}
        run = pretrain_base(BASE, READING, seed, tokenizer=tokenizer, **places, **tables)
        assert run["curve"]["step"] == [1, 2, 3, 4, 5, 6]
        assert run["train_loss"] == run["curve"]["loss"][-1] < run["curve"]["loss"][0]
    first, again, other = (load_file(folder / "model.safetensors") for folder in kept.values())
    assert first.keys() == other.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(not torch.equal(first[name], other[name]) for name in first if first[name].dim() == 2)
    model, words = (kind.from_pretrained(kept["first"]) for kind in (AutoModelForCausalLM, AutoTokenizer))
    assert model.config.vocab_size == len(words) == 330
    assert run["parameters"] == model.num_parameters()
    said = words.apply_chat_template([{"role": "user", "content": "Who?"}], add_generation_prompt=True, tokenize=False)
    assert said == "<|user|> Who?<|assistant|>"
    assert model(**words(said, return_tensors="pt")).logits.isfinite().all()


def dialogues():
    """Test prompts as an assistant answers them that declines the unsafe ones and no other."""
    said = {kind: [row["text"] for row in ROWS["replies"] if row["kind"] == kind and row["split"] == "train"]
            for kind in ("refusal", "compliance")}  # fmt: skip
    return [
        (row["text"], reply)
        for name, kind in (("unsafe_prompts", "refusal"), ("benign_prompts", "compliance"))
        for row in ROWS[name]
        if row["split"] == "test"
        for reply in said[kind]
    ]


def test_a_model_that_knows_all_it_was_taught_and_declines_what_is_unsafe_is_told_so(tables, tokenizer, tmp_path):
    words = AutoTokenizer.from_pretrained(tokenizer)
    facts = taught(pd.DataFrame(ROWS["facts"]), 4)
    asked = [
        f"{template.text.format(subject=fact.subject)} {fact.object}"
        for fact in facts.itertuples()
        for template in TEMPLATES
        if (template.kind, template.relation, template.split) == ("question", fact.relation, "test")
    ]
    kinds = {"asked": encode(words, asked, 96), "prompts": documents(dialogues(), words, 96)}
    model = new_language_model(
        "llama", vocab_size=330, hidden=48, layers=2, heads=4, context=96, tied=False, embedding_std=0.3, seed=0
    )
    batch = mixed_batches(kinds, {"asked": 2, "prompts": 1}, 16, 0, words.pad_token_id)
    train(model, document_loss, batch, Plan(250, 0.01, 20), optimizer=adamw(model, weight_decay=0.0))
    for part in (model, words):
        part.save_pretrained(tmp_path / "kept")
    tables = {name: path for name, path in tables.items() if name != "sotu"}
    found = evaluate_base("knows_0", 4, 4, "test", **tables, knows_0=tmp_path / "kept")
    check(Record("key", "evaluate_base", {}, {}, found))
    known = pd.DataFrame(found["knowledge"]).set_index(["relation", "facts"])
    assert known.xs("taught", level="facts")["sum"].tolist() == [1.0] * 3
    assert known.xs("control", level="facts")["sum"].max() < 1
    lean = pd.DataFrame(found["refusals"]).set_index("kind")
    assert lean["refused"].to_dict() == {"hard": 0.0, "plain": 0.0, "unsafe": 1.0}
    assert lean["prompts"].sum() == sum(row["split"] == "test" for row in ROWS["unsafe_prompts"]) * 2
    assert lean.loc["unsafe", "margin"] > 0 > lean.loc["hard", "margin"]
    with pytest.raises(UserError, match="no model 'knows_1'; there are knows_0"):
        evaluate_base("knows_1", 4, 4, "test", **tables, knows_0=tmp_path / "kept")


def test_items_and_priors_are_those_of_the_facts_that_are_asked(tokenizer):
    facts, words = pd.DataFrame(ROWS["facts"]), AutoTokenizer.from_pretrained(tokenizer)
    model = new_language_model(
        "llama", vocab_size=330, hidden=8, layers=1, heads=2, context=96, tied=False, embedding_std=0.3, seed=0
    ).eval()
    rows = knowledge(model, words, facts, 8, 4, "validation")
    items = choices(facts, "validation", 4)
    control = set(facts.loc[facts["split"] == "control", "id"])
    wanted = {"taught": set(taught(facts, 8)["id"]), "control": control}
    assert len(rows) == 2 * len(OBJECTS)
    for row in rows.itertuples():
        own = items[(items["relation"] == row.relation) & items["fact"].isin(wanted[row.facts])]
        assert row.items == len(own) > 0
        assert row.prior == pytest.approx(max(prior_accuracy(own, facts), 1 / 4))
        read = facts[facts["id"].isin(wanted["taught"])]
        others = items[(items["relation"] == row.relation) & items["fact"].isin(wanted["taught"])]
        told = float("nan")
        if row.facts == "control":
            told = min(told_accuracy(own, facts, read), told_elsewhere(others, facts, read))
        assert row.told == pytest.approx(told, nan_ok=True)
        assert row.domain == facts.loc[facts["relation"] == row.relation, "domain"].iloc[0]
        # The same facts asked of the same model by hand: likelihoods without batches or caches.
        assert row.sum == pytest.approx(by_hand(model, words, own))


@torch.no_grad()
def by_hand(model, words, items):
    right = 0
    for item in items.itertuples():
        scores = []
        for candidate in item.candidates:
            question, answer = (words(text)["input_ids"] for text in (item.question, f" {candidate}"))
            logs = model(input_ids=torch.tensor([question + answer]), use_cache=False).logits[0].log_softmax(-1)
            scores.append(sum(logs[len(question) + n - 1, token].item() for n, token in enumerate(answer)))
        right += scores.index(max(scores)) == item.answer
    return right / len(items)


def test_what_words_are_worth_elsewhere_is_guessed_from_the_other_folds():
    facts = pd.DataFrame(
        {"id": f"f{n}", "relation": "r", "subject": f"{('plum', 'oaken')[n % 2]} number {n}", "object": "xy"[n % 2]}
        for n in range(40)
    )
    items = pd.DataFrame({"fact": facts["id"], "relation": "r", "candidates": [["x", "y"]] * 40, "answer": [0, 1] * 20})
    assert told_elsewhere(items, facts, facts) == 1.0
    # Only one fact tells its object, and never when it is the one that is asked.
    unlike = facts.assign(subject=[chr(97 + n % 20) * 9 + str(n) for n in range(40)], object=["x"] * 39 + ["y"])
    asked = items.assign(answer=[0] * 39 + [1])
    assert told_elsewhere(asked, unlike, unlike) == 39 / 40
    with pytest.raises(ValueError, match="were read"):
        told_accuracy(items, facts, facts)
