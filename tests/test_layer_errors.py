"""What quantisers would do to each layer of a full-precision model, against numpy and really quantised layers."""

import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers.pytorch_utils import Conv1D

from common.errors import UserError
from common.models import new_language_model
from common.quantization import Quantizer, Recipe, quantize
from common.quantization.layers import activation_surface, gradient_errors, magnitudes, output_errors
from common.quantization.model import linear_layers
from common.training import language_loss

W4 = Quantizer(bits=4, granularity="channel")
A4 = Quantizer(bits=4, granularity="token")
G8 = Quantizer(bits=8, granularity="tensor")
GRADIENTS = [Recipe(gradients=G8), Recipe(gradients=Quantizer(bits=4, granularity="token", symmetric=False))]
OPERANDS = [Recipe(weights=W4), Recipe(activations=A4), Recipe(weights=W4, activations=A4)]
FAMILIES = pytest.mark.parametrize("family", ["gpt2", "llama"])


def language_model(family, tied=False):
    shape = {"vocab_size": 64, "hidden": 16, "layers": 2, "heads": 2, "context": 16}
    return new_language_model(family, **shape, tied=tied, embedding_std=0.3, seed=3)


def ids():
    return torch.randint(0, 64, (3, 12), generator=torch.Generator().manual_seed(1))


def loss(model):
    return language_loss(model, {"input_ids": ids()})


def weight_gradients(model):
    model.zero_grad()
    loss(model).backward()
    return {name: layer.weight.grad.double().numpy().copy() for name, layer in linear_layers(model).items()}


# --- one layer against numpy in float64


def rounded(x, bits, shared, symmetric=True):
    """The paper's formula, clamps and zero point included, with one scale over the axes `shared`."""
    top = 2 ** (bits - 1) - 1
    if symmetric:
        scale = np.abs(x).max(shared, keepdims=True) / top
        return scale * np.round(np.clip(x / scale, -top - 1, top))
    scale = (x.max(shared, keepdims=True) - x.min(shared, keepdims=True)) / (2 * top)
    zero = np.round(x.min(shared, keepdims=True) / scale + top + 1)
    return scale * (np.clip(np.round(x / scale) - zero, -top - 1, top) + zero)


def compared(exact, used):
    exact, used = exact.ravel(), used.ravel()
    cosine = exact @ used / np.sqrt((exact @ exact) * (used @ used))
    return [cosine, np.sqrt(((exact - used) ** 2).sum() / (exact**2).sum())]


def one_layer(kind):
    """A layer 12 → 8 with a bias, a batch for it, and the coefficients of its outputs in the loss: their gradients."""
    generator = np.random.default_rng(7)
    weight, bias = generator.normal(size=(8, 12)), 5 + generator.normal(size=8)
    layer = nn.Linear(12, 8) if kind == "Linear" else Conv1D(8, 12)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight if kind == "Linear" else weight.T))
        layer.bias.copy_(torch.from_numpy(bias))
    x = generator.standard_t(2, size=(3, 5, 12)).astype(np.float32)
    gradient = generator.standard_t(2, size=(3, 5, 8)).astype(np.float32)
    gradient[:, -1, ::2] = 0  # not the quantiser's doing
    total = lambda model: (model(torch.from_numpy(x)) * torch.from_numpy(gradient)).sum()  # noqa: E731
    weight = weight.astype(np.float32).astype(np.float64)
    return nn.Sequential(layer), total, x.astype(np.float64), weight, gradient.astype(np.float64)


@pytest.mark.parametrize("kind", ["Linear", "Conv1D"])
def test_gradient_errors_of_a_layer_are_those_of_numpy(kind):
    model, total, x, _, gradient = one_layer(kind)
    table = gradient_errors(model, total, GRADIENTS)
    assert table.columns.tolist() == ["layer", "setting", "zero_share", "cosine", "l2"]
    assert table["layer"].tolist() == ["0", "0"]
    assert table["setting"].tolist() == [recipe.label for recipe in GRADIENTS]
    exact = np.einsum("bto,bti->oi", gradient, x)
    quantised = rounded(gradient, 8, (0, 1, 2)), rounded(gradient, 4, 2, symmetric=False)
    for row, used in zip(table.itertuples(), quantised, strict=True):
        assert row.zero_share == pytest.approx((used[gradient != 0] == 0).mean(), abs=1e-12)
        assert [row.cosine, row.l2] == pytest.approx(compared(exact, np.einsum("bto,bti->oi", used, x)), rel=1e-4)
    assert table["zero_share"].between(0, 1, inclusive="neither").all()


@pytest.mark.parametrize("kind", ["Linear", "Conv1D"])
def test_output_errors_of_a_layer_are_those_of_numpy_without_the_bias(kind):
    model, total, x, weight, _ = one_layer(kind)
    table = output_errors(model, total, OPERANDS)
    assert table.columns.tolist() == ["layer", "setting", "zero_share", "cosine", "l2"]
    assert table["setting"].tolist() == [recipe.label for recipe in OPERANDS]
    w, a = rounded(weight, 4, 1), rounded(x, 4, 2)
    zeros = [(w == 0).mean(), (a == 0).mean(), (a == 0).mean()]
    for row, zero, used in zip(table.itertuples(), zeros, (x @ w.T, a @ weight.T, a @ w.T), strict=True):
        assert row.zero_share == pytest.approx(zero, abs=1e-12)
        assert [row.cosine, row.l2] == pytest.approx(compared(x @ weight.T, used), rel=1e-4)


def test_a_bias_that_dwarfs_the_product_hides_nothing():
    model, total, *_ = one_layer("Linear")
    before = output_errors(model, total, OPERANDS)
    with torch.no_grad():
        model[0].bias.fill_(1e6)
    assert output_errors(model, total, OPERANDS).equals(before)


# --- whole models against really quantised ones


@FAMILIES
@pytest.mark.parametrize("tied", [True, False])
def test_gradient_errors_are_those_of_a_really_quantised_backward_pass(family, tied):
    table = gradient_errors(language_model(family, tied), loss, GRADIENTS).set_index(["setting", "layer"])
    exact = weight_gradients(language_model(family, tied))
    for recipe in GRADIENTS:
        model = language_model(family, tied)
        quantize(model, recipe)
        assert table.loc[recipe.label].index.tolist() == list(exact)
        for name, used in weight_gradients(model).items():
            if tied and name == "lm_head":  # its gradient has the embedding's part as well
                continue
            found = table.loc[recipe.label].loc[name, ["cosine", "l2"]].tolist()
            assert found == pytest.approx(compared(exact[name], used), rel=1e-3), name


@FAMILIES
def test_output_errors_are_those_of_each_layer_really_quantised(family):
    model = language_model(family)
    inputs = {}
    for name, layer in linear_layers(model).items():
        layer.register_forward_pre_hook(lambda _, args, name=name: inputs.update({name: args[0].detach()}))
    table = output_errors(model, loss, OPERANDS).set_index(["setting", "layer"])
    assert len(table) == len(OPERANDS) * len(inputs)
    for recipe in OPERANDS:
        for name, layer in linear_layers(model).items():
            plain = copy.deepcopy(layer)
            plain._forward_pre_hooks.clear()
            if plain.bias is not None:
                nn.init.zeros_(plain.bias)
            quantised = copy.deepcopy(plain)
            quantize(quantised, recipe)
            exact, used = (one(inputs[name]).detach().double().numpy() for one in (plain, quantised))
            found = table.loc[recipe.label].loc[name, ["cosine", "l2"]].tolist()
            assert found == pytest.approx(compared(exact, used), rel=1e-3), name


def test_a_model_quantised_by_an_empty_recipe_is_measured_as_the_plain_one():
    plain, empty = language_model("gpt2"), language_model("gpt2")
    quantize(empty, Recipe())
    assert output_errors(empty, loss, OPERANDS).equals(output_errors(plain, loss, OPERANDS))
    found, expected = (gradient_errors(model, loss, GRADIENTS) for model in (empty, plain))
    np.testing.assert_allclose(found[["cosine", "l2"]], expected[["cosine", "l2"]], rtol=1e-3)


def test_under_autocast_the_operands_are_those_of_the_lower_precision():
    def low(model):
        with torch.autocast("cpu", torch.bfloat16):
            return loss(model)

    def narrow(x):
        return torch.as_tensor(x).bfloat16().double().numpy()

    w8a8 = Recipe(weights=Quantizer(bits=8, granularity="channel"), activations=Quantizer(bits=8, granularity="token"))
    model = language_model("llama")
    table = output_errors(model, low, [w8a8]).set_index("layer")
    inputs = []
    model.lm_head.register_forward_pre_hook(lambda _, args: inputs.append(args[0].detach()))
    low(model)
    x, w = narrow(inputs[0]), narrow(model.lm_head.weight.detach())
    expected = compared(x @ w.T, narrow(rounded(x, 8, 2)) @ narrow(rounded(w, 8, 1)).T)
    # Numbers of 8 bits often fall on ties, which single and double precision break differently.
    assert table.loc["lm_head", ["cosine", "l2"]].tolist() == pytest.approx(expected, rel=0.01)
    assert gradient_errors(model, low, GRADIENTS)["l2"].between(0, 1, inclusive="neither").all()


def test_a_later_layer_that_works_in_place_does_not_change_what_is_measured():
    tables = []
    for inplace in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 8), nn.ReLU(inplace), nn.Linear(8, 4))
        x = torch.randn(9, 6)
        tables.append(gradient_errors(model, lambda model, x=x: model(x).square().sum(), GRADIENTS))
    assert tables[0].equals(tables[1])


def test_gradients_rounded_to_nothing_have_no_direction():
    model, total, *_ = one_layer("Linear")
    row = gradient_errors(model, lambda model: total(model) * 1e-15, GRADIENTS[:1]).iloc[0]  # below the range's floor
    assert row[["zero_share", "cosine", "l2"]].tolist() == [1, 0, 1]


# --- magnitudes


def test_magnitudes_weigh_layers_equally_and_count_zeros_in_the_lowest_bin():
    model = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Linear(1, 4, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[8.0, -0.5]]))  # decades 0 and -1.2
        model[1].weight.copy_(torch.tensor([[3.0], [0.0], [-0.2], [2e-8]]))  # 0, none, -1.2 and -8.2
    x = torch.tensor(
        [[[1.0, 0.25], [-100.0, 1e-3]]]
    )  # decades -2, -2.6, 0 and -5; outputs 7.875 and -800, -2.006 and 0
    table = magnitudes(model, lambda model: model(x).sum(), [-4, -2.5, -1, 0])
    assert table.columns.tolist() == ["component", "low", "high", "share"]
    assert table["low"].tolist() == [-4, -2.5, -1] * 3
    assert table["high"].tolist() == [-2.5, -1, 0] * 3
    shares = {component: rows["share"].tolist() for component, rows in table.groupby("component")}
    assert shares["weights"] == pytest.approx([(0 + 2 / 4) / 2, (1 / 2 + 1 / 4) / 2, (1 / 2 + 1 / 4) / 2])
    assert shares["activations"] == pytest.approx([(2 / 4 + 0) / 2, (1 / 4 + 1 / 2) / 2, (1 / 4 + 1 / 2) / 2])
    assert shares["gradients"] == pytest.approx([0, 0, 1])


@FAMILIES
def test_magnitudes_of_each_component_add_up_to_one(family):
    table = magnitudes(language_model(family), loss, range(-8, 1))
    assert table["component"].unique().tolist() == ["weights", "activations", "gradients"]
    assert len(table) == 3 * 8
    assert table.groupby("component")["share"].sum().tolist() == pytest.approx([1, 1, 1])
    # The last token has no successor, so nothing flows back through a twelfth of the head's outputs.
    head = nn.Sequential(language_model(family).lm_head)
    inputs = torch.randn(3, 12, 16)
    lowest = magnitudes(head, lambda head: head(inputs)[:, :-1].square().sum(), [-300, -299, 0]).set_index("component")
    assert lowest.loc["gradients", "share"].iloc[0] == pytest.approx(1 / 12)


@settings(max_examples=25)
@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=4, max_size=4).filter(any))
def test_magnitudes_count_what_a_sorted_list_counts(values):
    layer = nn.Linear(4, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([values]))
    table = magnitudes(layer, lambda layer: layer(torch.ones(1, 2, 4)).sum(), [-3, -1, 0])
    largest = max(abs(value) for value in values)
    decades = [np.log10(abs(value) / largest) if abs(value) / largest > 0 else -np.inf for value in values]
    expected = sum(decade < -1 for decade in decades) / 4
    assert table["share"].tolist()[:2] == pytest.approx([expected, 1 - expected])


@pytest.mark.parametrize("edges", [[], [0], [0, -1], [-8, -8, 0], [-8, -1], [-np.inf, 0], [-8, np.nan, 0]])
def test_edges_that_would_lose_values_are_refused(edges):
    with pytest.raises(UserError, match=r"edges .* allowed: two or more ascending numbers, the last 0 or above"):
        magnitudes(language_model("gpt2"), loss, edges)


# --- activation surface


@FAMILIES
def test_the_surface_at_the_head_is_the_first_sequence_of_the_last_hidden_state(family):
    model = language_model(family)
    table = activation_surface(model, loss, "lm_head")
    with torch.no_grad():
        expected = model.base_model(ids()).last_hidden_state[0].abs().numpy()
    assert table.columns.tolist() == ["token", "channel", "magnitude"]
    surface = table.pivot(index="token", columns="channel", values="magnitude").to_numpy()
    np.testing.assert_allclose(surface, expected, rtol=1e-5)


def test_a_surface_of_an_unknown_layer_or_without_sequences_is_refused():
    with pytest.raises(UserError, match=r"named 'head', allowed: .*h\.0\.attn\.c_attn, .*lm_head"):
        activation_surface(language_model("gpt2"), loss, "head")
    with pytest.raises(ValueError, match=r"layer 0 has shape \(5, 4\)"):
        activation_surface(nn.Sequential(nn.Linear(4, 2)), lambda model: model(torch.ones(5, 4)).sum(), "0")


# --- nothing else changes


MEASURES = {
    "gradient_errors": lambda model, loss: gradient_errors(model, loss, GRADIENTS),
    "output_errors": lambda model, loss: output_errors(model, loss, OPERANDS),
    "magnitudes": lambda model, loss: magnitudes(model, loss, [-8, 0]),
    "activation_surface": lambda model, loss: activation_surface(model, loss, "lm_head"),
}
EACH_MEASURE = pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)


@EACH_MEASURE
@pytest.mark.parametrize("fails", [False, True])
def test_measuring_leaves_everything_as_it_was(measure, fails):
    def drawing(model):
        assert not any(module.training for module in model.modules())
        noisy = loss(model) * torch.rand(())
        if fails:
            raise ZeroDivisionError
        return noisy

    model = language_model("gpt2").train()
    model.transformer.h[0].eval()
    loss(model).backward()
    before = {name: (p.detach().clone(), p.grad.clone()) for name, p in model.named_parameters()}
    modes = [module.training for module in model.modules()]
    random_state = torch.get_rng_state()
    with torch.no_grad(), pytest.raises(ZeroDivisionError) if fails else nullcontext():
        measure(model, drawing)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks for module in model.modules())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name][0]), name
        assert torch.equal(parameter.grad, before[name][1]), name


# --- faults are named


class Part(nn.Module):
    """Two layers of which the forward pass uses what it is told to."""

    def __init__(self, *used):
        super().__init__()
        self.first, self.lm_head, self.used = nn.Linear(4, 4), nn.Linear(4, 4), used

    def forward(self, x):
        for name in self.used:
            x = self.get_submodule(name)(x)
        return x


def part_loss(model):
    return model(torch.ones(1, 2, 4)).square().sum()


@EACH_MEASURE
def test_a_layer_that_does_not_run_exactly_once_is_named(measure):
    with pytest.raises(RuntimeError, match="layer first ran 0 times"):
        measure(Part("lm_head"), part_loss)
    with pytest.raises(RuntimeError, match="layer lm_head ran 2 times"):
        measure(Part("first", "lm_head", "lm_head"), part_loss)


@EACH_MEASURE
def test_a_layer_without_gradient_is_named(measure):
    model = Part("first", "lm_head")
    with pytest.raises(RuntimeError, match="layer lm_head has no gradient"):
        measure(model, lambda model: model.lm_head(x := model.first(torch.ones(1, 2, 4))).detach().sum() + x.sum())
    model.first.requires_grad_(False)
    with pytest.raises(RuntimeError, match="layer first has no gradient"):
        measure(model, part_loss)


@EACH_MEASURE
@FAMILIES
@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_a_layer_with_a_broken_weight_is_named(measure, family, value):
    model = language_model(family)
    name = list(linear_layers(model))[5]
    with torch.no_grad():
        weight = model.get_submodule(name).weight
        weight.fill_(0) if value == 0 else weight.view(-1)[3:4].fill_(value)
    with pytest.raises(RuntimeError, match=f"weights of layer {name} hold NaN or infinity, or zeros only"):
        measure(model, loss)


def test_a_gradient_that_is_not_finite_is_named():
    with pytest.raises(RuntimeError, match="gradients of layer first hold NaN"):
        gradient_errors(Part("first", "lm_head"), lambda model: part_loss(model) * np.inf, GRADIENTS)


@EACH_MEASURE
def test_layers_that_do_not_compute_in_full_precision_are_refused(measure):
    quantised = language_model("gpt2")
    quantize(quantised, Recipe(weights=W4))
    with pytest.raises(UserError, match=r"c_attn quantises weights, allowed: a model in full precision"):
        measure(quantised, loss)
    odd = Part("first", "lm_head")
    odd.first = type("OddLinear", (nn.Linear,), {})(4, 4)
    with pytest.raises(UserError, match="first is a OddLinear"):
        measure(odd, part_loss)


@pytest.mark.parametrize(
    ("measure", "recipes", "expected"),
    [
        (gradient_errors, [], r"settings are \[\]"),
        (gradient_errors, [GRADIENTS[0], GRADIENTS[0]], "each with a label of its own"),
        (gradient_errors, [Recipe()], "full precision, allowed: recipes that quantise gradients alone"),
        (gradient_errors, [Recipe(gradients=G8, weights=W4)], "quantise gradients alone"),
        (gradient_errors, [Recipe(gradients=G8, gradient_branch="input")], "leaves weight gradients alone"),
        (output_errors, GRADIENTS, "quantise weights or activations alone"),
        (output_errors, [Recipe(weights=Quantizer(bits=4, granularity="group", group_size=5))], "16 inputs"),
        (gradient_errors, [Recipe(gradients=Quantizer(bits=4, granularity="group", group_size=5))], "48 outputs"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_measured_are_refused_before_the_pass(measure, recipes, expected):
    with pytest.raises(UserError, match=expected):
        measure(language_model("gpt2"), lambda model: pytest.fail("a pass was made"), recipes)
