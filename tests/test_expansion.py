"""Expanded networks compute what they say they do, have the parameters they should, and train on."""

import copy
import re
from itertools import pairwise, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from common.errors import UserError
from common.expansion import (
    DEPTHS,
    WIDTHS,
    carry_moments,
    deeper,
    expand,
    expand_mlp,
    parameters_at,
    sizes_of,
    sizes_with,
)
from common.expansion.growth import FRESH
from common.models import parameter_count
from common.training import adamw, language_loss
from expanding import exact_norms, gpt2, gradients, ids, llama, mlp

MODELS = {
    "llama": llama,
    "tied llama": lambda **more: llama(tied=True, **more),
    "llama without biases": lambda **more: llama(biases=False, **more),
    "gpt2": gpt2,
    "untied gpt2": lambda **more: gpt2(tied=False, **more),
}
COPIES = [name for name, how in WIDTHS.items() if how.draw and how.preserves]
SIZES = {
    "llama": [
        {"hidden": 48},
        {"hidden": 28, "ff": 10, "heads": 4},
        {"ff": 23},
        {"heads": 8},
        {"heads": 8, "kv_heads": 2},
        {"heads": 12, "kv_heads": 3},
        {"layers": 5},
        {"hidden": 30, "ff": 17, "heads": 6, "layers": 3},
    ],
    "gpt2": [{"hidden": 24}, {"hidden": 20, "ff": 50}, {"ff": 61}, {"layers": 5}, {"hidden": 36, "layers": 3}],
}


def cases():
    return [(name, to) for name in MODELS for to in SIZES["gpt2" if "gpt2" in name else "llama"]]


def moved(old, new):
    """Largest difference of a logit."""
    with torch.no_grad():
        return (old(input_ids=ids()).logits - new(input_ids=ids()).logits).abs().max().item()


@pytest.mark.parametrize(("name", "to"), cases())
def test_the_function_is_preserved_exactly_where_an_expansion_says_so(name, to, monkeypatch):
    exact_norms(monkeypatch)
    model = MODELS[name]()
    before = copy.deepcopy(model.state_dict())
    for width, depth in product(WIDTHS, DEPTHS) if "layers" in to else product(WIDTHS, ["identity"]):
        grown = expand(model, to, width=width, depth=depth)
        change = moved(model, grown.model)
        assert change < 1e-12 if grown.preserves else change > 1e-3, (width, depth, change)
        assert parameter_count(grown.model) == parameters_at(grown.model.config, sizes_of(grown.model.config))
        assert {n: getattr(sizes_of(grown.model.config), n) for n in to} == to
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", MODELS)
def test_in_single_precision_logits_stay_within_a_hundred_thousandth(name):
    model = MODELS[name](dtype=torch.float32)
    for width in (*COPIES, "zero"):
        grown = expand(model, {"hidden": 48, "layers": 4}, width=width)
        assert grown.preserves
        assert grown.model.dtype == torch.float32
        assert moved(model, grown.model) < 1e-5 * model(input_ids=ids()).logits.std().item()


def test_what_preserves_is_known():
    """Of the ways to widen all but noise, AKI and random ones; of those to deepen the identity alone."""
    for kind, width, depth in product((llama, gpt2), WIDTHS, DEPTHS):
        wide = expand(kind(), {"ff": 60, "layers": 3}, width=width, depth=depth).preserves
        assert wide == (width in {"net2wider", "fpi", "zero"} and depth == "identity")
    # LayerNorm subtracts a mean, which copies change unless all are equally many.
    assert expand(gpt2(), {"hidden": 24}).preserves
    assert not expand(gpt2(), {"hidden": 20, "ff": 80}).preserves
    assert expand(gpt2(), {"hidden": 20, "ff": 80}, width="zero").preserves
    assert expand(llama(), {"hidden": 28, "ff": 10, "heads": 4}).preserves


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(st.integers(1, 4), st.integers(10, 25), st.integers(1, 4), st.integers(1, 3)),
    st.sampled_from(["net2wider", "fpi", "zero"]),
    st.booleans(),
    st.integers(0, 99),
)
def test_any_sizes_preserve_a_llama(sizes, width, tied, seed):
    more, ff, groups, each = sizes
    heads = 4 * groups * each
    to = {"hidden": heads * (24 // heads + more), "ff": ff, "kv_heads": 2 * groups, "heads": heads}
    model = llama(tied=tied)
    with pytest.MonkeyPatch.context() as patch:
        exact_norms(patch)
        grown = expand(model, to, width=width, seed=seed)
        assert grown.preserves
        assert moved(model, grown.model) < 1e-12


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("width", COPIES)
def test_gradients_and_so_moments_are_those_of_the_expanded_model(name, width, monkeypatch):
    """The mapped gradient of the old model against the expanded model's own, and its square as a second moment."""
    exact_norms(monkeypatch)
    model = MODELS[name]()
    to = {"hidden": 24, "ff": 70} if "gpt2" in name else {"hidden": 40, "ff": 23, "heads": 8}
    grown = expand(model, to, width=width)
    old, new = gradients(model, ids()), gradients(grown.model, ids())
    for power in (1, 2):
        mapped = grown.plan.moments({key: tensor**power for key, tensor in old.items()}, power)
        for key, tensor in new.items():
            torch.testing.assert_close(mapped[key], tensor**power, rtol=1e-9, atol=1e-13, msg=key)


@pytest.mark.parametrize("to", [{"heads": 8, "kv_heads": 2}, {"heads": 12, "kv_heads": 4}, {"heads": 6, "kv_heads": 3}])
def test_gradients_of_shared_keys_are_mapped(to, monkeypatch):
    exact_norms(monkeypatch)
    model = llama()
    for seed in range(4):
        grown = expand(model, to, seed=seed)
        mapped, new = grown.plan.moments(gradients(model, ids()), 1), gradients(grown.model, ids())
        for key, tensor in new.items():
            torch.testing.assert_close(mapped[key], tensor, rtol=1e-9, atol=1e-13)


def trained(model, steps=12, optimizer=None, rate=3e-3):
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=rate)
    losses = []
    for step in range(steps):
        loss = language_loss(model, {"input_ids": ids(seed=step % 2)})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, optimizer


def twins(growth, tensor, dim):
    """Pairs of slices of a tensor that are copies of one old unit."""
    places: dict[int, list[int]] = {}
    for place, unit in enumerate(growth.source.tolist()):
        places.setdefault(unit, []).append(place)
    return [
        (tensor.select(dim, a), tensor.select(dim, b)) for unit, each in places.items() if unit != FRESH
        for a, b in pairwise(each)
    ]  # fmt: skip


@pytest.mark.parametrize(("width", "same"), [("net2wider", True), ("fpi", True), ("copy_noise", False), ("aki", False)])
def test_copies_without_noise_never_part(width, same):
    """The control: copies get identical gradients, and stay copies however long one trains."""
    model = expand(llama(), {"ff": 25, "heads": 8, "hidden": 48}, width=width)
    trained(model.model)
    gate = model.model.model.layers[0].mlp.gate_proj.weight
    query = model.model.model.layers[0].self_attn.q_proj.weight
    for name, tensor, dim in (("ff.0", gate, 0), ("q.0", query, 0), ("normed", gate, 1)):
        pairs = twins(model.plan.growths[name], tensor, dim)
        assert len(pairs) > 8
        apart = max((a - b).abs().max().item() for a, b in pairs)
        assert apart < 1e-9 if same else apart > 1e-4, (name, apart)


@pytest.mark.parametrize("kind", [llama, gpt2])
def test_training_on_works_after_every_expansion(kind):
    for width, depth in [*product(WIDTHS, ["identity"]), *product(["net2wider"], DEPTHS)]:
        grown = expand(kind(dtype=torch.float32), {"hidden": 48, "layers": 3}, width=width, depth=depth).model
        losses, _ = trained(grown)
        assert losses[-2] < losses[0] - 0.1, (width, depth, losses)
        assert losses[-1] < losses[1] - 0.1
        assert all(parameter.isfinite().all() for parameter in grown.parameters())


def test_fresh_units_and_silent_layers_begin_to_count():
    for to, width, name, row in (
        ({"ff": 25}, "zero", "model.layers.0.mlp.down_proj.weight", False),
        ({"heads": 8}, "zero", "model.layers.0.self_attn.o_proj.weight", False),
        ({"hidden": 36, "ff": 10, "heads": 4}, "zero", "model.layers.0.mlp.down_proj.weight", True),
        ({"layers": 3}, "zero", "model.layers.1.mlp.down_proj.weight", None),
    ):
        model = expand(llama(), to, width=width).model
        weight = model.get_parameter(name)
        fresh = weight if row is None else weight[24:] if row else weight[:, 10 if "down" in name else 16 :]
        assert fresh.numel() > 0
        assert (fresh == 0).all()
        trained(model, steps=2)
        assert (fresh != 0).double().mean() > 0.9


def test_the_optimiser_goes_on_with_mapped_moments():
    model = llama()
    optimizer = adamw(model, weight_decay=0.0)
    trained(model, 5, optimizer)
    grown = expand(model, {"hidden": 48, "layers": 3}, width="fpi")
    fresh = adamw(grown.model, weight_decay=0.0)
    carry_moments(model, optimizer, grown, fresh)
    old = {name: optimizer.state[parameter] for name, parameter in model.named_parameters()}
    new = {name: fresh.state[parameter] for name, parameter in grown.model.named_parameters()}
    down, up = "model.layers.0.mlp.down_proj.weight", "model.layers.0.mlp.up_proj.weight"
    # Even copies, two of each: stream copies hand back half the gradient, feed-forward units give their whole value.
    half = old[down]["exp_avg"].repeat(2, 2) / 2
    torch.testing.assert_close(new[down]["exp_avg"], half)
    torch.testing.assert_close(new[up]["exp_avg_sq"], old[up]["exp_avg_sq"].repeat(2, 2) / 4)
    silent = [name for name in new if ".layers.1." in name]
    assert silent
    assert all((new[name][key] == 0).all() for name in silent for key in ("exp_avg", "exp_avg_sq"))
    assert all(state["step"] == 5 for state in new.values())
    losses, _ = trained(grown.model, 6, fresh)
    assert losses[-2] < losses[0]
    with pytest.raises(ValueError, match="no moments"):
        carry_moments(model, adamw(model, weight_decay=0.0), grown, fresh)
    with pytest.raises(ValueError, match="does not hold"):
        carry_moments(model, optimizer, grown, adamw(llama(), weight_decay=0.0))


def test_fresh_units_have_no_past():
    model = llama()
    grown = expand(model, {"ff": 25, "hidden": 28, "heads": 4}, width="zero")
    moments = grown.plan.moments({name: torch.ones_like(p) for name, p in model.named_parameters()}, 2)
    down = moments["model.layers.0.mlp.down_proj.weight"]
    assert down.shape == (28, 25)
    assert (down[:24, :10] > 0).all()
    assert (down[24:] == 0).all()
    assert (down[:, 10:] == 0).all()
    assert (moments["model.layers.0.input_layernorm.weight"][24:] == 0).all()


@pytest.mark.parametrize(
    ("how", "order"),
    [("stack", [0, 1, 2, 0, 1, 2, 0]), ("interpolate", [0, 0, 0, 1, 1, 2, 2]), ("identity", [0, 0, 0, 1, 1, 2, 2])],
)
def test_layers_come_in_the_order_of_their_method(how, order):
    model = llama(num_hidden_layers=3)
    grown = expand(model, {"layers": 7}, depth=how).model
    for place, source in enumerate(order):
        old, new = (m.state_dict() for m in (model.model.layers[source], grown.model.layers[place]))
        silent = how == "identity" and order.index(source) != place
        for name, tensor in old.items():
            writes = "o_proj" in name or "down_proj" in name
            assert torch.equal(new[name], torch.zeros_like(tensor) if silent and writes else tensor)


def test_random_layers_go_on_top():
    model = gpt2()
    grown = expand(model, {"layers": 4}, depth="random").model
    for place in range(2):
        assert torch.equal(grown.transformer.h[place].mlp.c_fc.weight, model.transformer.h[place].mlp.c_fc.weight)
    first, second = (grown.transformer.h[place].mlp.c_fc.weight for place in (2, 3))
    assert not torch.equal(first, second)
    assert first.std().item() == pytest.approx(model.transformer.h[1].mlp.c_fc.weight.std().item(), rel=0.2)
    assert (grown.transformer.h[3].ln_1.weight == 1).all()
    assert (grown.transformer.h[3].mlp.c_fc.bias == 0).all()


def test_aki_makes_copies_as_the_layer_above_does():
    model = llama()
    grown = expand(model, {"ff": 15, "hidden": 48, "heads": 8}, width="aki").model
    plain = expand(model, {"ff": 15, "hidden": 48, "heads": 8}, width="fpi").model
    old, new = (dict(m.named_parameters()) for m in (plain, grown))
    for name, first in (("mlp.up_proj.weight", 10), ("mlp.up_proj.bias", 10), ("self_attn.q_proj.weight", 16)):
        below, above = f"model.layers.0.{name}", f"model.layers.1.{name}"
        assert torch.equal(new[below][:first], old[below][:first])
        assert torch.equal(new[below][first:], old[above][first:])
        assert not torch.equal(new[below][first:], old[below][first:])
        assert torch.equal(new[above], old[above])  # nothing is above the last layer
    for name in ("model.norm.weight", "model.layers.0.input_layernorm.weight"):  # the stream has one scale throughout
        assert torch.equal(new[name], old[name])


def test_the_seed_decides_what_is_drawn_and_nothing_else_does():
    def weights(seed, width):
        return expand(llama(), {"ff": 30, "heads": 12}, width=width, seed=seed).model.state_dict()

    for width in ("net2wider", "zero", "copy_noise", "random"):
        model = llama()
        state = torch.get_rng_state()
        expand(model, {"ff": 30}, width=width)
        assert torch.equal(state, torch.get_rng_state())
        first = weights(0, width)
        torch.manual_seed(5)
        assert all(torch.equal(first[name], tensor) for name, tensor in weights(0, width).items())
        assert any(not torch.equal(first[name], tensor) for name, tensor in weights(1, width).items())


@pytest.mark.parametrize(
    ("kind", "to", "more", "said"),
    [
        (llama, {"hidden": 8}, {}, "hidden is 8, allowed: 24, which the model has, or more"),
        (llama, {"width": 24}, {}, "there is no size 'width', allowed: hidden, ff, heads, kv_heads, layers"),
        (llama, {"hidden": 24}, {}, "nothing grows"),
        (llama, {}, {}, "nothing grows"),
        (llama, {"hidden": 25}, {}, "ff would not be whole at hidden=25 of 24: name it too"),
        (llama, {"heads": 10}, {}, "heads is 10, allowed: divisors of hidden, which is 24"),
        (llama, {"heads": 7}, {}, "heads is 7 on kv_heads 2, allowed: a multiple"),
        (llama, {"kv_heads": 4}, {"width": "zero"}, "have no place for all of the old 4 on 2"),
        (llama, {"ff": True}, {}, "ff is True"),
        (llama, {"ff": 20.5}, {}, "ff is 20.5"),
        (gpt2, {"heads": 6}, {}, "hidden=12 needs heads=3, not 6"),
        (gpt2, {"heads": 5}, {}, "divisors of hidden"),
        (gpt2, {"hidden": 18, "ff": 50, "heads": 3}, {}, "hidden=18 needs heads=4.5, not 3"),
        (gpt2, {"hidden": 24, "kv_heads": 3}, {}, "kv_heads is 3, allowed in a GPT-2: its heads, which are 6"),
        (gpt2, {"ff": 60}, {"width": "wider"}, "no way to widen called 'wider', allowed: net2wider, copy_noise, fpi"),
        (gpt2, {"ff": 60}, {"depth": "deep"}, "no way to deepen called 'deep', allowed: identity, stack"),
        (gpt2, {"ff": 60}, {"noise": float("nan")}, "noise is nan, allowed: above 0"),
        (lambda: gpt2(scale_attn_by_inverse_layer_idx=True), {"layers": 3}, {}, "cannot be deepened"),
        (lambda: mlp(3, 4, 2), {"ff": 60}, {}, "Sequential is no language model: take expand_mlp"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(kind, to, more, said):
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        expand(kind(), to, **more)
    assert "\n" not in str(caught.value)


def test_all_sizes_of_one_parameter_count_are_found():
    config = llama(biases=False).config
    hidden, layers = [24, 36, 48], [2, 3, 4]
    target = parameters_at(config, sizes_of(expand(llama(biases=False), {"hidden": 36, "layers": 3}).model.config))
    found = sizes_with(config, target, hidden=hidden, layers=layers)
    assert {"hidden": 36, "ff": 15, "heads": 6, "kv_heads": 3, "layers": 3} in found
    for to in found:
        assert parameter_count(expand(llama(biases=False), to).model) == target
    with pytest.raises(UserError, match=r"has \d+ parameters; the nearest has \d+"):
        sizes_with(config, target + 1, hidden=[36], layers=[3])


@pytest.mark.parametrize(("width", "depth"), list(product(WIDTHS, DEPTHS)))
def test_a_sequential_grows_as_it_says(width, depth):
    model = mlp(5, 4, 4, 3)
    inputs = torch.randn(50, 5, dtype=torch.float64)
    grown = expand_mlp(model, [9, 9], width=width, layers=4, depth=depth)
    assert grown.preserves == (width in {"net2wider", "fpi", "zero"} and depth == "identity")
    change = (model(inputs) - grown.model(inputs)).abs().max()
    assert change < 1e-14 if grown.preserves else change > 1e-4
    sizes = [5, 9, 9, 9, 9, 3]
    assert parameter_count(grown.model) == sum((a + 1) * b for a, b in pairwise(sizes))


def test_a_sequentials_gradients_are_mapped():
    model = mlp(5, 4, 6, 3)
    inputs = torch.randn(50, 5, dtype=torch.float64)
    grown = expand_mlp(model, [7, 11])
    old, new = (
        dict(
            zip(
                dict(m.named_parameters()),
                torch.autograd.grad(m(inputs).square().sum(), list(m.parameters())),
                strict=True,
            )
        )
        for m in (model, grown.model)
    )
    for name, mapped in grown.plan.moments(old, 1).items():
        torch.testing.assert_close(mapped, new[name])


def test_a_sequential_of_one_hidden_layer_deepens_by_the_identity_alone():
    model = mlp(5, 4, 3)
    inputs = torch.randn(50, 5, dtype=torch.float64)
    grown = expand_mlp(model, [4], layers=3)
    assert grown.preserves
    assert (model(inputs) - grown.model(inputs)).abs().max() < 1e-14
    assert not expand_mlp(mlp(5, 4, 3, activation=nn.Tanh), [4], layers=2).preserves
    with pytest.raises(UserError, match="there is none"):
        expand_mlp(model, [4], layers=3, depth="stack")


@pytest.mark.parametrize(
    ("model", "widths", "more", "said"),
    [
        (mlp(5, 4, 3), [3], {}, "widths are [3], allowed: those of the hidden layers, [4], or more"),
        (mlp(5, 4, 3), [4, 4], {}, "allowed: those of the hidden layers"),
        (mlp(5, 4, 4, 3), [4, 4], {"layers": 1}, "layers is 1, allowed: 2"),
        (mlp(5, 4, 4, 3), [4, 5], {"layers": 3, "depth": "stack"}, "equal ones"),
        (mlp(5, 4, 3), [5], {"width": "x"}, "no way to grow 'x'"),
        (nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)), [4], {}, "one activation between each two"),
        (nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)), [4], {}, "BatchNorm1d, allowed"),
    ],
)
def test_a_sequential_that_does_not_fit_is_refused(model, widths, more, said):
    with pytest.raises(UserError, match=re.escape(said)):
        expand_mlp(model, widths, **more)


def test_deeper_networks_keep_every_layer():
    for old, new, how in product(range(1, 5), range(1, 13), DEPTHS):
        if new >= old:
            layers = deeper(old, new, how)
            assert len(layers) == new
            assert sorted({layer.source for layer in layers if layer.kind == "copy"}) == list(range(old))
