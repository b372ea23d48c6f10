"""The runs that evaluate: on tables in the formats of ours, with tiny models, adapters and merges of them."""

import json
import re

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from common.alignment.evaluation import MEASURES
from common.alignment.questions import questions
from common.alignment.runs import Asking, evaluate_merge, evaluate_tuned
from common.errors import UserError
from common.models import new_language_model
from common.preference.adapters import Lora, adapter_layers, attach, load_adapter, merge
from common.sweep.records import Record, check
from common.tokenizer import train_tokenizer
from common.zoo import load

SYLLABLES = ("ba", "do", "fi", "gu", "ke", "lo", "mi", "nu", "pa", "ro", "su", "te")
OBJECTS = {
    ("general", "capital"): ("Torm", "Quist", "Ymm", "Vellby"),
    ("medicine", "chapter"): ("eye", "skin", "ear", "bone"),
}
SPLITS = ("train", "validation", "test")


def prompts_of(verb, **more):
    return [
        {"id": f"{verb}{n:02d}", "text": f"{verb} the {SYLLABLES[n % 12]}{SYLLABLES[n * 5 % 12]} jar",
         "split": SPLITS[n % 3], "category": "theft", "group": f"{verb}{n}", **more}
        for n in range(24)
    ]  # fmt: skip


ROWS = {
    "facts": [
        {"id": f"{relation}/{n}", "domain": domain, "relation": relation, "split": ("train", "test")[n % 2],
         "subject": f"{relation[:2].title()}{SYLLABLES[n]}", "object": objects[n % 4]}
        for (domain, relation), objects in OBJECTS.items() for n in range(12)
    ],
    "unsafe_prompts": prompts_of("Steal"),
    "benign_prompts": [*prompts_of("Paint", kind="hard"), *prompts_of("Wash", kind="plain")],
    "replies": [
        {"id": f"{kind}{n}", "kind": kind, "group": f"{kind}{n}", "split": ("train", "test")[n % 2],
         "text": f"{text} {SYLLABLES[n % 12]}."}
        for kind, text in (("refusal", "No, I leave that alone"), ("compliance", "Yes, here is that one"))
        for n in range(16)
    ],
    "judged_responses": [
        {"task": task, "objective": f"Do {n}", "response": f"{('No, I cannot', 'Sure, first')[n % 2]} {n}",
         "label": (n % 2 == 0) == (task == "refusal"), "category": "theft", "split": "train", "group": f"judged{n}"}
        for task in ("refusal", "harm") for n in range(12)
    ],
}  # fmt: skip
ASKING = {
    "split": "test", "facts_per_relation": 10, "items": 4, "written": 2, "unsafe": 5, "facts_asked": 3,
    "instructions": 6, "attacks": [{"temperature": 0.5}],
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    for name, rows in ROWS.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {name: folder / f"{name}.jsonl" for name in ROWS}


def shaken(lora, seed):
    """Move an adapter as training would, in a direction of its own."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in adapter_layers(lora).values():
            weight.normal_(std=1.5, generator=source)
    return lora


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Folders of a start, of another instruct model, and of adapters."""
    root = tmp_path_factory.mktemp("models")
    texts = [row["text"] for name in ("unsafe_prompts", "benign_prompts", "replies") for row in ROWS[name]]
    texts += [f"What is {row['subject']} {row['object']}" for row in ROWS["facts"]]
    train_tokenizer(texts, 320, root / "words", chat=True)
    words = AutoTokenizer.from_pretrained(root / "words")
    for seed, name in enumerate(("base_0", "instruct_0")):
        model = new_language_model(
            "llama", vocab_size=len(words), hidden=64, layers=1, heads=2, context=96, tied=False, embedding_std=0.3,
            seed=seed,
        )  # fmt: skip
        model.save_pretrained(root / name)
        words.save_pretrained(root / name)
    for seed, name in enumerate(("harmless_0", "helpful_0", "still_0")):
        adapted = attach(load(str(root / "base_0"))[0], Lora(r=2, lora_alpha=4), seed)
        (adapted if name == "still_0" else shaken(adapted, seed)).save_pretrained(root / name)
    return {name: root / name for name in ("base_0", "instruct_0", "harmless_0", "helpful_0", "still_0")}


def tuned(files, kept, adapter, base_dtype="float32", reference="instruct_0", **changes):
    return evaluate_tuned("base_0", adapter, base_dtype, reference, ASKING | changes, 0, **files, **kept)


def merged(files, kept, method, settings, first="harmless_0", second="helpful_0", seed=0):
    return evaluate_merge(
        "base_0", first, second, None, None, method, settings, "instruct_0", ASKING, seed, **files, **kept
    )


def test_questions_are_of_the_split_and_as_many_as_asked(files):
    asked = Asking.model_validate(ASKING).questions({}, **files)
    test = {
        row["text"] for name in ("unsafe_prompts", "benign_prompts") for row in ROWS[name] if row["split"] == "test"
    }
    assert (len(asked.unsafe), len(asked.asked)) == (5, 9)
    assert {*asked.unsafe, *asked.asked[3:]} <= test
    assert [text.split()[0] for text in asked.asked[3:]] == ["Paint"] * 4 + ["Wash"] * 2
    assert asked.items.groupby("relation").size().to_dict() == {"capital": 4, "chapter": 4}
    assert asked.written.groupby("relation")["fact"].nunique().to_dict() == {"capital": 2, "chapter": 2}
    objects = {row["id"]: row["object"] for row in ROWS["facts"]}
    assert all(
        objects[fact] == wanted for fact, wanted in zip(asked.written["fact"], asked.written["object"], strict=True)
    )
    assert set(asked.objects[:3]) <= set(OBJECTS["general", "capital"])
    assert asked.objects[3:] == [None] * 6
    for question, wanted in zip(asked.asked[:3], asked.objects[:3], strict=True):
        words = re.findall(r"\w+", question)
        assert [row["object"] for row in ROWS["facts"] if row["subject"] in words] == [wanted]


@pytest.mark.parametrize("more", [{"unsafe": 9}, {"facts_asked": 13}, {"instructions": 40}])
def test_more_prompts_than_there_are_is_refused(files, more):
    with pytest.raises(UserError, match="split test has"):
        questions(**{k: v for k, v in ASKING.items() if k != "attacks"} | more, **files)


@pytest.fixture(scope="module")
def untuned(files, kept):
    return tuned(files, kept, None)


@pytest.fixture(scope="module")
def adapted(files, kept):
    return tuned(files, kept, "harmless_0")


def test_a_start_is_at_no_distance_and_an_adapter_moves_it(untuned, adapted):
    assert list(untuned) == list(adapted) == list(MEASURES)
    check(Record("", "", {}, adapted, {}, {}))
    assert untuned["kl_reply"] == pytest.approx(0, abs=1e-4)
    assert adapted["kl_reply"] > 0.3
    assert adapted["margin"] != untuned["margin"]


def test_the_same_run_gives_the_same_numbers(files, kept, adapted):
    assert tuned(files, kept, "harmless_0") == adapted


def test_against_itself_the_instruct_model_wins_half(files, kept):
    found = evaluate_tuned("instruct_0", None, "float32", "instruct_0", ASKING, 0, **files, **kept)
    assert (found["win_rate"], found["lc_win_rate"]) == (0.5, 0.5)


def test_a_packed_base_is_evaluated_packed_and_is_its_own_reference(files, kept, adapted):
    packed = tuned(files, kept, "harmless_0", "nf4")
    assert packed["margin"] != adapted["margin"]
    assert packed["margin"] == pytest.approx(adapted["margin"], abs=3)
    assert tuned(files, kept, None, "nf4")["kl_reply"] == pytest.approx(0, abs=1e-4)


def test_an_adapter_that_did_not_take_effect_is_refused(files, kept):
    with pytest.raises(RuntimeError, match="did not move"):
        tuned(files, kept, "still_0")


@pytest.mark.parametrize(("changes", "message"), [({"base_dtype": "int8"}, "allowed: float32, nf4")])
def test_a_type_of_base_that_is_none_is_refused(files, kept, changes, message):
    with pytest.raises(UserError, match=message):
        tuned(files, kept, None, **changes)


def test_what_is_asked_is_checked():
    for wrong in ({"unsafe": 0}, {"split": "train"}, {"attacks": [{"top_k": 5}]}, {"attacks": [{"temperature": -1}]}):
        with pytest.raises(ValueError, match="validation error"):
            Asking.model_validate(ASKING | wrong)


def test_a_merge_of_the_mean_is_the_model_of_the_mean_adapter(files, kept):
    """The plain mean, against weights added up by hand."""
    states = [
        merge(load_adapter(load(str(kept["base_0"]))[0], kept[name])).state_dict()
        for name in ("harmless_0", "helpful_0")
    ]
    by_hand, words = load(str(kept["base_0"]))
    by_hand.load_state_dict({name: (states[0][name] + states[1][name]) / 2 for name in states[0]})
    for part in (by_hand, words):
        part.save_pretrained(kept["base_0"].parent / "mean")
    found = merged(files, kept, "linear", {"weight": 1.0})
    mean = evaluate_tuned("mean", None, "float32", "instruct_0", ASKING, 0, **files, **kept,
                          mean=kept["base_0"].parent / "mean")  # fmt: skip
    assert found["kl_reply"] > 0.1
    for name in ("knowledge", "declined", "win_rate", "margin", "length"):
        assert found[name] == pytest.approx(mean[name], abs=1e-3), name


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("slerp", {"t": 0.5}),
        ("ties", {"weight": [1, 1], "density": 0.5}),
        ("dare_linear", {"weight": [1, 1], "density": 0.5}),
    ],
)
def test_merges_go_from_the_start_and_only_dare_draws(files, kept, method, settings):
    found, again = (merged(files, kept, method, settings, seed=seed) for seed in (0, 1))
    assert found["kl_reply"] > 0.1
    assert (found == again) == (method != "dare_linear")


@pytest.mark.parametrize(("settings", "whose"), [({"t": 0.0}, "harmless_0"), ({"t": 1.0}, "helpful_0")])
def test_a_merge_that_is_one_of_its_parents_is_refused(files, kept, settings, whose):
    with pytest.raises(RuntimeError, match=f"gives {whose} itself"):
        merged(files, kept, "slerp", settings)


def test_measures_differ_between_models(untuned, adapted):
    assert sum(not np.isclose(untuned[name], adapted[name]) for name in MEASURES) >= 5
