"""Examples in rows: tokens by the chat template, prompts shared or not, batches by step, log-probabilities."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from trl import DPOTrainer

from common.documents import BLOCK
from common.errors import UserError
from common.preference.examples import Example, encode_examples, with_mismatched
from common.preference.references import keep_reference, load_reference, reference_log_probs
from common.preference.rows import (
    collate_examples,
    completion_log_probs,
    example_batches,
    leading,
    shares_prompts,
)
from common.sweep import folders, sweep
from common.tokenizer import END, train_tokenizer
from common.zoo import AutoTokenizer
from tiny import CONFIGS, naive, random_model

WORDS = ("how", "do", "I", "bake", "bread", "mix", "flour", "and", "water", "then", "wait", "I", "will", "not", "say")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    rng = np.random.default_rng(0)
    train_tokenizer((" ".join(rng.choice(WORDS, 9)) for _ in range(99)), 290, folder, chat=True)
    return AutoTokenizer.from_pretrained(folder)


def drawn(count, completions=2, seed=0):
    """Examples of many lengths, completions of one token among them."""
    rng = np.random.default_rng(seed)

    def ids(shortest, longest):
        return tuple(rng.integers(1, 300, rng.integers(shortest, longest)).tolist())

    return [Example(ids(1, 9), tuple(ids(1, 7) for _ in range(completions))) for _ in range(count)]


SHARED = {"llama", "llama, eager", "mistral, window 12", "gpt2"}


def one_by_one(model, examples):
    return [[naive(model, [*each.prompt], [*ids]) for ids in each.completions] for each in examples]


def test_a_pair_is_a_dialogue_of_which_the_answer_is_scored(tokenizer):
    (example,) = encode_examples(tokenizer, ["how do I bake"], [("mix flour", "I will not")], context=64)
    assert tokenizer.decode(example.prompt) == "<|user|> how do I bake<|assistant|>"
    assert [tokenizer.decode(ids) for ids in example.completions] == [" mix flour" + END, " I will not" + END]


def turns(*texts):
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]


def test_a_prompt_may_be_a_dialogue_and_one_turn_of_it_is_the_same_as_its_text(tokenizer):
    said = ("how do I bake", "mix flour", "and then")
    dialogue, alone, text = encode_examples(tokenizer, [turns(*said), turns("wait"), "wait"], [("then", "do")] * 3, 64)
    assert tokenizer.decode(dialogue.prompt) == (
        f"<|user|> how do I bake<|assistant|> mix flour{END}<|user|> and then<|assistant|>"
    )
    assert [tokenizer.decode(ids) for ids in dialogue.completions] == [" then" + END, " do" + END]
    assert alone == text


def test_tokens_are_those_of_trl(tokenizer):
    prompts = ["how do I", "bake bread", turns("how", "I will", "and I")]
    responses = [("mix flour and water", "I will not"), ("wait", "then say"), ("bake", "bread")]
    rows = [
        {
            "prompt": prompt if isinstance(prompt, list) else turns(prompt),
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
        }
        for prompt, (chosen, rejected) in zip(prompts, responses, strict=True)
    ]
    options = SimpleNamespace(dataset_num_proc=None, max_length=64, truncation_mode="keep_start")
    peer = DPOTrainer._prepare_dataset(None, Dataset.from_list(rows), tokenizer, options, "train")
    for example, row in zip(encode_examples(tokenizer, prompts, responses, 64), peer, strict=True):
        assert [[*example.prompt], *map(list, example.completions)] == [
            row[f"{name}_ids"] for name in ("prompt", "chosen", "rejected")
        ]


@pytest.mark.parametrize(
    ("prompts", "completions", "context", "message"),
    [
        (["how"], [("a", "b"), ("c", "d")], 64, "1 prompts and 2 lists of completions"),
        (["how"], ["mix"], 64, "example 0: its completions are 'mix'"),
        (["how", "how"], [("mix", "wait"), ("mix", " ")], 64, "example 1: its prompt or a completion is empty"),
        (["how"], [("mix", "mix ")], 64, "example 0: its completions are the same"),
        ([[]], [("mix", "wait")], 64, "example 0: 0 turns, allowed: an odd number"),
        ([turns("how", "mix")], [("mix", "wait")], 64, "example 0: 2 turns, allowed: an odd number"),
        ([turns("how", " ", "do")], [("mix", "wait")], 64, "example 0: its prompt or a completion is empty"),
        ([turns("how")[::-1] * 3], [("mix", "wait")], 64, "example 0: turn 1 is .*, allowed: role 'assistant'"),
        ([[{"role": "user", "text": "how"}]], [("mix", "wait")], 64, "example 0: turn 0 is .*, and content"),
        ([["how"]], [("mix", "wait")], 64, "example 0: turn 0 is 'how', allowed: role 'user'"),
        (["how do I bake"], [("mix", "wait")], 5, "example 0: prompt and completion have .* tokens, allowed: 5"),
    ],
)
def test_examples_that_make_no_sense_are_refused(tokenizer, prompts, completions, context, message):
    with pytest.raises(UserError, match=message):
        encode_examples(tokenizer, prompts, completions, context)


def test_a_template_must_be_there_and_begin_with_the_prompt(tokenizer, monkeypatch):
    for template, message in ((None, "no chat template"), ("{{ messages | length }}", "does not put a completion")):
        monkeypatch.setattr(tokenizer, "chat_template", template)
        with pytest.raises(UserError, match=message):
            encode_examples(tokenizer, ["how"], [("mix", "wait")], context=64)


def test_a_mismatched_completion_comes_from_the_pair_before():
    pairs = drawn(5)
    found = with_mismatched(pairs, context=64)
    assert [each.completions[:2] for each in found] == [each.completions for each in pairs]
    assert [each.completions[2] for each in found] == [pairs[n - 1].completions[n % 2] for n in range(5)]
    with pytest.raises(UserError, match="needs two"):
        with_mismatched(pairs[:1], context=64)
    with pytest.raises(UserError, match="allowed: 3"):
        with_mismatched(pairs, context=3)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("completions", [1, 2, 3])
def test_log_probabilities_are_those_of_sequences_one_by_one(name, completions):
    model, examples = random_model(name), drawn(5, completions)
    if "window" in name:
        examples = [Example(each.prompt[:4], tuple(ids[:3] for ids in each.completions)) for each in examples]
    shared = shares_prompts(model, examples)
    assert shared == (name in SHARED)
    expected = torch.tensor(one_by_one(model, examples), dtype=torch.float64)
    for way in {shared, False}:
        batch = collate_examples(examples, way)
        assert len(batch["input_ids"]) == (5 if way else 5 * completions)
        with torch.no_grad():
            found = completion_log_probs(model, batch)
        assert found.shape == (5, completions)
        torch.testing.assert_close(found.double(), expected, atol=2e-3, rtol=2e-4)
    np.testing.assert_allclose(reference_log_probs(model, examples, batch_size=3), expected, atol=2e-3, rtol=2e-4)


def test_rows_longer_than_a_sliding_window_are_not_shared():
    model = random_model("mistral, window 12")
    short, long = Example((1, 2), ((3, 4), (5, 6))), Example((1,) * 6, ((3,) * 5, (5,) * 5))
    assert shares_prompts(model, [short])
    assert not shares_prompts(model, [short, long])
    with torch.no_grad():
        found = completion_log_probs(model, collate_examples([long, long], shared=False))
    torch.testing.assert_close(
        found.double(), torch.tensor(one_by_one(model, [long, long]), dtype=torch.float64), atol=2e-3, rtol=2e-4
    )


def test_gradients_are_those_of_sequences_one_by_one():
    model, examples = random_model("llama"), drawn(4)
    weights = torch.tensor([[1.0, -1.0]] * 4)
    (completion_log_probs(model, collate_examples(examples, shared=True)) * weights).sum().backward()
    found = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    for example in examples:
        for ids, sign in zip(example.completions, (1, -1), strict=True):
            whole = torch.tensor([[*example.prompt, *ids]])
            logs = model(input_ids=whole, use_cache=False).logits[0].log_softmax(-1)
            start = len(example.prompt) - 1
            picked = logs[start:-1].gather(1, torch.tensor(ids)[:, None]).sum()
            (sign * picked).backward()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(found[name], weight.grad, atol=1e-3, rtol=1e-3, msg=name)


def test_logits_are_computed_where_a_completion_is_predicted_and_nowhere_else(monkeypatch):
    model, examples = random_model("llama"), drawn(6)
    seen = []
    model.lm_head.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[0]))
    completion_log_probs(model, collate_examples(examples, shared=True))
    assert seen == [sum(1 + sum(len(ids) - 1 for ids in each.completions) for each in examples)]


def test_batches_are_a_function_of_the_step_and_go_through_all_examples():
    examples = [Example((n + 1,) * (1 + n % 5), ((1, 2, 3), (4, 5))) for n in range(24)]
    arrays = {"reference": np.stack([np.arange(24.0), -np.arange(24.0)], 1)}
    batch = example_batches(examples, 4, seed=1, shared=True, arrays=arrays)
    steps = [batch(step) for step in range(6)]
    whole = [row for step in range(BLOCK) for row in batch(step)["input_ids"][:, 0].tolist()]
    counts = Counter(whole)
    assert len(counts) == 24
    assert max(counts.values()) - min(counts.values()) <= 1
    for each in steps:
        np.testing.assert_array_equal(each["reference"][:, 0] + 1, each["input_ids"][:, 0])
        np.testing.assert_array_equal(each["reference"][:, 1], -each["reference"][:, 0])
    again = example_batches(examples, 4, seed=1, shared=True)
    for step in (5, 0, 40, 5):
        assert again(step)["input_ids"].equal(batch(step)["input_ids"])
    other = example_batches(examples, 4, seed=2, shared=True)
    assert any(not other(step)["input_ids"].equal(batch(step)["input_ids"]) for step in range(6))


def test_a_batch_has_rows_of_like_length():
    batch = example_batches(drawn(400), 8, seed=0, shared=True)
    padded = [(each["branches"] < 0).float().mean().item() for each in map(batch, range(BLOCK))]
    assert np.mean(padded) < 0.05


@pytest.mark.parametrize("count", [10, 40, 100])
def test_a_batch_of_few_examples_is_not_filled_by_copies_of_one(count):
    examples = [Example((n + 1,) * (1 + n // 2), ((1, 2, 3), (4, 5))) for n in range(count)]
    batch = example_batches(examples, 8, seed=0, shared=True)
    steps = list(map(batch, range(2 * BLOCK)))
    different = [len(set(each["input_ids"][:, 0].tolist())) for each in steps]
    by_chance = count * (1 - (1 - 1 / count) ** 8)  # of 8 drawn with replacement
    assert np.mean(different) > 0.9 * by_chance
    widths = [each["input_ids"].shape[1] for each in steps]
    if count > 64:
        assert np.mean(widths) < 0.85 * max(widths)


def test_an_example_needs_its_completions():
    assert leading(drawn(2, 3), 2)[1].completions == drawn(2, 3)[1].completions[:2]
    with pytest.raises(UserError, match="example 0 has 1 completions, needed: 2"):
        leading(drawn(2, 1), 2)


def test_references_need_equally_many_completions():
    with pytest.raises(UserError, match="equally many"):
        reference_log_probs(random_model("llama"), drawn(1) + drawn(1, 3))


@pytest.mark.usefixtures("in_this_process")
def test_cells_that_share_model_and_pairs_compute_the_reference_once(tokenizer, tmp_path):
    model = random_model("llama")
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    lines = [
        '{"prompt": "how", "chosen": "mix flour", "rejected": "wait"}',
        '{"prompt": "do I", "chosen": "I will", "rejected": "say"}',
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    inputs = {"model": tmp_path / "model", "pairs": tmp_path / "pairs.jsonl"}
    cell = {"context": 40, "mismatched": False}
    rest = {"inputs": inputs, "name": "reference", "cache": tmp_path / "cache"}
    done = sweep(keep_reference, [cell, cell | {"mismatched": True}], **rest)
    assert done.computed == 2
    assert sweep(keep_reference, [cell], **rest).computed == 0
    pairs, three = map(load_reference, folders(done.kept))
    examples = encode_examples(tokenizer, ["how", "do I"], [("mix flour", "wait"), ("I will", "say")], 40)
    np.testing.assert_allclose(pairs, one_by_one(model, examples), atol=1e-3)
    assert three.shape == (2, 3)
    np.testing.assert_allclose(three[:, :2], pairs, atol=1e-4)
    assert done.records[0].metrics["chosen"] == pytest.approx(pairs[:, 0].mean())
    (tmp_path / "pairs.jsonl").write_text(lines[0] + "\n" + lines[0].replace("mix", "bake"))
    assert sweep(keep_reference, [cell], **rest).computed == 1
    with pytest.raises(UserError, match=r"holds no log_probs\.npy"):
        load_reference(tmp_path)
