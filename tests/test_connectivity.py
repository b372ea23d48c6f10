"""Barriers, volumes and traces against closed forms on quadratics; matching and rescalings against networks."""

import copy
import math
from itertools import combinations, pairwise, permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from common.connectivity import (
    barrier_matrix,
    barriers,
    canonical,
    connected,
    edge_spectrum,
    flatten,
    hessian_trace,
    line_losses,
    log_volume,
    losses_of,
    match,
    permuted,
    unflatten,
)
from common.errors import UserError
from common.units import interchangeable
from expanding import exact_norms, gpt2, ids, llama, mlp


def language_loss(model, batch):
    """Next-token loss in the model's own precision."""
    ids = batch["input_ids"]
    return nn.functional.cross_entropy(model(input_ids=ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def quadratic(size=4, seed=0):
    """A symmetric matrix of both signs, a slope, and the losses ½xᵀHx + bᵀx of rows."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(size, size))
    hessian, slope = torch.from_numpy(root + root.T), torch.from_numpy(rng.normal(size=size))
    return hessian, slope, lambda rows: 0.5 * torch.einsum("pi,ij,pj->p", rows, hessian, rows) + rows @ slope


@given(st.integers(0, 10**6))
def test_the_barrier_of_a_quadratic_is_an_eighth_of_its_negative_curvature(seed):
    hessian, _, losses = quadratic(seed=seed)
    first, second = torch.from_numpy(np.random.default_rng(seed + 1).normal(size=(2, 5, 4)))
    step = second - first
    expected = (-torch.einsum("pi,ij,pj->p", step, hessian, step) / 8).clamp(min=0)
    torch.testing.assert_close(barriers(losses, first, second, points=5), expected)
    matrix = barrier_matrix(losses, torch.cat([first, second]), points=5)
    torch.testing.assert_close(matrix, matrix.T)
    torch.testing.assert_close(matrix[range(5), range(5, 10)], expected)
    assert (matrix.diagonal() == 0).all()


def test_the_line_goes_from_the_first_to_the_second():
    _, _, losses = quadratic()
    first, second = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = line_losses(losses, first, second, torch.tensor([0.0, 0.25, 1.0]))
    torch.testing.assert_close(found[:, 0], losses(first))
    torch.testing.assert_close(found[:, 1], losses(0.75 * first + 0.25 * second))
    torch.testing.assert_close(found[:, 2], losses(second))


def test_a_barrier_needs_points_between_and_finite_losses():
    here = torch.zeros(1, 4, dtype=torch.float64)
    with pytest.raises(ValueError, match="points is 2"):
        barriers(lambda rows: rows.sum(1), here, here + 1, points=2)
    with pytest.raises(RuntimeError, match="not finite"):
        barriers(lambda rows: rows.sum(1) / 0 * 0, here, here + 1)


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 7))
def test_the_connected_minima_are_the_largest_set_by_trying_all(seed, count):
    heights = torch.from_numpy(np.random.default_rng(seed).random((count, count)))
    matrix = (heights + heights.T) / 2
    matrix.fill_diagonal_(0)
    sets = [
        chosen
        for size in range(count, 0, -1)
        for chosen in combinations(range(count), size)
        if all(matrix[i, j] <= 0.5 for i, j in combinations(chosen, 2))
    ]
    assert tuple(connected(matrix, 0.5).tolist()) == sets[0]


def test_losses_of_many_weights_are_those_of_each(monkeypatch):
    exact_norms(monkeypatch)
    for model in (llama(), gpt2()):
        batch = {"input_ids": ids()}
        vectors = torch.stack([flatten(model) * scale for scale in (1.0, 0.9, 1.1, 1.2)])
        model.train()
        found = losses_of(model, language_loss, batch, at_once=3)(vectors)
        assert model.training
        before = flatten(model)
        other = copy.deepcopy(model).eval()
        for vector, value in zip(vectors, found, strict=True):
            with torch.no_grad():
                for name, tensor in unflatten(model, vector).items():
                    other.get_parameter(name).copy_(tensor)
                assert value.item() == pytest.approx(language_loss(other, batch).item(), rel=1e-9)
        assert torch.equal(before, flatten(model))
    with pytest.raises(ValueError, match="vectors have 3 entries"):
        unflatten(model, torch.zeros(2, 3))


@given(st.integers(0, 10**6), st.integers(1, 5))
def test_the_volume_of_a_simplex_is_that_of_its_edges_determinant(seed, count):
    points = torch.from_numpy(np.random.default_rng(seed).normal(size=(count + 1, count)))
    volume = torch.linalg.det(points[1:] - points[0]).abs() / math.factorial(count)
    assert log_volume(points) == pytest.approx(math.log(volume), abs=1e-6)
    # In a larger space, and wherever it lies.
    wide = torch.cat([points, torch.ones(count + 1, 3)], dim=1) + 7
    assert log_volume(wide) == pytest.approx(math.log(volume), abs=1e-6)


def test_regular_simplices_have_their_known_volume_and_flat_ones_none():
    for count in range(1, 7):  # the standard simplex with edges √2
        assert log_volume(torch.eye(count + 1)) == pytest.approx(
            0.5 * math.log(count + 1) - math.lgamma(count + 1), abs=1e-9
        )
    torch.testing.assert_close(edge_spectrum(torch.eye(4)), torch.ones(3, dtype=torch.float64))
    assert log_volume(torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])) < -15
    with pytest.raises(ValueError, match="1 points span nothing"):
        log_volume(torch.zeros(1, 3))


class Quadratic(nn.Module):
    def __init__(self, hessian):
        super().__init__()
        self.weight, self.hessian = nn.Parameter(torch.ones(len(hessian), dtype=torch.float64)), hessian

    def forward(self):
        return 0.5 * self.weight @ self.hessian @ self.weight


def test_the_trace_of_a_diagonal_hessian_is_exact_and_of_another_on_average():
    spectrum = torch.tensor([3.0, -1.0, 0.5], dtype=torch.float64)
    model = Quadratic(torch.diag(spectrum))
    assert hessian_trace(model, lambda m, _: m(), {}, samples=1) == pytest.approx(2.5)
    hessian, _, _ = quadratic()
    found = hessian_trace(Quadratic(hessian), lambda m, _: m(), {}, samples=500)
    spread = math.sqrt(2 * (hessian**2).sum().item() / 500)
    assert abs(found - hessian.trace().item()) < 4 * spread
    assert hessian_trace(model, lambda m, _: m.weight.sum(), {}, samples=2) == 0
    with pytest.raises(ValueError, match="samples is 0"):
        hessian_trace(model, lambda m, _: m(), {}, samples=0)


def test_the_trace_of_a_language_models_loss_is_that_of_finite_differences(monkeypatch):
    exact_norms(monkeypatch)
    model = llama(hidden_size=4, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1, intermediate_size=2)
    model.requires_grad_(False)
    weight = model.model.layers[0].self_attn.q_proj.weight.requires_grad_(True)
    batch, total, step = {"input_ids": ids()}, 0.0, 1e-4
    with torch.no_grad():
        here = language_loss(model, batch).item()
        for place in range(weight.numel()):
            sides = []
            for sign in (1, -1):
                weight.view(-1)[place] += sign * step
                sides.append(language_loss(model, batch).item())
                weight.view(-1)[place] -= sign * step
            total += (sum(sides) - 2 * here) / step**2
    found = [hessian_trace(model, language_loss, batch, samples=1, seed=seed) for seed in range(60)]
    assert np.mean(found) == pytest.approx(total, abs=4 * np.std(found) / math.sqrt(60))


def shuffled(model, seed=0):
    """The same function with its units in another order; query heads stay with their keys and values."""
    generator = torch.Generator().manual_seed(seed)
    sizes = interchangeable(model)
    order = {group: torch.randperm(count, generator=generator) for group, (count, _) in sizes.items()}
    for group in sizes:
        if group.startswith("q."):
            keys = order[group.replace("q.", "kv.")]
            shared = sizes[group][0] // len(keys)
            order[group] = torch.cat([key * shared + torch.randperm(shared, generator=generator) for key in keys])
    return permuted(model, order)


def classify(model, batch):
    return nn.functional.cross_entropy(model(batch["inputs"]), batch["labels"])


@pytest.mark.parametrize(
    "kind",
    [llama, lambda: llama(tied=True, num_attention_heads=6, num_key_value_heads=2), gpt2, lambda: gpt2(tied=False)],
)
def test_matching_a_permuted_language_model_removes_the_barrier(kind, monkeypatch):
    exact_norms(monkeypatch)
    model = kind()
    other = shuffled(model)
    batch = {"input_ids": ids()}
    torch.testing.assert_close(other(**batch).logits, model(**batch).logits)
    favourite = model(**batch).logits.argmax(-1)

    def its_own(each, batch):
        """A loss in which the model itself is good."""
        return nn.functional.cross_entropy(each(**batch).logits.flatten(0, 1), favourite.flatten())

    losses = losses_of(model, its_own, batch)
    here = flatten(model)[None]
    assert barriers(losses, here, flatten(other)[None]).item() > 0.01
    back = permuted(other, match(model, other))
    assert torch.equal(flatten(back), flatten(model))
    assert barriers(losses, here, flatten(back)[None]).item() == 0


def test_matching_a_permuted_mlp_removes_the_barrier_also_after_noise():
    model = mlp(6, 12, 10, 8, 3)
    generator = torch.Generator().manual_seed(1)
    batch = {"inputs": torch.randn(64, 6, generator=generator, dtype=torch.float64)}
    batch["labels"] = model(batch["inputs"]).argmax(1)
    other = shuffled(model)
    losses = losses_of(model, classify, batch)
    height = barriers(losses, flatten(model)[None], flatten(other)[None]).item()
    assert height > 0.001
    assert torch.equal(flatten(permuted(other, match(model, other))), flatten(model))
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64), alpha=0.02)
    back = permuted(other, match(model, other))
    torch.testing.assert_close(back(batch["inputs"]), other(batch["inputs"]))
    assert barriers(losses, flatten(model)[None], flatten(back)[None]).item() < height / 10


def test_grouped_heads_are_matched_as_trying_all_orders_finds():
    """Two layers' worth of unrelated weights: the best of all orders of keys and of the queries of each."""
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = llama(**sizes)
    other = llama(**sizes)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def product(order):
        return (flatten(model) * flatten(permuted(other, order))).sum().item()

    found = match(model, other)
    tried = []
    for keys in permutations(range(2)):
        for first in permutations(range(2)):
            for second in permutations(range(2)):
                inner = {0: first, 1: second}
                queries = torch.tensor([key * 2 + place for key in keys for place in inner[key]])
                tried.append(product(found | {"kv.0": torch.tensor(keys), "q.0": queries}))
    assert len(set(tried)) == 8
    assert product(found) == pytest.approx(max(tried))


def test_models_of_other_shapes_are_not_matched():
    with pytest.raises(ValueError, match="differ in the shape"):
        match(mlp(3, 4, 2), mlp(3, 5, 2))


def rescaled(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    other = copy.deepcopy(model)
    layers = [module for module in other if isinstance(module, nn.Linear)]
    with torch.no_grad():
        for layer, reader in pairwise(layers):
            scale = torch.exp(torch.randn(layer.out_features, generator=generator, dtype=torch.float64))
            layer.weight.mul_(scale[:, None])
            layer.bias.mul_(scale)
            reader.weight.div_(scale)
    return other


def test_a_rescaled_mlp_has_the_same_canonical_form_which_computes_the_same():
    model = mlp(6, 12, 10, 3)
    with torch.no_grad():
        model[2].weight[:, 3] = 0  # a unit that nothing reads yet
    inputs = torch.randn(20, 6, dtype=torch.float64)
    first, second = canonical(model), canonical(rescaled(model))
    assert (flatten(model) - flatten(rescaled(model))).norm() > 1
    torch.testing.assert_close(flatten(first), flatten(second))
    torch.testing.assert_close(first(inputs), model(inputs))
    norms = [first[place].weight.norm(dim=1) for place in (0, 2, 4)]
    torch.testing.assert_close(norms[0], norms[2].mean().expand(12))
    torch.testing.assert_close(norms[1], norms[2].mean().expand(10))
    assert torch.equal(flatten(model), flatten(mlp(6, 12, 10, 3))) is False
    with pytest.raises(UserError, match="Tanh has no rescalings"):
        canonical(mlp(3, 4, 2, activation=nn.Tanh))


@pytest.mark.parametrize("kind", [llama, lambda: llama(tied=True), gpt2, lambda: gpt2(tied=False)])
def test_gains_that_their_readers_undo_do_not_change_the_canonical_form(kind, monkeypatch):
    exact_norms(monkeypatch)
    model, other = kind(), kind()
    generator = torch.Generator().manual_seed(0)
    blocks = other.model.layers if hasattr(other, "model") else other.transformer.h
    with torch.no_grad():
        for block in blocks:
            scale = torch.exp(torch.randn(model.config.hidden_size, generator=generator, dtype=torch.float64))
            if hasattr(block, "ln_2"):
                for part in (block.ln_2.weight, block.ln_2.bias):
                    part.mul_(scale)
                block.mlp.c_fc.weight.div_(scale[:, None])
            else:
                block.post_attention_layernorm.weight.mul_(scale)
                for layer in (block.mlp.gate_proj, block.mlp.up_proj):
                    layer.weight.div_(scale)
    torch.testing.assert_close(model(input_ids=ids()).logits, other(input_ids=ids()).logits)
    first, second = canonical(model), canonical(other)
    assert (flatten(model) - flatten(other)).norm() > 1
    torch.testing.assert_close(flatten(first), flatten(second))
    torch.testing.assert_close(first(input_ids=ids()).logits, model(input_ids=ids()).logits)
