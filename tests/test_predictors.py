"""The manifold's sizes and their rivals against closed forms, and what they must not depend on."""

import copy
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from common.connectivity import flatten, log_volume, permuted
from common.predictors import (
    Walk,
    continuations,
    gradient_norm,
    loss_before,
    measure,
    naswot,
    reach,
    reach_size,
    short_run,
    simplex_size,
    sized,
    snip,
    synflow,
    volume_per_function,
)
from expanding import exact_norms, gpt2, ids, llama, mlp

COUNT, WEIGHTS, PROBES, CLASSES = 4, 30, 5, 3


def classify(model, batch):
    return nn.functional.cross_entropy(model(batch["inputs"]), batch["labels"])


def tokens_loss(model, batch):
    logits = model(input_ids=batch["input_ids"]).logits[:, :-1]
    return nn.functional.cross_entropy(logits.flatten(0, 1), batch["input_ids"][:, 1:].flatten())


def images(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "inputs": torch.randn(count, 6, generator=generator, dtype=torch.float64),
        "labels": torch.randint(3, (count,), generator=generator),
    }


def batches(number):
    return lambda step: images(16, seed=1000 * number + step)


def regular():
    """Minima at right angles and equal distance from the start, and outputs at right angles to each other."""
    start = torch.arange(WEIGHTS, dtype=torch.float64)
    minima = start + 0.5 * torch.eye(COUNT, WEIGHTS, dtype=torch.float64)
    outputs = torch.zeros(COUNT, PROBES, CLASSES, dtype=torch.float64)
    for place in range(COUNT):
        outputs[place, place, 0], outputs[place, place, 1] = 2.0, -2.0
    return start, minima, outputs


def test_sizes_of_a_regular_simplex_are_their_formulas():
    start, minima, outputs = regular()
    norm = math.log(start.norm())
    losses = torch.tensor([0.1, 0.2, 0.3, 0.4])
    functions = math.log(math.sqrt(8) / math.sqrt(PROBES))
    expected = math.log(0.5) - norm - functions - math.log(0.25)
    assert volume_per_function(start, minima, outputs, losses) == pytest.approx(expected)
    assert simplex_size(start, minima) == pytest.approx(math.log(0.5) - norm)
    distances = torch.tensor([1.0, 2.0, 3.0, 0.5], dtype=torch.float64)
    assert reach_size(start, minima, distances) == pytest.approx(math.log(0.5) + math.log(3) / 4 - norm)


def test_the_simplex_is_that_of_the_volume():
    rng = np.random.default_rng(0)
    start, minima = torch.from_numpy(rng.normal(size=WEIGHTS)), torch.from_numpy(rng.normal(size=(COUNT, WEIGHTS)))
    volume = (log_volume(minima) + math.lgamma(COUNT) - 0.5 * math.log(COUNT)) / (COUNT - 1)
    assert simplex_size(start, minima) == pytest.approx(volume - math.log(start.norm()))


def test_m_does_not_depend_on_units_directions_and_what_a_softmax_does_not_see():
    rng = np.random.default_rng(0)
    start, minima, outputs = (
        torch.from_numpy(rng.normal(size=size)) for size in ((WEIGHTS,), (COUNT, WEIGHTS), (COUNT, PROBES, CLASSES))
    )
    losses = torch.ones(COUNT)
    found = volume_per_function(start, minima, outputs, losses)
    turn = torch.linalg.qr(torch.from_numpy(rng.normal(size=(WEIGHTS, WEIGHTS)))).Q
    constant = torch.from_numpy(rng.normal(size=(COUNT, PROBES, 1)))
    assert volume_per_function(3 * start @ turn, 3 * minima @ turn, outputs + constant, losses) == pytest.approx(found)
    shared = torch.from_numpy(rng.normal(size=(1, PROBES, CLASSES)))
    assert volume_per_function(start, minima, outputs + shared, losses) == pytest.approx(found)
    # A wider spread in weights counts for, one in functions and a higher loss against.
    wider = start + math.e * (minima - start)
    assert volume_per_function(start, wider, outputs, losses) == pytest.approx(found + 1)
    assert volume_per_function(start, minima, math.e * outputs, losses) == pytest.approx(found - 1)
    assert volume_per_function(start, minima, outputs, math.e * losses) == pytest.approx(found - 1)


def test_minima_that_coincide_have_no_size():
    start, minima, outputs = regular()
    minima[1] = minima[0]
    for size in (
        lambda: simplex_size(start, minima),
        lambda: volume_per_function(start, minima, outputs, torch.ones(COUNT)),
        lambda: reach_size(start, minima, torch.ones(COUNT)),
    ):
        with pytest.raises(RuntimeError, match="two of them coincide"):
            size()


def test_the_reach_in_a_bowl_is_where_it_has_risen_by_the_tolerance():
    start = torch.zeros(3, dtype=torch.float64)
    minima = torch.diag(torch.tensor([0.5, 0.2, 0.01], dtype=torch.float64))

    def losses(rows):
        return 0.5 * rows.square().sum(1)

    found = reach(losses, start, minima, tolerance=0.02)
    assert found.tolist() == pytest.approx([0.4, 1.0, 3.0], abs=0.003)


def rescaled(model):
    other, generator = copy.deepcopy(model), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer, reader in pairwise([module for module in other if isinstance(module, nn.Linear)]):
            scale = torch.exp(torch.randn(layer.out_features, generator=generator, dtype=torch.float64))
            layer.weight.mul_(scale[:, None])
            layer.bias.mul_(scale)
            reader.weight.div_(scale)
    return other


def test_rescaling_relu_units_does_not_change_the_manifold():
    model, judged, walk = mlp(6, 8, 8, 3), images(64, seed=7), Walk(steps=10, learning_rate=1e-2)
    first, second = (
        measure(each, classify, batches, judged, lambda m: m(judged["inputs"]), walk)
        for each in (model, rescaled(model))
    )
    for name in ("m", "m_c", "loss", "level", "barrier", "connected"):
        assert getattr(first, name) == pytest.approx(getattr(second, name), rel=1e-6, abs=1e-9), name
    # The control: without the canonical form the continuations go elsewhere.
    ends = [flatten(continuations(each, classify, batches, walk)[0]) for each in (model, rescaled(model))]
    assert (ends[0] - ends[1]).norm() > 1


def test_rescaling_norms_does_not_change_the_manifold_of_a_llama(monkeypatch):
    exact_norms(monkeypatch)
    model, other = llama(num_hidden_layers=1), llama(num_hidden_layers=1)
    block, generator = other.model.layers[0], torch.Generator().manual_seed(0)
    scale = torch.exp(torch.randn(24, generator=generator, dtype=torch.float64))
    with torch.no_grad():
        block.input_layernorm.weight.mul_(scale)
        for layer in (block.self_attn.q_proj, block.self_attn.k_proj, block.self_attn.v_proj):
            layer.weight.div_(scale)
        other.model.norm.weight.mul_(scale)
        other.lm_head.weight.div_(scale)
    judged = {"input_ids": ids()}
    found = [
        measure(
            each,
            tokens_loss,
            lambda number: lambda step: {"input_ids": ids(seed=100 * number + step)},
            judged,
            lambda m: m(**judged).logits[:, -1],
            Walk(count=3, steps=4, learning_rate=1e-3),
        )
        for each in (model, other)
    ]
    assert found[0].m == pytest.approx(found[1].m, rel=1e-6)
    assert found[0].m_c == pytest.approx(found[1].m_c, rel=1e-6)


def test_continuations_start_from_the_model_and_leave_it():
    model = mlp(6, 8, 3)
    before = flatten(model)
    ends = continuations(model, classify, batches, Walk(count=3, steps=5, learning_rate=1e-3))
    assert torch.equal(flatten(model), before)
    moved = [(flatten(end) - before).abs().max().item() for end in ends]
    assert all(0 < distance < 6e-3 for distance in moved)
    assert len({round(distance, 12) for distance in moved}) == 3
    [step] = continuations(model, classify, batches, Walk(count=1, steps=1, learning_rate=1e-3))
    # Adam's first step has the learning rate's size and the gradient's direction.
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(classify(model, batches(0)(0)), model.parameters())])
    torch.testing.assert_close(flatten(step) - before, -1e-3 * gradient.sign(), rtol=1e-3, atol=1e-9)
    [warmed] = continuations(model, classify, batches, Walk(count=1, steps=1, learning_rate=1e-3, warmup=4))
    torch.testing.assert_close(flatten(warmed) - before, (flatten(step) - before) / 4, rtol=1e-3, atol=1e-9)


def test_a_barrier_between_minima_counts_against_their_level():
    model, judged = mlp(6, 8, 3), images(64, seed=7)
    ends = continuations(model, classify, batches, Walk(count=3, steps=30, learning_rate=1e-2))
    order = {"units.0": torch.arange(8).flip(0)}
    # The same functions, hence the same losses at the minima; on the lines between them units get mixed up.
    apart = [*ends[:2], permuted(ends[2], order)]
    found, barred = (
        sized(model, each, classify, judged, lambda m: m(judged["inputs"]), 0.01) for each in (ends, apart)
    )
    assert barred.barrier > 0.01 > found.barrier
    assert barred.level < found.level
    assert barred.connected < 1
    # Of both the size is what its parts say.
    functions = torch.stack([end(judged["inputs"]).detach() for end in ends])
    minima = torch.stack([flatten(end) for end in apart])
    lines = torch.tensor([math.exp(-barred.level)])
    assert barred.m == pytest.approx(volume_per_function(flatten(model), minima, functions, lines))


def linear(*shapes, scale=1.0):
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape) * scale for shape in shapes]
    layers = []
    for weight in weights:
        layer = nn.Linear(*weight.shape[::-1], bias=False).double()
        layer.weight.data = torch.from_numpy(weight)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1]), weights


def test_gradients_and_snip_are_those_of_linear_regression():
    model, [weight] = linear((3, 6))
    batch = images(20)
    x, y = batch["inputs"].numpy(), np.eye(3)[batch["labels"]]

    def squares(model, batch):
        return (model(batch["inputs"]) - torch.from_numpy(y)).square().sum() / 2

    gradient = (x @ weight.T - y).T @ x
    assert gradient_norm(model, squares, batch) == pytest.approx(np.linalg.norm(gradient))
    assert snip(model, squares, batch) == pytest.approx(np.abs(weight * gradient).sum())
    assert loss_before(model, squares, batch) == pytest.approx(((x @ weight.T - y) ** 2).sum() / 2)
    assert all(parameter.grad is None for parameter in model.parameters())
    with pytest.raises(RuntimeError, match="the loss is nan"):
        loss_before(model, lambda m, b: squares(m, b) * float("nan"), batch)


def test_synflow_counts_the_flow_once_a_layer_and_sees_no_signs():
    model, weights = linear((4, 6), (5, 4), (3, 5))
    flow = np.ones(6)
    for weight in weights:
        flow = np.abs(weight) @ flow
    assert synflow(model) == pytest.approx(math.log(3 * flow.sum()))
    before = flatten(model)
    assert torch.equal(flatten(model), before)
    assert synflow(llama()) == pytest.approx(synflow(shifted_sign(llama())))
    assert math.isfinite(synflow(gpt2()))


def shifted_sign(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.neg_()
    return model


def test_naswot_is_the_determinant_of_agreements():
    model, inputs = mlp(6, 7, 5, 3), images(9)["inputs"]
    with torch.no_grad():
        first = model[0](inputs)
        codes = torch.cat([first > 0, model[2](first.relu()) > 0], dim=1).numpy()
    kernel = np.array([[(a == b).sum() / 12 for b in codes] for a in codes])
    found = naswot(model, lambda m: m(inputs))
    assert found == pytest.approx(np.linalg.slogdet(kernel + 1e-3 * np.eye(9))[1])
    same = naswot(model, lambda m: m(inputs[:1].expand(9, -1)))
    assert same == pytest.approx(math.log(9 + 1e-3) + 8 * math.log(1e-3))
    assert found > same + 1
    for kind in (llama, gpt2):
        assert math.isfinite(naswot(kind(), lambda m: m(input_ids=ids())))
    with pytest.raises(ValueError, match="no rectified units"):
        naswot(mlp(3, 4, 2, activation=nn.Tanh), lambda m: m(torch.zeros(2, 3, dtype=torch.float64)))


def test_a_shared_activation_counts_each_time_it_is_used():
    layers, activation = [nn.Linear(6, 5), nn.Linear(5, 4), nn.Linear(4, 2)], nn.ReLU()
    shared = nn.Sequential(layers[0], activation, layers[1], activation, layers[2]).double()
    apart = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2]).double()
    inputs = images(6)["inputs"]
    assert naswot(shared, lambda m: m(inputs)) == naswot(apart, lambda m: m(inputs))


def test_a_short_run_trains_a_copy_and_promises_its_loss():
    model, judged = mlp(6, 8, 3), images(64, seed=7)

    def steady(step):
        return judged

    def evaluate(model):
        return classify(model, judged).item()

    before = flatten(model)
    promises = [short_run(model, classify, steady, evaluate, steps=steps, learning_rate=3e-3) for steps in (1, 20, 60)]
    assert torch.equal(flatten(model), before)
    assert promises[0] < promises[1] < promises[2] < 0
