"""Whole models and optimisers under a quantisation recipe: what changes, what must not, and what is noticed."""

import ast
import copy
import math
import pickle
from contextlib import suppress

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers.pytorch_utils import Conv1D

from common.errors import UserError
from common.project import ROOT
from common.quantization import (
    MomentQuantizer,
    Quantizer,
    Recipe,
    assert_took_effect,
    measure_effect,
    quantize,
    quantize_moments,
)
from common.quantization.adam import quantized_moment
from common.quantization.probe import recording

VOCABULARY = 37
W8 = Quantizer(bits=8, granularity="channel")
A8 = Quantizer(bits=8, granularity="token")
G8 = Quantizer(bits=8, granularity="tensor")
M8 = MomentQuantizer(bits=8, granularity="channel")
V8 = MomentQuantizer(bits=8, granularity="tensor", code="log-stochastic")
EVERYTHING = Recipe(weights=W8, activations=A8, gradients=G8, first_moment=M8, second_moment=V8)


def gpt2(tied: bool = False) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=16, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0,
        tie_word_embeddings=tied, resid_pdrop=0.1,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def llama(tied: bool = False) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=16, bos_token_id=0, eos_token_id=0, tie_word_embeddings=tied,
    )  # fmt: skip
    return LlamaForCausalLM(config)


FAMILIES = pytest.mark.parametrize("build", [gpt2, llama])


def batch() -> dict[str, torch.Tensor]:
    tokens = torch.randint(0, VOCABULARY, (3, 12), generator=torch.Generator().manual_seed(1))
    return {"input_ids": tokens, "labels": tokens}


def loss(model):
    return model(**batch()).loss


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(**batch()).logits


def adamw(model: nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW(model.parameters(), lr=1e-3)


def quantized_once(optimizer: torch.optim.Optimizer, model: nn.Module) -> torch.optim.Optimizer:
    quantize_moments(optimizer, model, EVERYTHING)
    return optimizer


def training_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model.train()
    optimizer.zero_grad()
    model(**batch()).loss.backward()
    optimizer.step()


def linear_weight_names(model: nn.Module) -> set[str]:
    """From the names of parameters, not of modules: matrices that are not embedding tables."""
    return {
        name.removesuffix(".weight")
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if parameter.ndim == 2 and not any(table in name for table in ("wte", "wpe", "embed_tokens"))
    }


@FAMILIES
def test_an_empty_recipe_changes_no_bit_of_logits_or_gradients(build):
    plain, quantised = build(), build()
    quantize(quantised, Recipe())
    assert torch.equal(logits(plain), logits(quantised))
    for model in (plain, quantised):
        model(**batch()).loss.backward()
    for (name, expected), found in zip(plain.named_parameters(), quantised.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-5, atol=1e-7, msg=name)


@FAMILIES
def test_eight_bit_weights_change_logits_a_little_and_two_bits_a_lot(build):
    def distance(bits: int) -> float:
        model = build()
        quantize(model, Recipe(weights=Quantizer(bits=bits, granularity="channel")))
        exact = logits(build())
        return ((logits(model) - exact).norm() / exact.norm()).item()

    assert 0 < distance(8) < 0.02
    assert distance(2) > 0.2


@FAMILIES
def test_quantised_logits_are_those_of_a_plain_model_with_rounded_weights(build):
    quantised, rounded = build(), build()
    quantize(quantised, Recipe(weights=W8))
    with torch.no_grad():
        for name in linear_weight_names(rounded):
            module = rounded.get_submodule(name)
            axis = 0 if isinstance(module, Conv1D) else 1
            weight = module.weight.numpy().astype(np.float64)
            scale = np.abs(weight).max(axis, keepdims=True) / 127
            module.weight.copy_(torch.from_numpy(np.round(weight / scale) * scale))
    torch.testing.assert_close(logits(quantised), logits(rounded), rtol=1e-4, atol=1e-6)


@FAMILIES
@pytest.mark.parametrize("tied", [True, False])
def test_parameters_stay_the_same_objects_under_the_same_names(build, tied):
    model = build(tied)
    before = dict(model.named_parameters(remove_duplicate=False))
    quantize(model, EVERYTHING)
    after = dict(model.named_parameters(remove_duplicate=False))
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)
    assert list(model.state_dict()) == list(build(tied).state_dict())


@FAMILIES
@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_model_opens_plain_and_can_be_quantised_again(build, tied, tmp_path):
    model = build(tied)
    quantize(model, EVERYTHING)
    quantised_logits = logits(model)
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(logits(again), logits(build(tied)))
    quantize(again, EVERYTHING)
    assert torch.equal(logits(again), quantised_logits)


@FAMILIES
def test_a_tied_head_stays_tied_through_training(build):
    model = build(tied=True)
    quantize(model, EVERYTHING)
    optimizer = adamw(model)
    quantize_moments(optimizer, model, EVERYTHING)
    before = model.get_input_embeddings().weight.clone()
    for _ in range(3):
        training_step(model, optimizer)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert not torch.equal(model.lm_head.weight, before)


def test_a_conv1d_is_quantised_like_the_linear_it_transposes():
    torch.manual_seed(0)
    linear, conv = nn.Linear(12, 8), Conv1D(8, 12)
    with torch.no_grad():
        conv.weight.copy_(linear.weight.T)
        conv.bias.copy_(linear.bias)
    for weights in (W8, Quantizer(bits=3, granularity="group", group_size=4), Quantizer(bits=4, granularity="tensor")):
        pair = copy.deepcopy(linear), copy.deepcopy(conv)
        for layer in pair:
            quantize(layer, Recipe(weights=weights))
        x = torch.randn(5, 12)
        torch.testing.assert_close(pair[0](x), pair[1](x))
        assert not torch.allclose(pair[0](x), linear(x), atol=1e-6)


@FAMILIES
def test_a_quantised_model_can_be_copied_and_pickled(build):
    model = build()
    quantize(model, EVERYTHING)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(logits(twin), logits(model))
        with pytest.raises(UserError, match="already"):
            quantize(twin, EVERYTHING)


@FAMILIES
def test_activation_checkpointing_gives_the_same_gradients(build):
    gradients = []
    for checkpointing in (False, True):
        model = build()
        quantize(model, EVERYTHING)
        if checkpointing:
            model.activation_checkpointing_enable()
        model.train()
        torch.manual_seed(3)  # dropout
        model(**batch()).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@FAMILIES
def test_the_report_lists_every_linear_layer(build):
    model = build()
    report = quantize(model, EVERYTHING)
    assert {layer.name for layer in report.layers} == linear_weight_names(model)
    assert "lm_head" in {layer.name for layer in report.layers}
    table = report.table().set_index("name")
    assert table.loc["lm_head", ["outputs", "inputs"]].tolist() == [VOCABULARY, 16]
    assert set(table["weights"]) == {"8-bit channel"}
    weights = sum(model.get_parameter(f"{name}.weight").numel() for name in linear_weight_names(model))
    assert report.weight_share == pytest.approx(weights / sum(p.numel() for p in model.parameters()))
    if build is gpt2:
        assert table.loc["transformer.h.0.attn.c_attn", ["kind", "outputs", "inputs"]].tolist() == ["Conv1D", 48, 16]


# --- refusals, all before anything is changed


class OddLinear(nn.Linear):
    """A linear layer with ideas of its own."""


def test_a_model_without_linear_layers_is_refused():
    with pytest.raises(UserError, match="no linear layer"):
        quantize(nn.Embedding(3, 4), EVERYTHING)


def test_a_model_is_quantised_only_once_but_an_empty_recipe_can_be_replaced():
    model, fresh = llama(), llama()
    quantize(model, Recipe())
    quantize(model, EVERYTHING)
    quantize(fresh, EVERYTHING)
    assert torch.equal(logits(model), logits(fresh))
    with pytest.raises(UserError, match=r"already \(model\.layers\.0"):
        quantize(model, EVERYTHING)


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (Recipe(weights=Quantizer(bits=8, granularity="group", group_size=16)), "24 inputs of .*down_proj"),
        (Recipe(gradients=Quantizer(bits=8, granularity="group", group_size=8)), "37 outputs of lm_head"),
        (Recipe(second_moment=MomentQuantizer(bits=8, granularity="group", group_size=5)), "16 inputs"),
    ],
)
def test_groups_that_do_not_divide_a_layer_leave_the_model_untouched(recipe, expected):
    model = llama()
    with pytest.raises(UserError, match=expected):
        quantize(model, recipe)
    assert not any(hasattr(module, "quantization") for module in model.modules())


def test_a_foreign_kind_of_linear_layer_leaves_the_model_untouched():
    model = nn.Sequential(nn.Linear(2, 2), OddLinear(2, 2))
    with pytest.raises(UserError, match="1 is a OddLinear"):
        quantize(model, EVERYTHING)
    assert type(model[0]) is nn.Linear


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (lambda model: torch.optim.SGD(model.parameters(), lr=0.1), "SGD keeps no Adam moments"),
        (lambda model: torch.optim.Adam(model.parameters(), amsgrad=True), "amsgrad"),
        (lambda model: adamw(gpt2()), r"does not hold .*c_attn"),
        (lambda model: quantized_once(adamw(model), model), "AdamW quantises its moments already"),
    ],
)
def test_optimisers_whose_moments_cannot_be_quantised_are_refused(optimizer, expected):
    model = gpt2()
    with pytest.raises(UserError, match=expected):
        quantize_moments(optimizer(model), model, EVERYTHING)


def test_an_optimiser_whose_state_is_not_adams_is_refused_when_that_shows():
    model = gpt2()
    optimizer = torch.optim.Adamax(model.parameters())
    quantize_moments(optimizer, model, "m2 8 channel")
    training_step(model, optimizer)
    with pytest.raises(UserError, match="Adamax keeps no exp_avg_sq"):
        training_step(model, optimizer)


def test_a_recipe_without_moments_asks_nothing_of_the_optimiser():
    model = gpt2()
    quantize_moments(torch.optim.SGD(model.parameters(), lr=0.1), model, "full precision")
    optimizer = quantized_once(adamw(model), model)
    quantize_moments(optimizer, model, Recipe(weights=W8))


def test_a_removed_hook_makes_room_for_another():
    model = gpt2()
    optimizer = adamw(model)
    quantize_moments(optimizer, model, EVERYTHING).remove()
    quantize_moments(optimizer, model, EVERYTHING)


@pytest.mark.parametrize(("layers", "moments"), [("W8 channel", "m2 2 tensor"), ("m2 8 channel", "full precision")])
def test_moments_by_another_recipe_than_the_layers_are_told(layers, moments):
    model = gpt2()
    optimizer = adamw(model)
    quantize(model, layers)
    quantize_moments(optimizer, model, moments)
    training_step(model, optimizer)
    with pytest.raises(UserError, match=r"second_moment: quantize_moments was given .* give both one recipe"):
        measure_effect(model, lambda model: model(**batch()).loss, optimizer)


def test_negative_seeds_are_refused():
    model = gpt2()
    with pytest.raises(UserError, match="seed is -1, allowed: whole numbers from 0"):
        quantize_moments(adamw(model), model, EVERYTHING, seed=-1)


def test_a_label_stands_for_its_recipe():
    model, other = gpt2(), gpt2()
    label = "W8 channel + A8 token + G8 token, straight-through"
    assert quantize(model, label).recipe == quantize(other, Recipe.named(label)).recipe
    assert torch.equal(model.eval()(**batch()).loss, other.eval()(**batch()).loss)
    with pytest.raises(UserError, match=r"Recipe: weights: bits: .*\(got 9\)"):
        quantize(gpt2(), "W9 channel")
    with pytest.raises(UserError, match=r"a label is text .* not 8"):
        Recipe.named(8)


def test_a_frozen_weight_under_a_gradient_quantiser_is_told():
    model = gpt2()
    report = quantize(model, "G8 token")
    model.lm_head.weight.requires_grad = False
    effect = measure_effect(model, lambda model: model(**batch()).loss)
    with pytest.raises(RuntimeError, match=r"lm_head did not run \(a frozen weight has no gradient\)"):
        assert_took_effect(effect, report)


# --- moments


def run_hooks_alone(optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    optimizer.step()


@FAMILIES
@pytest.mark.parametrize("wrapped", [False, True])
def test_moments_of_linear_weights_alone_are_rounded_before_a_step(build, wrapped):
    recipe = Recipe(
        first_moment=MomentQuantizer(bits=4, granularity="channel"),
        second_moment=MomentQuantizer(bits=4, granularity="tensor"),
    )
    model = build()
    optimizer = adamw(model)
    if wrapped:
        model, optimizer = Accelerator(cpu=True).prepare(model, optimizer)
    quantize(model, recipe)
    quantize_moments(optimizer, model, recipe)
    run_hooks_alone(optimizer)  # no state yet: nothing to do
    training_step(model, optimizer)
    before = {name: copy.deepcopy(optimizer.state[p]) for name, p in model.named_parameters()}
    run_hooks_alone(optimizer)

    linear = {f"{name}.weight" for name in linear_weight_names(model)}
    for name, parameter in model.named_parameters():
        after = optimizer.state[parameter]
        if name not in linear:
            assert torch.equal(after["exp_avg"], before[name]["exp_avg"]), name
            assert torch.equal(after["exp_avg_sq"], before[name]["exp_avg_sq"]), name
            continue
        transposed = isinstance(model.get_submodule(name.removesuffix(".weight")), Conv1D)
        m1, m2 = (before[name][key].double().numpy() for key in ("exp_avg", "exp_avg_sq"))
        scale1 = np.maximum(np.abs(m1).max(0 if transposed else 1, keepdims=True), 1e-8) / 7
        scale2 = max(m2.max(), 1e-8) / 7
        # Values next to a tie may fall on either side in single precision.
        for found, exact, scale in ((after["exp_avg"], m1, scale1), (after["exp_avg_sq"], m2, scale2)):
            codes = found.double().numpy() / scale
            np.testing.assert_allclose(codes, np.round(codes), atol=1e-4)
            assert (np.abs(found.double().numpy() - exact) <= scale * (0.5 + 1e-4)).all()
            assert np.abs(found.double().numpy() - exact).max() > 0


def test_stochastic_rounding_depends_on_seed_and_step_alone():
    def second_moment(seed: int, steps: int, disturb: bool) -> torch.Tensor:
        model = gpt2()
        optimizer = adamw(model)
        quantize_moments(optimizer, model, EVERYTHING, seed=seed)
        for parameter in model.parameters():
            moment = torch.rand(parameter.shape, generator=torch.Generator().manual_seed(5))
            optimizer.state[parameter] = {
                "step": torch.tensor(float(steps)), "exp_avg": moment, "exp_avg_sq": moment.clone()
            }  # fmt: skip
        if disturb:
            torch.rand(100)
        state = torch.get_rng_state()
        run_hooks_alone(optimizer)
        assert torch.equal(torch.get_rng_state(), state)
        return optimizer.state[model.lm_head.weight]["exp_avg_sq"]

    once = second_moment(seed=0, steps=3, disturb=False)
    assert torch.equal(once, second_moment(seed=0, steps=3, disturb=True))
    assert not torch.equal(once, second_moment(seed=0, steps=4, disturb=False))
    assert not torch.equal(once, second_moment(seed=1, steps=3, disturb=False))


def test_stochastic_rounding_goes_by_the_states_own_step_whatever_becomes_of_it(monkeypatch):
    found = []

    def noted(component, quantizer, state, layer, seeds):
        found.append((seeds[2], int(state["step"])))
        return quantized_moment(component, quantizer, state, layer, seeds)

    monkeypatch.setattr("common.quantization.adam.quantized_moment", noted)
    model = gpt2()
    optimizer = quantized_once(adamw(model), model)
    for _ in range(3):
        training_step(model, optimizer)
    saved = copy.deepcopy(optimizer.state_dict())
    model.lm_head.weight.requires_grad_(False)
    training_step(model, optimizer)
    run_hooks_alone(optimizer)
    model.lm_head.weight.requires_grad_(True)

    def closure():  # computes gradients within the step
        optimizer.zero_grad()
        loss(model).backward()

    optimizer.zero_grad()
    optimizer.step(closure)
    training_step(model, optimizer)
    optimizer.load_state_dict(saved)
    training_step(model, optimizer)
    training_step(model, optimizer)
    layers = len(linear_weight_names(model))
    assert len(found) == 2 * layers * (2 + 2 + 2 + 2)
    assert all(used == own for used, own in found)
    assert {own for _, own in found} == {1, 2, 3, 4, 5}


@pytest.mark.parametrize(("code", "explodes"), [("linear", True), ("log", False), ("log-stochastic", False)])
def test_small_second_moments_blow_up_a_step_only_with_linear_levels(code, explodes):
    model = nn.Linear(64, 64, bias=False)
    recipe = Recipe(second_moment=MomentQuantizer(bits=8, granularity="tensor", code=code))
    lr = 1e-3
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    quantize_moments(optimizer, model, recipe)
    gradient = torch.logspace(-4, 0, 64 * 64).reshape(64, 64)  # constant: each step of Adam is lr, whatever its size
    for share in (1.0, 1.0, 1.0, 0.0):  # and when the gradient ends, momentum alone moves the weights
        before = model.weight.detach().clone()
        model.weight.grad = gradient * share
        optimizer.step()
    largest = (model.weight.detach() - before).abs().max().item()
    assert largest > 1000 * lr if explodes else largest < 1.2 * lr


# --- proof that the setting took effect


def trained(recipe: Recipe = EVERYTHING):
    model = gpt2()
    report = quantize(model, recipe)
    optimizer = adamw(model)
    handle = quantize_moments(optimizer, model, recipe)
    training_step(model, optimizer)
    return model, report, optimizer, handle


@FAMILIES
def test_a_sound_run_shows_an_effect_of_every_component_in_every_layer(build):
    model = build()
    report = quantize(model, EVERYTHING)
    optimizer = adamw(model)
    quantize_moments(optimizer, model, EVERYTHING)
    training_step(model, optimizer)
    weight = model.lm_head.weight.detach().double().numpy()
    effect = measure_effect(model, loss, optimizer)
    means = assert_took_effect(effect, report)
    assert len(effect) == 5 * len(report.layers)
    assert set(means) == {"weights", "activations", "gradients", "first_moment", "second_moment"}
    assert all(0 < error < 0.1 for error in means.values())
    scale = np.abs(weight).max(1, keepdims=True) / 127
    expected = np.linalg.norm(np.round(weight / scale) * scale - weight) / np.linalg.norm(weight)
    assert effect["weights", "lm_head"] == pytest.approx(expected, rel=1e-3)


def test_measuring_leaves_the_run_as_it_was():
    model, _, optimizer, _ = trained(Recipe(weights=W8, activations=A8, gradients=G8, first_moment=M8))
    before = copy.deepcopy(model)
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    steps = [state["step"].item() for state in optimizer.state.values()]
    random_state = torch.get_rng_state()
    measure_effect(model, loss, optimizer)
    assert model.training
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [state["step"].item() for state in optimizer.state.values()] == steps
    for (name, found), expected, gradient in zip(model.named_parameters(), before.parameters(), gradients, strict=True):
        assert torch.equal(found, expected), name
        assert torch.equal(found.grad, gradient), name


def test_a_run_that_was_measured_goes_on_like_one_that_was_not():
    weights = []
    for measured in (False, True):
        model, _, optimizer, _ = trained(Recipe(weights=W8, first_moment=M8))
        if measured:
            measure_effect(model, loss, optimizer)
        torch.manual_seed(9)
        training_step(model, optimizer)
        weights.append(model.lm_head.weight.detach())
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-6)


def test_a_layer_that_lost_its_quantiser_is_named():
    model, report, optimizer, _ = trained()
    model.transformer.h[1].mlp.c_fc.__class__ = Conv1D
    with pytest.raises(RuntimeError, match=r"weights quantiser .*transformer\.h\.1\.mlp\.c_fc did not run"):
        assert_took_effect(measure_effect(model, loss, optimizer), report)


def test_a_quantiser_that_changes_nothing_is_named(monkeypatch):
    model, report, optimizer, _ = trained()
    monkeypatch.setattr("common.quantization.linear.fake_quantize", lambda x, *_, **__: x)
    with pytest.raises(RuntimeError, match=r"weights quantiser .*h\.0\.attn\.c_attn changed nothing"):
        assert_took_effect(measure_effect(model, loss, optimizer), report)


def test_a_lost_moments_hook_is_noticed():
    model, _, optimizer, handle = trained()
    handle.remove()
    with pytest.raises(UserError, match="first_moment: quantize_moments was given none, quantize 8-bit channel"):
        measure_effect(model, loss, optimizer)


def test_an_optimiser_that_was_not_measured_is_noticed():
    model, report, _, _ = trained()
    with pytest.raises(RuntimeError, match=r"first_moment quantiser .* did not run"):
        assert_took_effect(measure_effect(model, loss), report)


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0])
def test_a_weight_without_a_finite_error_is_named(value):
    model, report, optimizer, _ = trained()
    with torch.no_grad():
        model.transformer.h[0].attn.c_proj.weight.fill_(value)
    with pytest.raises(RuntimeError, match=r"h\.0\.attn\.c_proj .*(zeros only|changed nothing)"):
        assert_took_effect(measure_effect(model, loss, optimizer), report)


def test_nothing_is_recorded_after_the_block_even_if_it_failed():
    model, *_ = trained()
    with suppress(ZeroDivisionError), recording() as effect:
        logits(model)
        raise ZeroDivisionError
    noted = effect.relative_errors()
    assert noted
    with torch.no_grad():
        model.lm_head.weight.mul_(torch.rand_like(model.lm_head.weight))
    logits(model)
    assert effect.relative_errors() == noted


def test_the_readmes_program_trains_a_quantised_model_and_shows_that_it_did(tmp_path, capsys):
    text = (ROOT / "README.md").read_text()
    program = text[text.index("```python\n") + 10 :]
    program = program[: program.index("```")]
    llama().save_pretrained(tmp_path / "model")
    given = {"PATH_OR_HUB_ID": tmp_path / "model", "FOLDER": tmp_path / "out", "steps": 2, "ids": batch()["input_ids"]}
    exec(program, given)
    shown = ast.literal_eval(capsys.readouterr().out.strip().splitlines()[-1])
    assert shown.keys() == {"weights", "activations", "second_moment"}
    assert 0 < shown["weights"] < 0.02
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").config.model_type == "llama"
