"""Adam's step with quantised second moments, against steps that torch's AdamW really takes."""

import copy

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn
from transformers.pytorch_utils import Conv1D

from common.errors import UserError
from common.models import new_language_model
from common.quantization import MomentQuantizer, Quantizer, Recipe, quantize_moments
from common.quantization.fate import moment_fate
from common.quantization.model import linear_layers
from common.training import language_loss

LINEAR = Recipe(second_moment=MomentQuantizer(bits=8, granularity="tensor"))
CHANNEL = Recipe(second_moment=MomentQuantizer(bits=4, granularity="channel"))
LOG = Recipe(second_moment=MomentQuantizer(bits=8, granularity="tensor", code="log"))
STOCHASTIC = Recipe(second_moment=MomentQuantizer(bits=4, granularity="tensor", code="log-stochastic"))
SETTINGS = [LINEAR, CHANNEL, LOG, STOCHASTIC]
FAMILIES = pytest.mark.parametrize("family", ["gpt2", "llama"])
LEARNING_RATE = 1e-2


def language_model(family, tied=False):
    shape = {"vocab_size": 64, "hidden": 16, "layers": 1, "heads": 2, "context": 16}
    model = new_language_model(family, **shape, tied=tied, embedding_std=0.3, seed=3)
    return model.double()  # so that weights before and after a step tell its size


def adamw(model, **options):
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    groups = [{"params": matrices[::2], "betas": (0.8, 0.95), "eps": 1e-6}, {"params": matrices[1::2]}]
    return torch.optim.AdamW(groups, **{"lr": LEARNING_RATE, "weight_decay": 0.0} | options)


def train(model, optimizer, steps):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        language_loss(model, {"input_ids": torch.randint(0, 64, (3, 12), generator=generator)}).backward()
        optimizer.step()


def trained(family, tied=False):
    model = language_model(family, tied)
    optimizer = adamw(model)
    train(model, optimizer, 3)
    return model, optimizer


def sizes(update):
    return [np.sqrt((update**2).mean()), np.abs(update).max()]


def taken(model, step):
    """The updates by layer that `step()` makes, in units of the learning rate."""
    layers = linear_layers(model)
    before = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    step()
    return {
        name: ((before[name] - layer.weight.detach()) / LEARNING_RATE).numpy().copy() for name, layer in layers.items()
    }


@FAMILIES
@pytest.mark.parametrize("tied", [True, False])
def test_the_exact_update_is_that_of_the_last_step_taken(family, tied):
    model, optimizer = trained(family, tied)
    updates = taken(model, lambda: train(model, optimizer, 1))  # a step updates the moments first: they are its own
    table = moment_fate(optimizer, model, SETTINGS)
    columns = ["layer", "setting", "zero_share", "update_rms", "update_largest", "exact_rms", "exact_largest"]
    assert table.columns.tolist() == columns
    assert table["layer"].tolist() == [name for name in updates for _ in SETTINGS]
    assert table["setting"].tolist() == [recipe.label for recipe in SETTINGS] * len(updates)
    for row in table.itertuples():
        assert [row.exact_rms, row.exact_largest] == pytest.approx(sizes(updates[row.layer]), rel=1e-9)


def linear_levels(moment, bits, shared):
    scale = np.maximum(np.abs(moment).max(shared, keepdims=True), 1e-8) / (2 ** (bits - 1) - 1)
    return scale * np.round(moment / scale)


@FAMILIES
@pytest.mark.parametrize("recipe", [LINEAR, CHANNEL], ids=str)
def test_the_quantised_update_is_that_of_a_step_whose_moments_end_as_the_stored_ones(family, recipe):
    model, optimizer = trained(family)
    table = moment_fate(optimizer, model, [recipe]).set_index("layer")
    zero_shares = {}
    optimizer.zero_grad(set_to_none=False)  # a step without gradient only decays the moments: undo that beforehand
    for name, layer in linear_layers(model).items():
        (group,) = [g for g in optimizer.param_groups if any(p is layer.weight for p in g["params"])]
        state = optimizer.state[layer.weight]
        moment = state["exp_avg_sq"].numpy()
        shared = (0, 1) if recipe is LINEAR else 0 if isinstance(layer, Conv1D) else 1
        used = linear_levels(moment, recipe.second_moment.bits, shared)
        zero_shares[name] = (used[moment > 0] == 0).mean()
        state["exp_avg_sq"].copy_(torch.from_numpy(used / group["betas"][1]))
        state["exp_avg"].div_(group["betas"][0])
        state["step"] -= 1
    updates = taken(model, optimizer.step)
    assert list(updates) == table.index.tolist()
    for name, update in updates.items():
        assert table.loc[name, ["update_rms", "update_largest"]].tolist() == pytest.approx(sizes(update), rel=1e-9)
        assert table.loc[name, "zero_share"] == pytest.approx(zero_shares[name], abs=1e-12)


@FAMILIES
def test_linear_levels_lose_small_moments_and_blow_up_the_step_while_log_levels_do_neither(family):
    model, optimizer = trained(family)
    table = moment_fate(optimizer, model, SETTINGS).set_index("setting")
    growth = table["update_largest"] / table["exact_largest"]
    for recipe in (LINEAR, CHANNEL):
        lost = table.loc[recipe.label, "zero_share"] > 0
        assert lost.mean() > 0.5
        assert growth[recipe.label][lost].min() > 10
        assert growth[recipe.label].max() > 1000
    assert (table.loc[[LOG.label, STOCHASTIC.label], "zero_share"] == 0).all()
    # At 8 bits a rounding changes the root by 2.3% at most; at 4 bits stochastic levels are 32/14 octaves apart.
    assert growth[LOG.label].between(0.97, 1.03).all()
    assert growth[STOCHASTIC.label].between(2 ** (-16 / 14), 2 ** (16 / 14)).all()


def test_moments_that_are_zero_already_do_not_count_as_lost():
    layer = nn.Linear(4, 1, bias=False)
    optimizer = torch.optim.Adam(layer.parameters())
    layer.weight.grad = torch.tensor([[1.0, 0.5, 1e-3, 0.0]])
    optimizer.step()
    assert moment_fate(optimizer, layer, [LINEAR])["zero_share"].tolist() == pytest.approx([1 / 3])


def test_stochastic_codes_draw_as_the_optimisers_hook_does_and_from_the_seed_alone():
    model, optimizer = trained("gpt2")
    first = moment_fate(optimizer, model, [STOCHASTIC], seed=5)
    torch.rand(3)
    assert moment_fate(optimizer, model, [STOCHASTIC], seed=5).equals(first)
    assert not moment_fate(optimizer, model, [STOCHASTIC], seed=6).equals(first)
    quantize_moments(optimizer, model, STOCHASTIC, seed=5)
    optimizer.zero_grad()
    optimizer.step()  # without gradients: the hook alone runs
    rounded = moment_fate(optimizer, model, [LINEAR])
    np.testing.assert_allclose(rounded["exact_rms"], first["update_rms"], rtol=1e-12)


@pytest.mark.parametrize("wrapped", [False, True])
def test_measuring_changes_nothing(wrapped):
    model, optimizer = trained("llama")
    expected = moment_fate(optimizer, model, SETTINGS)
    if wrapped:
        model, optimizer = Accelerator(cpu=True).prepare(model, optimizer)
    model.train()
    model.lm_head.eval()
    state = copy.deepcopy(optimizer.state_dict())
    parameters = [(parameter.detach().clone(), parameter.grad.clone()) for parameter in model.parameters()]
    modes = [module.training for module in model.modules()]
    random_state = torch.get_rng_state()
    assert moment_fate(optimizer, model, SETTINGS).equals(expected)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [module.training for module in model.modules()] == modes
    after = optimizer.state_dict()
    assert after["param_groups"] == state["param_groups"]
    for index, entry in state["state"].items():
        assert all(torch.equal(after["state"][index][key], value) for key, value in entry.items())
    for parameter, (value, gradient) in zip(model.parameters(), parameters, strict=True):
        assert torch.equal(parameter, value)
        assert torch.equal(parameter.grad, gradient)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda model: torch.optim.SGD(model.parameters(), lr=0.1), "SGD does not step as Adam does"),
        (lambda model: torch.optim.NAdam(model.parameters()), "NAdam does not step as Adam does"),
        (lambda model: adamw(model, amsgrad=True), "amsgrad"),
        (lambda model: torch.optim.Adam(language_model("gpt2").parameters()), r"does not hold .*c_attn"),
    ],
)
def test_optimisers_with_other_steps_are_refused(make, expected):
    model = language_model("gpt2")
    with pytest.raises(UserError, match=expected):
        moment_fate(make(model), model, SETTINGS)


@pytest.mark.parametrize(
    ("recipes", "expected"),
    [
        ([], r"settings are \[\]"),
        ([LOG, LOG], "each with a label of its own"),
        ([Recipe(weights=Quantizer(bits=8, granularity="tensor"))], "quantise second_moment alone"),
        ([LINEAR.model_copy(update={"first_moment": CHANNEL.second_moment})], "quantise second_moment alone"),
        ([Recipe(second_moment=MomentQuantizer(bits=8, granularity="group", group_size=5))], "16 inputs of"),
    ],
)
def test_settings_that_cannot_be_measured_are_refused(recipes, expected):
    model, optimizer = trained("gpt2")
    with pytest.raises(UserError, match=expected):
        moment_fate(optimizer, model, recipes)


def test_a_layer_without_moments_is_named():
    model = language_model("llama")
    optimizer = adamw(model)
    with pytest.raises(RuntimeError, match=r"q_proj has no moments"):
        moment_fate(optimizer, model, [LOG])
    train(model, optimizer, 1)
    optimizer.state[model.lm_head.weight]["exp_avg_sq"].zero_()
    with pytest.raises(RuntimeError, match="lm_head has no positive entry"):
        moment_fate(optimizer, model, [LOG])


@pytest.mark.parametrize("moment", ["exp_avg", "exp_avg_sq"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("recipe", [LINEAR, LOG], ids=str)
def test_a_moment_that_is_not_finite_is_named(moment, value, recipe):
    model, optimizer = trained("llama")
    optimizer.state[model.lm_head.weight][moment][3, 4] = value
    with pytest.raises(RuntimeError, match=r"layer lm_head.* is not finite"):
        moment_fate(optimizer, model, [recipe])
