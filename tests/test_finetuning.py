"""Fine-tuning: every method learns what it is for, adapters take effect, and nothing is ignored."""

import ast
import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from common.architectures import Shape, build
from common.documents import Document, collate, document_loss
from common.errors import UserError
from common.preference import recomputing
from common.preference.adapters import Lora, assert_moved, attach, load_adapter, merge, packed_layers, to_nf4
from common.preference.examples import Example, with_mismatched
from common.preference.finetuning import Objective, finetune, tuning_batches
from common.preference.references import reference_log_probs
from common.preference.tuning import Tuning
from common.project import ROOT
from common.tokenizer import train_tokenizer

GOOD, BAD = 7, 9  # the chosen completion of every prompt is of one token, the rejected one of another
LORA = {"r": 4, "lora_alpha": 8}
METHODS = {
    "sft": {}, "dpo": {"beta": 0.5}, "kto": {"beta": 0.5}, "bco": {"beta": 0.5}, "orpo": {"beta": 0.5},
    "simpo": {"beta": 2.0, "simpo_gamma": 0.5}, "poft": {},
}  # fmt: skip


def pairs(count=24, seed=0):
    rng = np.random.default_rng(seed)
    return [
        Example(
            tuple(rng.integers(10, 300, rng.integers(2, 6)).tolist()),
            ((GOOD,) * int(rng.integers(1, 4)) + (0,), (BAD,) * int(rng.integers(1, 4)) + (0,)),
        )
        for _ in range(count)
    ]


def tuning(method="dpo", **rest):
    settings = {"steps": 12, "batch_size": 8, "learning_rate": 0.01, "warmup": 2, **METHODS[method]}
    return Tuning(method=method, **settings | rest)


def prepared(method, model):
    """Examples and reference log-probabilities as the method needs them."""
    examples = pairs()
    if method == "kto":
        examples = with_mismatched(examples, 48)
    if method in ("sft", "orpo", "simpo"):
        return examples, None
    logs = reference_log_probs(model, examples)
    return examples, logs[:, :1] if method == "poft" else logs


def preferred(model, base):
    """Share of new pairs whose chosen completion gained more than the rejected one."""
    gained = reference_log_probs(model, pairs(seed=1)) - reference_log_probs(base, pairs(seed=1))
    return float((gained[:, 0] > gained[:, 1]).mean())


def small_model():
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=320, max_position_embeddings=48, pad_token_id=0, eos_token_id=0, **shape)
    ).eval()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_to_prefer_the_chosen_completion(method):
    model = small_model()
    examples, reference = prepared(method, model)
    base = copy.deepcopy(model)
    tuned, metrics = finetune(model, examples, tuning(method), 0, reference=reference)
    assert preferred(tuned, base) > 0.9
    losses = metrics["curve"]["loss"]
    assert losses[-1] == metrics["train_loss"] < losses[0]
    assert ("margin" in metrics) == (method not in ("sft", "poft"))
    if "margin" in metrics:
        assert metrics["margin"] > metrics["curve"]["margin"][0]
        assert metrics["accuracy"] == 1
    assert metrics["pairs"] == 96
    assert metrics["trainable"] == metrics["parameters"] == tuned.num_parameters()
    assert metrics["base_dtype"] == "float32"
    assert metrics["base_bytes"] >= 4 * metrics["parameters"]
    assert metrics["adapter_layers"] == 0


def test_a_first_step_has_no_margin_and_a_known_loss():
    model = small_model()
    examples, reference = prepared("dpo", model)
    _, metrics = finetune(model, examples, tuning(learning_rate=1e-12), 0, reference=reference)
    assert metrics["train_loss"] == pytest.approx(np.log(2), abs=1e-4)
    assert metrics["margin"] == pytest.approx(0, abs=1e-3)


def test_the_reward_is_beta_times_the_log_ratio():
    model = small_model()
    examples, reference = prepared("dpo", model)
    shift = np.array([2.0, -1.0])
    settings = tuning(steps=1, warmup=0, beta=0.5)
    _, metrics = finetune(model, examples, settings, 0, reference=reference - shift)
    assert metrics["margin"] == pytest.approx(0.5 * 3, abs=1e-3)
    assert metrics["train_loss"] == pytest.approx(np.log1p(np.exp(-1.5)), abs=1e-3)


@pytest.mark.parametrize("lora", [None, {**LORA, "lora_dropout": 0.3}, {**LORA, "quantized": True}])
def test_a_seed_fixes_a_run_and_a_cut_off_run_goes_on_as_if_it_had_not_been(lora, tmp_path):
    def fresh():
        return to_nf4(small_model()) if lora and "quantized" in lora else small_model()

    examples, reference = prepared("dpo", small_model())
    settings = tuning(lora=lora, steps=30)

    def run(seed, scratch=None, model=None):
        tuned, metrics = finetune(model or fresh(), examples, settings, seed, reference=reference, scratch=scratch)
        return metrics, tuned

    whole, tuned = run(0)
    assert run(1)[0]["curve"]["loss"] != whole["curve"]["loss"]
    kept = tmp_path / "scratch"

    class Cut(Exception):
        pass

    def stop(*_):
        stop.left -= 1
        if stop.left == 0:
            raise Cut

    stop.left = 18
    model = fresh()
    model.lm_head.register_forward_pre_hook(stop)
    with pytest.raises(Cut):
        run(0, kept, model)
    resumed, again = run(0, kept)
    assert resumed == whole
    for one, other in zip(tuned.parameters(), again.parameters(), strict=True):
        assert one.equal(other)


def test_replayed_documents_add_their_weighted_cross_entropy():
    model = small_model()
    examples, reference = prepared("dpo", model)
    rng = np.random.default_rng(0)
    documents = [Document(rng.integers(1, 300, rng.integers(5, 20)), start=3) for _ in range(40)]
    settings = tuning(replay_weight=0.3, replay_batch_size=4)
    batches = tuning_batches(model, examples, settings, 0, 0, reference, ({"prose": documents}, {"prose": 1.0}))
    batch = batches(5)
    plain = {name: value for name, value in batch.items() if not name.startswith("replay.")}
    assert plain.keys() == tuning_batches(model, examples, tuning(), 0, 0, reference)(5).keys()
    with torch.no_grad():
        whole = Objective(settings.loss(), 0.3)(model, batch)
        alone = Objective(settings.loss(), 0.0)(model, plain)
        replayed = document_loss(model, {"input_ids": batch["replay.input_ids"], "labels": batch["replay.labels"]})
    assert batch["replay.input_ids"].shape[0] == 4
    assert replayed > 1
    assert (whole - alone).item() == pytest.approx(0.3 * replayed.item(), rel=1e-4)
    held, base = collate(documents[:20], 0), copy.deepcopy(model)
    without, alone = finetune(copy.deepcopy(model), examples, tuning(steps=30), 0, reference=reference)
    steady, both = finetune(
        model,
        examples,
        tuning(steps=30, replay_weight=1.0, replay_batch_size=8),
        0,
        reference=reference,
        replay=({"prose": documents}, {"prose": 1.0}),
    )
    assert document_loss(steady, held) < document_loss(without, held) - 0.5
    # Rows of eight documents, padded to the longest of each batch.
    lengths = [len(document.ids) for document in documents]
    assert 30 * 8 * min(lengths) <= both["replayed"] <= 30 * 8 * max(lengths)
    assert (both["tokens"], alone["replayed"]) == (alone["tokens"] + both["replayed"], 0)
    assert preferred(steady, base) > 0.9


@pytest.mark.parametrize("lora", [None, {**LORA, "lora_dropout": 0.3}, {**LORA, "quantized": True}])
@pytest.mark.parametrize(("method", "precision"), [("sft", "no"), ("dpo", "no"), ("dpo", "bf16")])
def test_a_large_model_computes_its_layers_again_and_learns_the_same_bit_for_bit(monkeypatch, method, precision, lora):
    examples, reference = prepared(method, small_model())
    settings, found = tuning(method, lora=lora, precision=precision, steps=4), {}
    for limit in (recomputing.LARGE, 0):
        monkeypatch.setattr(recomputing, "LARGE", limit)
        model, runs = small_model(), []
        for layer in model.model.layers:
            layer.self_attn.attention_dropout = 0.2
        if lora and "quantized" in lora:
            model = to_nf4(model)
        for layer in model.model.layers:
            layer.mlp.register_forward_pre_hook(lambda module, _, runs=runs: runs.append(module))
        tuned, metrics = finetune(model, examples, settings, 0, reference=reference)
        found[limit] = metrics, [weight.detach() for weight in tuned.parameters()]
        assert len(runs) == 4 * 2 * (1 if limit else 2)  # steps, layers
        assert not tuned.is_activation_checkpointing
    (plain, before), (again, after) = found.values()
    assert again == plain
    assert all(one.equal(other) for one, other in zip(before, after, strict=True))


def test_a_family_whose_layers_cannot_be_computed_again_is_trained_as_ever(monkeypatch):
    monkeypatch.setattr(recomputing, "LARGE", 0)
    model = build("lstm", Shape(hidden=16, layers=1, heads=1), vocab_size=320, context=48, parameters=12_000, seed=0)
    with recomputing.recomputing(model) as layers:
        assert layers == []
    with recomputing.recomputing(small_model()) as layers:
        assert len(layers) == 2


@pytest.mark.parametrize(
    ("settings", "targets"),
    [(LORA, 14), ({**LORA, "target_modules": ("q_proj", "v_proj")}, 4)],
)
def test_an_adapter_alone_is_trained_saved_and_merged(settings, targets, tmp_path):
    model = small_model()
    base = copy.deepcopy(model)
    examples, reference = prepared("dpo", model)
    tuned, metrics = finetune(model, examples, tuning(lora=settings), 0, reference=reference)
    assert isinstance(tuned, PeftModel)
    assert metrics["adapter_layers"] == targets
    trained = {name: weight for name, weight in tuned.named_parameters() if weight.requires_grad}
    assert metrics["trainable"] == sum(weight.numel() for weight in trained.values())
    assert all("lora_" in name for name in trained)
    assert metrics["parameters"] == base.num_parameters()
    for name, weight in base.named_parameters():
        inner = name.replace(".weight", ".base_layer.weight")
        found = dict(tuned.base_model.model.named_parameters())
        assert weight.equal(found.get(inner, found.get(name)))
    logs = reference_log_probs(tuned.get_base_model(), examples)
    assert preferred(tuned.get_base_model(), base) > 0.9
    tuned.save_pretrained(tmp_path / "adapter")
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {
        each.name for each in (tmp_path / "adapter").iterdir()
    }
    loaded = load_adapter(copy.deepcopy(base), tmp_path / "adapter")
    np.testing.assert_allclose(reference_log_probs(loaded.get_base_model(), examples), logs, atol=1e-4)
    merge(loaded).save_pretrained(tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    np.testing.assert_allclose(reference_log_probs(merged, examples), logs, atol=2e-3)
    assert np.abs(reference_log_probs(base, examples) - logs).max() > 1


def test_a_quantised_base_is_4_bit_and_its_adapter_learns(tmp_path):
    model = small_model()
    packed, base = to_nf4(model), to_nf4(model)
    assert len(packed_layers(packed)) == 14
    assert packed_layers(model) == []
    examples, _ = prepared("sft", model)
    before = packed.model.layers[0].mlp.down_proj.weight.clone()
    reference = reference_log_probs(packed, examples)
    assert packed.model.layers[0].mlp.down_proj.weight.equal(before)  # evaluation does not repack it
    assert np.abs(reference - reference_log_probs(model, examples)).max() > 0.01
    weight = packed.model.layers[0].mlp.up_proj.weight.clone()
    tuned, metrics = finetune(packed, examples, tuning(lora={**LORA, "quantized": True}), 0, reference=reference)
    assert metrics["base_dtype"] == "nf4"
    assert metrics["packed_layers"] == metrics["adapter_layers"] == 14
    assert metrics["base_bytes"] < 0.7 * model.get_memory_footprint()
    assert metrics["parameters"] == model.num_parameters()
    assert preferred(tuned.get_base_model(), base) > 0.9
    assert packed.model.layers[0].mlp.up_proj.base_layer.weight.equal(weight)
    with pytest.raises(UserError, match="is 4-bit and would round the adapter away"):
        merge(tuned)
    tuned.save_pretrained(tmp_path)
    merged = merge(load_adapter(model, tmp_path))
    assert preferred(merged, small_model()) > 0.9


def test_a_packed_model_of_ones_own_is_not_repacked_either():
    packed = to_nf4(small_model())
    layers = [packed.get_submodule(name) for name in packed_layers(packed)]
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)
    for layer in layers:
        layer.support_avx512bf16_for_cpu = True
    attach(packed, Lora(**LORA, quantized=True), 0)
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)


def test_a_seed_fixes_the_dropout_of_a_whole_model():
    losses = []
    for noise in (1, 2):
        model = small_model()
        for layer in model.model.layers:
            layer.self_attn.attention_dropout = 0.5
        torch.manual_seed(noise)
        losses.append(finetune(model, pairs(), tuning("sft", steps=3), 0)[1]["curve"]["loss"])
    assert losses[0] == losses[1]
    assert losses[0] != finetune(small_model(), pairs(), tuning("sft", steps=3), 0)[1]["curve"]["loss"]


def test_an_adapter_that_does_not_take_effect_raises(tmp_path):
    model = small_model()
    examples, reference = prepared("dpo", model)
    packed = to_nf4(model)
    with pytest.raises(UserError, match="quantized is true, but the model's weights are not 4-bit"):
        attach(model, Lora(**LORA, quantized=True), 0)
    with pytest.raises(
        UserError, match=r"quantized is false, but 14 layers of the model are 4-bit, the first is model\."
    ):
        attach(packed, Lora(**LORA), 0)
    with pytest.raises(UserError, match="14 layers are 4-bit and cannot be trained themselves"):
        finetune(packed, examples, tuning(), 0, reference=reference)
    for targets in (("q_proj", "w_proj"), ("w_proj",)):
        with pytest.raises(UserError, match="w_proj"):
            attach(small_model(), Lora(**LORA, target_modules=targets), 0)
    adapted = attach(model, Lora(**LORA), 0)
    with pytest.raises(RuntimeError, match=r"the adapter of .*layers\.0\.self_attn\.q_proj did not move"):
        assert_moved(adapted)
    adapted.save_pretrained(tmp_path / "untrained")
    with pytest.raises(RuntimeError, match="did not move"):
        load_adapter(small_model(), tmp_path / "untrained")
    with pytest.raises(UserError, match=r"holds no adapter_config\.json"):
        load_adapter(model, tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss_type": "hinge", "method": "orpo"}, "loss_type belongs to dpo, not to orpo"),
        ({"label_smoothing": 0.1, "loss_type": "ipo"}, "loss ipo does not use label_smoothing"),
        ({"beta": None}, "loss sigmoid needs beta"),
        ({"replay_weight": 0.1}, "allowed: both 0 or both above"),
        ({"warmup": 12}, "warmup is 12, allowed: below steps=12"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        tuning().model_copy(update=settings).check()


def test_what_a_method_needs_must_be_there_and_nothing_else():
    model = small_model()
    examples, reference = prepared("dpo", model)

    def refused(message, settings=None, **rest):
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(UserError, match=message):
            finetune(model, examples, settings or tuning(), 0, **rest)
        assert all(value.equal(before[name]) for name, value in model.state_dict().items())

    refused("sigmoid needs reference log-probabilities")
    refused("sft does not use reference", tuning("sft"), reference=reference)
    refused(r"are \(23, 2\), needed: finite and \(24, 2\)", reference=reference[:23])
    refused("finite", reference=reference * np.nan)
    refused("example 0 has 2 completions, needed: 3", tuning("kto"), reference=reference)
    documents = ({"prose": [Document(np.arange(5))]}, {"prose": 1.0})
    refused("replay_weight is 0.0, and documents to replay are given", reference=reference, replay=documents)
    refused("are not given", tuning(replay_weight=1.0, replay_batch_size=2), reference=reference)
    with pytest.raises(ValidationError, match="betta"):
        Tuning(method="dpo", betta=1.0, steps=1, batch_size=1, learning_rate=1.0)


def test_the_readmes_program_aligns_a_model_and_saves_it(tmp_path, capsys):
    text = (ROOT / "README.md").read_text()
    section = text[text.index("## Align your own model") :]
    program = section[section.index("```python\n") + 10 :]
    texts = [
        f"{verb} the {noun} {place}" for verb in ("bake", "mix") for noun in ("bread", "flour") for place in "abcd"
    ]
    train_tokenizer([*texts, "yes I will", "no I can not"], 280, tmp_path / "model", chat=True)
    small_model().save_pretrained(tmp_path / "model")
    given = {"PATH_OR_HUB_ID": str(tmp_path / "model"), "ADAPTER": tmp_path / "adapter", "FOLDER": tmp_path / "merged"}
    given |= {"prompts": texts, "responses": [("yes I will", "no I can not")] * 16, "context": 48, "steps": 20}
    exec(program[: program.index("```")], given)
    shown = ast.literal_eval(capsys.readouterr().out.strip().splitlines()[-1])
    assert shown["accuracy"] > 0.5
    assert shown["margin"] > 0
    assert shown["base_dtype"] == "float32"
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    gained = reference_log_probs(merged, given["pairs"]) - given["reference"]
    assert (gained[:, 0] > gained[:, 1]).mean() > 0.5
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


def test_schedules_end_where_they_say():
    assert tuning(schedule="constant").plan().rate(11) == pytest.approx(0.01)
    plan = tuning(schedule="cosine", steps=1000).plan()
    assert plan.rate(999) < 1e-6
    assert replace(plan, warmup=0).rate(0) == pytest.approx(0.01)
