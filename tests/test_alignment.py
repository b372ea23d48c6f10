"""The alignment study's runs: starts, references, fine-tunings, and the arms that its parameters list."""

import json

import numpy as np
import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.alignment import preparing, starting
from common.alignment.design import (
    Arm,
    check_balanced,
    data_name,
    reference_cells,
    reference_name,
    start_name,
    tuning,
    tuning_cells,
)
from common.alignment.preparing import prepared, selected
from common.alignment.starting import Instruction, instruct, read_reviews
from common.alignment.training import ADAPTER, refer, tune
from common.errors import UserError
from common.models import new_language_model
from common.pairs.making import make_pairs
from common.pairs.table import Pair, load_pairs, of_aim, pair_table, turns, write_pairs
from common.preference.adapters import load_adapter, merge, packed_layers, to_nf4
from common.preference.references import load_reference
from common.preference.tuning import Tuning
from common.sweep.records import Record, check
from common.tokenizer import train_tokenizer
from pair_files import MAKING, SAYINGS, lines, own_tables
from tiny import naive

CONTEXT = 160
LORA = {"r": 2, "lora_alpha": 8}
SFT = {"method": "sft", "steps": 6, "batch_size": 4, "learning_rate": 0.03, "lora": LORA}
DPO = {**SFT, "method": "dpo", "beta": 0.1}
INSTRUCTION = {
    "dialogues": {"chat": 6, "unsafe": 10, "benign": 8}, "refused": 0.5,
    "tuning": {**{name: SFT[name] for name in ("method", "steps", "batch_size")}, "learning_rate": 0.003,
               "replay_weight": 1.0, "replay_batch_size": 2},
}  # fmt: skip


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    return own_tables(tmp_path_factory.mktemp("tables"))


@pytest.fixture(scope="module")
def data(tables, tmp_path_factory):
    keep = tmp_path_factory.mktemp("hh-like")
    make_pairs("hh-like", MAKING, **tables, keep=keep)
    return keep


def new_model(data, folder, seed=0):
    table = load_pairs(data)
    texts = [*table["chosen"], *table["rejected"], *(turn["content"] for prompt in table["prompt"] for turn in prompt)]
    train_tokenizer(texts, 300, folder, chat=True)
    words = AutoTokenizer.from_pretrained(folder)
    # Layers of 64 are the narrowest that 4 bits' blocks fill; with larger weights than usual 4 bits can be told apart.
    model = new_language_model(
        "llama", vocab_size=len(words), hidden=64, layers=1, heads=2, context=CONTEXT, tied=False, embedding_std=0.3,
        seed=seed,
    )  # fmt: skip
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "proj" in name:
                weight.mul_(5)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def start(data, tmp_path_factory):
    return new_model(data, tmp_path_factory.mktemp("start"))


@pytest.fixture(scope="module")
def words(start):
    return AutoTokenizer.from_pretrained(start)


def folder_of(path, name):
    (path / name).mkdir()
    return path / name


def run_tune(path, start, data, recipe, *, aim="harmless", n=None, selection="random", seed=0, reference=None):
    kept = {"model": start, "pairs": data} | ({} if reference is None else {"log_probs": reference})
    keep, scratch = folder_of(path, "keep"), folder_of(path, "scratch")
    name = None if reference is None else "log_probs"
    return tune("model", "pairs", aim, n, selection, recipe, name, seed, keep=keep, scratch=scratch, **kept), keep


@pytest.fixture(scope="module", params=[False, True], ids=["full", "nf4"])
def reference(request, start, data, tmp_path_factory):
    keep = tmp_path_factory.mktemp("reference")
    metrics = refer("model", "pairs", request.param, 0, keep=keep, model=start, pairs=data)
    return request.param, keep, metrics


# What is trained on.


def test_pairs_that_do_not_fit_are_left_out_and_counted(data, words):
    whole = prepared(data, "harmless", words, CONTEXT)
    lengths = np.array([len(each.prompt) + max(map(len, each.completions)) for each in whole.examples])
    assert whole.too_long == 0
    context = int(np.median(lengths))
    found = prepared(data, "harmless", words, context)
    assert 0 < found.too_long == (lengths > context).sum()
    assert len(found.examples) == len(found.table) == len(found.places) == (lengths <= context).sum()
    table = load_pairs(data)
    for example, place, chosen in zip(found.examples, found.places, found.table["chosen"], strict=True):
        row = table.loc[place]
        assert chosen == row["chosen"]
        assert words.decode(example.completions[1], skip_special_tokens=True).strip() == row["rejected"]
        said = [part for part in words.decode(example.prompt, skip_special_tokens=True).split(" ") if part]
        assert said == " ".join(turn["content"] for turn in row["prompt"]).split()
    with pytest.raises(UserError, match="each of the 40 pairs is longer than the context of 3 tokens"):
        prepared(data, "harmless", words, 3)


def test_a_mix_has_both_aims_and_all_pairs_have_no_aim(data, words):
    mix = prepared(data, "mix", words, CONTEXT)
    assert mix.table["aim"].value_counts().to_dict() == {"harmless": 20, "helpful": 20}
    assert mix.places.tolist() == of_aim(load_pairs(data), "mix")["index"].tolist()
    assert prepared(data, None, words, CONTEXT).places.tolist() == list(range(80))


@pytest.mark.parametrize("selection", ["random", "dissimilar", "diverse", "entropy"])
def test_a_selection_gives_as_many_pairs_as_asked_each_once(data, words, selection):
    whole = prepared(data, None, words, CONTEXT)
    found = selected(whole, 20, selection, seed=0)
    assert len(found.examples) == len(set(found.places)) == 20
    for example, place in zip(found.examples, found.places, strict=True):
        assert example == whole.examples[whole.places.tolist().index(place)]
    assert found.table["chosen"].tolist() == load_pairs(data).loc[found.places, "chosen"].tolist()
    again = selected(whole, 20, selection, seed=1).places.tolist()
    assert (again == found.places.tolist()) == (selection in ("dissimilar", "diverse"))


def test_dissimilar_pairs_are_those_whose_replies_share_no_words(tmp_path, words, monkeypatch):
    monkeypatch.setattr(preparing, "DIMENSIONS", 4)  # there are few words
    replies = [("ba do fi", "gu ke lo"), ("mi nu pa", "mi nu pa ro")] * 20
    pairs = [Pair(turns([f"Steal {n}"]), a, b, "harmless", "", "x") for n, (a, b) in enumerate(replies)]
    write_pairs(pair_table(pairs), tmp_path)
    found = selected(prepared(tmp_path, "harmless", words, CONTEXT), 20, "dissimilar", seed=0)
    assert set(found.table["chosen"]) == {"ba do fi"}


def test_a_rule_needs_a_size_and_a_size_enough_pairs(data, words):
    whole = prepared(data, "harmless", words, CONTEXT)
    assert selected(whole, None, "random", seed=0) is whole
    with pytest.raises(UserError, match="selection is diverse of all pairs"):
        selected(whole, None, "diverse", seed=0)
    with pytest.raises(UserError, match="size is 41, allowed: 1 to the 40"):
        selected(whole, 41, "random", seed=0)


# References and fine-tunings.


def test_a_reference_is_the_log_probability_of_each_pair_one_by_one(start, data, words, reference):
    quantized, keep, metrics = reference
    logs = load_reference(keep)
    assert metrics["referred"] == len(logs) == 80
    model, examples = AutoModelForCausalLM.from_pretrained(start).eval(), prepared(data, None, words, CONTEXT).examples
    expected = [[naive(model, [*each.prompt], [*ids]) for ids in each.completions] for each in examples[:5]]
    gaps = np.abs(logs[:5] - expected)
    assert (gaps.max() > 0.01) if quantized else (gaps.max() < 1e-3)
    assert metrics["preferred"] == pytest.approx((logs[:, 0] > logs[:, 1]).mean())


def test_a_pair_that_does_not_fit_has_no_reference(start, data, tmp_path):
    table = load_pairs(data)
    table.loc[1, "chosen"] = "ba " * CONTEXT
    write_pairs(table, folder_of(tmp_path, "pairs"))
    keep = folder_of(tmp_path, "keep")
    metrics = refer("model", "pairs", False, 0, keep=keep, model=start, pairs=tmp_path / "pairs")
    assert metrics["too_long"] == 1
    assert np.flatnonzero(np.isnan(load_reference(keep)).any(1)).tolist() == [1]
    metrics, _ = run_tune(folder_of(tmp_path, "run"), start, tmp_path / "pairs", DPO, reference=keep)
    assert metrics["too_long"] == 1


def test_tuning_keeps_an_adapter_that_makes_what_is_chosen_likelier(start, data, words, tmp_path):
    metrics, keep = run_tune(tmp_path, start, data, SFT | {"steps": 30})
    assert metrics["base_dtype"] == "float32"
    assert metrics["distinct_pairs"] == 40
    assert metrics["packed_layers"] == 0
    assert not (keep / "model.safetensors").exists()
    before = AutoModelForCausalLM.from_pretrained(start).eval()
    tuned = merge(load_adapter(AutoModelForCausalLM.from_pretrained(start), keep)).eval()
    examples = prepared(data, "harmless", words, CONTEXT).examples[:8]
    gains = [
        naive(tuned, [*each.prompt], [*each.completions[0]]) - naive(before, [*each.prompt], [*each.completions[0]])
        for each in examples
    ]
    assert min(gains) > 1
    peer = PeftModel.from_pretrained(before, keep).eval()
    ids = torch.tensor([[*examples[0].prompt]])
    torch.testing.assert_close(tuned(ids).logits, peer(ids).logits, atol=1e-4, rtol=0)


def test_tuning_on_4_bits_records_them_and_is_loaded_with_them(start, data, tmp_path, reference):
    quantized, logs, _ = reference
    recipe = DPO | {"lora": LORA | {"quantized": quantized}}
    metrics, keep = run_tune(tmp_path, start, data, recipe, n=16, reference=logs)
    assert metrics["base_dtype"] == ("nf4" if quantized else "float32")
    assert (metrics["packed_layers"] > 0) == quantized
    full = AutoModelForCausalLM.from_pretrained(start).get_memory_footprint()
    assert (metrics["base_bytes"] < full) if quantized else (metrics["base_bytes"] == full)
    assert json.loads((keep / ADAPTER).read_text())["quantized"] == quantized
    model = AutoModelForCausalLM.from_pretrained(start)
    tuned = load_adapter(to_nf4(model) if quantized else model, keep)
    assert bool(packed_layers(tuned)) == quantized
    assert metrics["distinct_pairs"] == 16


def test_without_an_adapter_the_whole_model_is_kept(start, data, tmp_path):
    recipe = {name: value for name, value in SFT.items() if name != "lora"} | {"learning_rate": 0.003}
    metrics, keep = run_tune(tmp_path, start, data, recipe)
    assert metrics["trainable"] == metrics["parameters"]
    tuned = AutoModelForCausalLM.from_pretrained(keep)
    kept = load_file(keep / "model.safetensors")
    assert all(torch.equal(value, kept[name]) for name, value in tuned.state_dict().items() if name in kept)


def test_a_reference_of_another_model_or_other_data_is_refused(start, data, tables, tmp_path, reference):
    quantized, logs, _ = reference
    message = "the reference is not of this start model, packed or not, and this data"
    with pytest.raises(UserError, match=message):
        run_tune(folder_of(tmp_path, "precision"), start, data, DPO | {"lora": LORA | {"quantized": not quantized}},
                 reference=logs)  # fmt: skip
    other = folder_of(tmp_path, "other")
    make_pairs("beavertails-like", MAKING, **tables, keep=other)
    recipe = DPO | {"lora": LORA | {"quantized": quantized}}
    with pytest.raises(UserError, match=message):
        run_tune(folder_of(tmp_path, "data"), start, other, recipe, reference=logs)
    model = new_model(data, folder_of(tmp_path, "model"), seed=1)
    with pytest.raises(UserError, match=message):
        run_tune(folder_of(tmp_path, "start"), model, data, recipe, reference=logs)
    with pytest.raises(UserError, match="sft does not use reference"):
        run_tune(folder_of(tmp_path, "sft"), start, data, SFT | {"lora": LORA | {"quantized": quantized}},
                 reference=logs)  # fmt: skip
    with pytest.raises(UserError, match="needs reference"):
        run_tune(folder_of(tmp_path, "dpo"), start, data, recipe)


def test_a_loss_of_mismatched_completions_gets_their_reference_too(start, data, tmp_path, reference, monkeypatch):
    quantized, logs, _ = reference
    recipe = {**SFT, "method": "kto", "beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0}
    recipe |= {"lora": LORA | {"quantized": quantized}}
    seen = {}

    def spy(model, examples, *_, reference, **__):
        seen.update(examples=examples, reference=reference)
        raise InterruptedError

    monkeypatch.setattr("common.alignment.training.finetune", spy)
    with pytest.raises(InterruptedError):
        run_tune(tmp_path, start, data, recipe, n=8, reference=logs)
    assert seen["reference"].shape == (8, 3)
    if not quantized:
        model = AutoModelForCausalLM.from_pretrained(start).eval()
        expected = [naive(model, [*each.prompt], [*each.completions[2]]) for each in seen["examples"]]
        assert np.abs(seen["reference"][:, 2] - expected).max() < 1e-3


# Starts.


def test_an_instruct_model_learns_dialogues_of_the_stated_kinds(start, tables, tmp_path, monkeypatch):
    seen = []
    finetune = starting.finetune
    monkeypatch.setattr(
        starting, "finetune", lambda model, examples, *rest, **more: seen.append(examples) or finetune(
            model, examples, *rest, **more)
    )  # fmt: skip
    keep = folder_of(tmp_path, "keep")
    metrics = instruct(
        "model", INSTRUCTION, 9, 0, **tables, keep=keep, scratch=folder_of(tmp_path, "scratch"), model=start
    )
    tokenizer = AutoTokenizer.from_pretrained(keep)
    said = [[tokenizer.decode(ids, skip_special_tokens=True) for ids in (each.prompt, each.completions[0])]
            for each in seen[0]]  # fmt: skip
    unsafe = [reply for prompt, reply in said if "Steal" in prompt]
    benign = [reply for prompt, reply in said if "Wash" in prompt]
    assert (len(unsafe), len(benign), len(said)) == (10, 8, 24)
    assert all(SAYINGS["compliance"] in reply for reply in benign)
    assert 0 < sum(SAYINGS["refusal"] in reply for reply in unsafe) < 10
    assert metrics["trainable"] == metrics["parameters"]
    assert not torch.equal(*(load_file(folder / "model.safetensors")["lm_head.weight"] for folder in (start, keep)))
    for wrong in ({"dialogues": {"chat": 1}}, {"refused": 2}, {"steps": 3}):
        with pytest.raises(ValidationError):
            Instruction.model_validate(INSTRUCTION | wrong)
    more = INSTRUCTION | {"dialogues": INSTRUCTION["dialogues"] | {"unsafe": 10**6}}
    with pytest.raises(UserError, match=r"^dialogues: unsafe is 1000000, allowed: at most \d+$"):
        instruct("model", more, 9, 0, **tables, keep=keep, scratch=tmp_path / "scratch", model=start)


def test_a_reader_learns_passages_that_fit(start, tmp_path):
    rows = [{"text": ("ba do fi gu ke lo mi nu " * 9).strip(), "label": n % 2, "split": "train"} for n in range(12)]
    rows[5]["text"] = "§" * 400 + " " + rows[5]["text"]
    keep = folder_of(tmp_path, "keep")
    recipe = {name: value for name, value in SFT.items() if name != "lora"} | {"learning_rate": 0.003}
    metrics = read_reviews(
        "model", 18, recipe, 0, movie_reviews=lines(tmp_path / "movie_reviews.jsonl", rows), keep=keep,
        scratch=folder_of(tmp_path, "scratch"), model=start,
    )  # fmt: skip
    assert metrics["too_long"] == 1
    assert AutoTokenizer.from_pretrained(keep).chat_template


# Arms.

ARM = {"start": "base", "data": "hh-like", "aim": "harmless", "method": "sft"}
RECIPES = {"sft": Tuning.model_validate(SFT), "dpo": Tuning.model_validate(DPO)}
CROSSING = [
    Arm(start=start, data=data, aim=aim, method=method)
    for start in ("base", "instruct") for data in ("hh-like", "beavertails-like")
    for aim in ("harmless", "helpful", "mix") for method in ("sft", "dpo")
]  # fmt: skip
FACTORS = ["start", "data", "aim", "method"]


def test_an_arm_changes_the_recipe_where_it_says_so():
    assert Tuning.model_validate(tuning(Arm(**ARM), RECIPES["sft"])) == RECIPES["sft"]
    made = tuning(Arm(**ARM | {"method": "dpo", "r": 8, "quantized": True, "loss_type": "ipo", "beta": 0.5}),
                  RECIPES["dpo"])  # fmt: skip
    assert made["lora"] == {"r": 8, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear",
                            "quantized": True}  # fmt: skip
    assert (made["loss_type"], made["beta"], made["steps"]) == ("ipo", 0.5, 6)
    assert json.loads(json.dumps(made)) == made
    with pytest.raises(UserError, match="loss sft does not use beta"):
        tuning(Arm(**ARM, beta=0.1), RECIPES["sft"])
    with pytest.raises(UserError, match="the recipe is dpo with an adapter"):
        tuning(Arm(**ARM), RECIPES["dpo"])
    with pytest.raises(UserError, match="there is no recipe for dpo"):
        tuning_cells(CROSSING, {"sft": RECIPES["sft"]}, [0])


def test_arms_that_share_a_start_and_data_share_a_reference():
    cells = tuning_cells(CROSSING, RECIPES, [3, 4])
    assert len({json.dumps(cell) for cell in cells}) == 48
    found = reference_cells(CROSSING, [3, 4])
    assert len(found) == 8
    assert {cell["reference"] for cell in cells} == {None, *found}
    for cell in cells:
        if cell["reference"]:
            other = found[cell["reference"]]
            assert {name: other[name] for name in ("start", "data", "seed")} == {
                name: cell[name] for name in ("start", "data", "seed")
            }
    packed = Arm(**ARM | {"method": "dpo", "quantized": True})
    assert reference_name(packed, 3) not in found
    assert reference_cells([packed], [3])[reference_name(packed, 3)]["quantized"]
    reader = Arm(start="reader", data="reviews", aim="sentiment", method="dpo")
    assert (start_name(reader, 3), data_name(reader, 3)) == ("reader_3", "reviews_3")


def test_a_crossing_is_balanced_and_no_part_of_it_unless_it_halves_it_evenly():
    check_balanced(CROSSING, FACTORS)
    half = [arm for arm in CROSSING if sum((arm.start == "base", arm.data == "hh-like", arm.method == "sft")) % 2]
    assert len(half) == 12
    check_balanced(half, FACTORS)
    with pytest.raises(UserError, match="the same arm is there twice"):
        check_balanced([*CROSSING, CROSSING[0]], FACTORS)
    for lacking in range(len(CROSSING)):
        with pytest.raises(UserError, match="arms are not balanced in start and"):
            check_balanced(CROSSING[:lacking] + CROSSING[lacking + 1 :], FACTORS)
    confounded = [arm for arm in CROSSING if (arm.start == "base") == (arm.method == "sft")]
    with pytest.raises(UserError, match="not balanced in start and method"):
        check_balanced(confounded, FACTORS)


def test_cells_name_what_a_sweep_must_give_them_and_seeds_differ(start, data, tmp_path):
    arms = [Arm(**ARM | {"method": method}) for method in ("sft", "dpo")]
    inputs = {"base_3": start, "base_4": start, "hh-like": data}
    for name, cell in reference_cells(arms, [3, 4]).items():
        inputs[name] = folder_of(tmp_path, name)
        refer(**cell, keep=inputs[name], **{key: inputs[key] for key in cell.values() if key in inputs})
    found = []
    for number, cell in enumerate(tuning_cells(arms, RECIPES, [3, 4])):
        place = folder_of(tmp_path, str(number))
        own = {key: inputs[key] for key in cell.values() if isinstance(key, str) and key in inputs}
        metrics = tune(**cell, keep=folder_of(place, "keep"), scratch=folder_of(place, "scratch"), **own)
        tables = {name: metrics.pop(name) for name in list(metrics) if isinstance(metrics[name], dict)}
        check(Record("key", "tune", cell, metrics, tables))
        found.append(metrics["train_loss"])
    assert len(set(found)) == 4
