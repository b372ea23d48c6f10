"""Sharpness against the closed form of a quadratic and a computation written out by hand on a copy."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from common.landscape import sharpness
from common.models import new_language_model
from common.quantization import Quantizer, Recipe, quantize
from common.training import language_loss

RADIUS = 0.05
W4A8G8 = Recipe(
    weights=Quantizer(bits=4, granularity="channel"),
    activations=Quantizer(bits=8, granularity="token"),
    gradients=Quantizer(bits=8, granularity="tensor"),
)


class Point(nn.Module):
    """Coordinates in two trainable tensors, the second under two names, and one that stays."""

    def __init__(self, first, second, fixed):
        super().__init__()
        self.first, self.second = nn.Parameter(first), nn.Parameter(second)
        self.again = self.second
        self.fixed = nn.Parameter(fixed, requires_grad=False)

    def place(self):
        return torch.cat([self.first, self.again, self.fixed])


def quadratic(model, batch):
    place = model.place()
    return 0.5 * place @ batch["hessian"] @ place + batch["slope"] @ place


def point(seed=0):
    return Point(*(torch.from_numpy(np.random.default_rng(seed).normal(size=size)) for size in (3, 2, 2)))


def quadratic_batch(seed):
    draw = np.random.default_rng(seed)
    root = draw.normal(size=(7, 7))
    return {"hessian": torch.from_numpy(root @ root.T), "slope": torch.from_numpy(draw.normal(size=7))}


def language_model(family, recipe=None, tied=False):
    sizes = {"vocab_size": 64, "hidden": 16, "layers": 2, "heads": 2, "context": 8, "embedding_std": 0.3}
    model = new_language_model(family, tied=tied, seed=0, **sizes).double()
    if family == "gpt2":
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.5
    if recipe is not None:
        quantize(model, recipe)
    return model.train()


def token_batches(count=3):
    draw = torch.Generator().manual_seed(1)
    return [{"input_ids": torch.randint(0, 64, (3, 8), generator=draw)} for _ in range(count)]


def cross_entropy(model, batch):
    """In double precision throughout, so that what is left between two ways to compute it is rounding alone."""
    ids = batch["input_ids"]
    logits = model(input_ids=ids).logits[:, :-1]
    return -logits.log_softmax(-1).gather(2, ids[:, 1:, None]).mean()


def naive_sharpness(model, batches, radius):
    rises = []
    for batch in batches:
        twin = copy.deepcopy(model).eval()
        here = cross_entropy(twin, batch)
        here.backward()
        gradients = {id(p): p.grad.numpy().copy() for p in twin.parameters()}
        norm = math.sqrt(sum((gradient**2).sum() for gradient in gradients.values()))
        for parameter in twin.parameters():
            moved = parameter.detach().numpy() + radius * gradients[id(parameter)] / norm
            parameter.data.copy_(torch.from_numpy(moved))
        rises.append(cross_entropy(twin, batch).item() - here.item())
    return np.mean(rises)


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), radius=st.floats(1e-3, 10), count=st.integers(1, 4))
def test_on_a_quadratic_it_is_the_closed_form(seed, radius, count):
    model = point(seed)
    batches = [quadratic_batch(1000 * seed + index) for index in range(count)]
    place = model.place().detach().numpy()
    expected = []
    for batch in batches:
        hessian, slope = batch["hessian"].numpy(), batch["slope"].numpy()
        gradient = (hessian @ place + slope)[:5]  # the last two stay
        norm = np.linalg.norm(gradient)
        direction = gradient / norm
        expected.append(radius * norm + 0.5 * radius**2 * direction @ hessian[:5, :5] @ direction)
    assert sharpness(model, quadratic, iter(batches), radius) == pytest.approx(np.mean(expected), rel=1e-9)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("recipe", [None, W4A8G8], ids=["plain", "quantised"])
def test_on_language_models_it_is_what_a_copy_moved_by_hand_shows(family, tied, recipe):
    model = language_model(family, recipe, tied)
    expected = naive_sharpness(model, token_batches(), RADIUS)
    assert expected > 1e-3
    assert sharpness(model, cross_entropy, token_batches(), RADIUS) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_quantisers_take_part_in_the_losses_and_the_gradient(family):
    plain, quantised = (
        sharpness(language_model(family, recipe), cross_entropy, token_batches(), RADIUS) for recipe in (None, W4A8G8)
    )
    assert quantised != pytest.approx(plain, rel=1e-3)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_single_precision_and_the_training_loss_are_precise_enough(family):
    model = language_model(family)
    expected = sharpness(model, cross_entropy, token_batches(), RADIUS)
    found = sharpness(model.float(), language_loss, token_batches(), RADIUS)
    assert found == pytest.approx(expected, rel=1e-3)


def test_it_can_be_measured_where_gradients_are_off():
    expected = sharpness(point(), quadratic, [quadratic_batch(0)], RADIUS)
    with torch.no_grad():
        assert sharpness(point(), quadratic, [quadratic_batch(0)], RADIUS) == expected


class Elsewhere:
    """A tensor that can't be used before it is moved."""

    def __init__(self, tensor):
        self.tensor = tensor

    def to(self, device):
        assert device == torch.device("cpu")
        return self.tensor


def test_batches_are_moved_to_the_models_device():
    batch = quadratic_batch(0)
    elsewhere = {name: Elsewhere(tensor) for name, tensor in batch.items()}
    assert sharpness(point(), quadratic, [elsewhere], RADIUS) == sharpness(point(), quadratic, [batch], RADIUS)


# --- what it leaves behind


def failing_at(call):
    calls = iter(range(100))

    def loss(model, batch):
        assert not any(module.training for module in model.modules())
        value = cross_entropy(model, batch)
        if next(calls) == call:
            raise ZeroDivisionError
        return value

    return loss


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("call", [None, 2, 3], ids=["sound", "fails at the weights", "fails beside them"])
def test_it_leaves_the_model_as_it_was(family, tied, call):
    model = language_model(family, W4A8G8, tied)
    cross_entropy(model, token_batches()[0]).backward()
    model.get_input_embeddings().eval()  # one part in another mode than the rest
    parameters = dict(model.named_parameters(remove_duplicate=False))
    values = {name: (p.detach().clone(), p.grad.clone()) for name, p in parameters.items()}
    memory = {name: (p.data_ptr(), p.grad.data_ptr()) for name, p in parameters.items()}
    modes = [module.training for module in model.modules()]
    if call is None:
        sharpness(model, failing_at(call), token_batches(), RADIUS)
    else:
        with pytest.raises(ZeroDivisionError):
            sharpness(model, failing_at(call), token_batches(), RADIUS)
    assert [module.training for module in model.modules()] == modes
    after = dict(model.named_parameters(remove_duplicate=False))
    assert list(after) == list(parameters)
    for name, parameter in after.items():
        assert parameter is parameters[name], name
        assert parameter.requires_grad, name
        assert (parameter.data_ptr(), parameter.grad.data_ptr()) == memory[name], name
        assert torch.equal(parameter, values[name][0]), name
        assert torch.equal(parameter.grad, values[name][1]), name


# --- refusals


@pytest.mark.parametrize("radius", [0.0, -1.0, math.nan, math.inf])
def test_a_radius_that_goes_nowhere_is_refused(radius):
    with pytest.raises(ValueError, match=r"radius is .*positive and finite"):
        sharpness(point(), quadratic, [quadratic_batch(0)], radius)


def test_no_batches_are_refused():
    with pytest.raises(ValueError, match="at least one batch"):
        sharpness(point(), quadratic, [], RADIUS)


def test_a_frozen_model_is_refused():
    with pytest.raises(ValueError, match="Point has no trainable parameter"):
        sharpness(point().requires_grad_(False), quadratic, [quadratic_batch(0)], RADIUS)


def test_half_precision_is_refused_as_it_would_swallow_the_step():
    with pytest.raises(ValueError, match=r"torch\.bfloat16 .*float32"):
        sharpness(point().bfloat16(), quadratic, [quadratic_batch(0)], RADIUS)


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_a_gradient_that_is_zero_or_not_finite_raises(value):
    batches = [quadratic_batch(0), {name: tensor * value for name, tensor in quadratic_batch(1).items()}]
    with pytest.raises(RuntimeError, match=r"gradient has norm (0\.0|nan|inf)"):
        sharpness(point(), quadratic, batches, RADIUS)


def test_a_loss_that_is_not_finite_beside_the_weights_raises():
    def cliff(model, batch):
        return -(1 + 1e-6 + batch["edge"] - model.place()[0]).log()

    model = point()
    with pytest.raises(RuntimeError, match=r"loss is nan at distance 0\.05"):
        sharpness(model, cliff, [{"edge": model.first[0].detach() - 1}], RADIUS)
