"""Merging methods against closed forms in float64, and what must hold of each whatever the tensors are."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.merging import METHODS, blocks, dare_linear, dare_ties, linear, mergealign, slerp, task_arithmetic, ties

SHAPE = (13, 11)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 64)  # so that tensors of a test have many, and a last one that is cut short


def values(count=3, seed=0, dtype=torch.float32):
    source = torch.Generator().manual_seed(seed)
    return [torch.randn(SHAPE, generator=source).to(dtype) for _ in range(count)]


def exact(tensors):
    return [tensor.double().numpy() for tensor in tensors]


def near(found, expected, tolerance=2e-6):
    np.testing.assert_allclose(found.double().numpy(), expected, rtol=tolerance, atol=tolerance)


def merged(method, tensors, **extra):
    """Any method with some parameters; `tensors` are three."""
    base, first, second = tensors
    return {
        "linear": lambda: linear(tensors, [0.5, 0.3, 0.9], **extra),
        "task_arithmetic": lambda: task_arithmetic(base, [first, second], [0.5, 0.3], **extra),
        "mergealign": lambda: mergealign(base, first, second, 0.6, **extra),
        "slerp": lambda: slerp(base, first, 0.3, **extra),
        "ties": lambda: ties(base, [first, second], [0.5, 0.3], 0.4, **extra),
        "dare_linear": lambda: dare_linear(base, [first, second], [0.5, 0.3], 0.4, **extra),
        "dare_ties": lambda: dare_ties(base, [first, second], [0.5, 0.3], 0.4, **extra),
    }[method]()


def angle(a, b):
    """By the half-angle form, which needs no arc cosine."""
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    return 2 * math.atan2(np.linalg.norm(a - b), np.linalg.norm(a + b))


def ties_of_paper(base, tensors, weights, densities, normalize=True):
    """TIES element by element, as the paper tells it, with numpy."""
    deltas = []
    for tensor, density in zip(tensors, densities, strict=True):
        delta = (tensor - base).ravel()
        order = np.argsort(-np.abs(delta))
        delta[order[max(1, int(density * delta.size)) :]] = 0
        deltas.append(delta)
    result = base.ravel().copy()
    for place in range(result.size):
        votes = [(weight * delta[place], weight) for delta, weight in zip(deltas, weights, strict=True)]
        sign = 1 if sum(vote for vote, _ in votes) >= 0 else -1
        agreeing = [(vote, weight) for vote, weight in votes if vote * sign > 0]
        if agreeing:
            total = sum(vote for vote, _ in agreeing)
            result[place] += total / sum(weight for _, weight in agreeing) if normalize else total
    return result.reshape(base.shape)


def test_linear_is_the_weighted_mean_and_without_normalising_the_sum():
    tensors = values()
    a, b, c = exact(tensors)
    near(linear(tensors, [1, 2, 5]), (a + 2 * b + 5 * c) / 8)
    near(linear(tensors, [1, 2, 5], normalize=False), a + 2 * b + 5 * c)
    near(linear(tensors, 0.2), (a + b + c) / 3)


def test_task_arithmetic_adds_weighted_differences_to_the_base():
    base, *tensors = values()
    o, a, b = exact([base, *tensors])
    near(task_arithmetic(base, tensors, [0.7, -0.2]), o + 0.7 * (a - o) - 0.2 * (b - o))
    near(
        task_arithmetic(base, tensors, [3, 1], normalize=True, lambda_=0.5), o + 0.5 * (0.75 * (a - o) + 0.25 * (b - o))
    )


def test_mergealign_is_tied_unless_b_is_given():
    base, domain, aligned = values()
    o, d, g = exact([base, domain, aligned])
    near(mergealign(base, domain, aligned, 0.7), o + 0.7 * (d - o) + 0.3 * (g - o))
    near(mergealign(base, domain, aligned, 0.7, 0.9), o + 0.7 * (d - o) + 0.9 * (g - o))
    near(mergealign(base, domain, aligned, 1.0, 0.0), d)


@pytest.mark.parametrize("apart", [10, 1, 0.05])  # cosines of about .1, .7 and .999
@pytest.mark.parametrize("t", [0.1, 0.5, 0.8])
def test_slerp_turns_at_a_constant_rate(t, apart):
    a, b = values(2)
    b = a + apart * b
    x, y = exact([a, b])
    whole = angle(x, y)
    found = slerp(a, b, t)
    near(found, (np.sin((1 - t) * whole) * x + np.sin(t * whole) * y) / np.sin(whole))
    unit = slerp(a / a.norm(), b / b.norm(), t).double()
    assert unit.norm().item() == pytest.approx(1, abs=1e-6)
    assert angle(x, unit.numpy()) == pytest.approx(t * whole, abs=1e-5)


def test_slerp_is_straight_between_parallel_and_opposite_tensors():
    (a,) = values(1)
    near(slerp(a, 3 * a, 0.25), 1.5 * exact([a])[0])
    near(slerp(a, -a, 0.25), 0.5 * exact([a])[0])
    near(slerp(a, torch.zeros_like(a), 0.5), math.sqrt(0.5) * exact([a])[0])  # zeros: perpendicular to anything
    assert not slerp(torch.zeros(3), torch.zeros(3), 0.5).any()


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(
    ("weights", "densities"), [([1, 1], [0.3, 0.6]), ([0.5, 2], [0.01, 1]), ([1, -0.4], [0.5, 0.5])]
)
def test_ties_is_as_in_the_paper(weights, densities, normalize):
    base, *tensors = values()
    o, *rest = exact([base, *tensors])
    near(ties(base, tensors, weights, densities, normalize), ties_of_paper(o, rest, weights, densities, normalize))
    near(
        ties(base, tensors, weights, densities, normalize, lambda_=0.3),
        o + 0.3 * (ties_of_paper(o, rest, weights, densities, normalize) - o),
    )


def test_ties_keeps_values_as_large_as_the_smallest_that_stays():
    base, tensor = torch.zeros(6), torch.tensor([1.0, -2, 2, 3, 0.5, 2])
    assert ties(base, [tensor], 1, 0.5).tolist() == [0, -2, 2, 3, 0, 2]


def test_ties_rescaled_restores_the_sum_of_magnitudes():
    base, tensor, _ = values()
    plain, rescaled = (ties(base, [tensor], 1, 0.2, rescale=rescale) - base for rescale in (False, True))
    assert rescaled.abs().sum().item() == pytest.approx((tensor - base).abs().sum().item(), rel=1e-5)
    near(rescaled, plain.double().numpy() * (rescaled.abs().sum() / plain.abs().sum()).item(), 1e-5)


@pytest.mark.parametrize("method", [dare_linear, dare_ties])
def test_dare_keeps_the_share_and_the_mean(method):
    base, tensor, _ = values()
    steps = torch.stack([method(base, [tensor], 1, 0.3, seed=seed) - base for seed in range(1000)]).double()
    kept = (steps.abs() > 1e-6).double()
    spread = math.sqrt(0.3 * 0.7 / 1000)
    assert kept.mean().item() == pytest.approx(0.3, abs=5 * spread / math.sqrt(tensor.numel()))
    assert (kept.mean(0) - 0.3).abs().max() < 5 * spread  # every element, wherever it is
    delta = (tensor - base).double()
    assert ((steps.mean(0) - delta) / delta).abs().max() < 5 * spread / 0.3
    assert (steps[kept.bool()] / delta.expand_as(steps)[kept.bool()]).sub(1 / 0.3).abs().max() < 1e-3
    alone = method(base, [tensor], 1, 0.3, rescale=False, seed=0) - base
    near(alone, 0.3 * steps[0].numpy(), 1e-5)


def test_dare_linear_keeps_the_mean_of_task_arithmetic():
    base, *tensors = values()
    mean = sum(dare_linear(base, tensors, [0.8, 0.4], [0.5, 0.9], seed=seed).double() for seed in range(1000)) / 1000
    assert (mean - task_arithmetic(base, tensors, [0.8, 0.4])).abs().max() < 0.3
    assert (mean - task_arithmetic(base, tensors, [0.8, 0.4])).mean().abs() < 0.01


def test_models_and_seeds_drop_differently_and_the_same_seed_alike(monkeypatch):
    zero, one = torch.zeros(4000), torch.ones(4000)

    def masks(seed):
        return dare_linear(zero, [one, one], [1, 100], 0.5, rescale=False, seed=seed)

    first = masks(0)
    shares = [(first == value).double().mean().item() for value in (0, 1, 100, 101)]
    assert shares == pytest.approx([0.25] * 4, abs=0.04)
    assert torch.equal(first, masks(0))
    assert 0.6 < (first != masks(1)).double().mean() < 0.9
    monkeypatch.setattr(blocks, "BLOCK", 1 << 10)
    assert torch.equal(first, masks(0))


def test_dare_ties_elects_among_what_was_not_dropped():
    base, *tensors = values()
    o = exact([base])[0]
    kept = [dare_linear(base, tensors, weight, 0.5, seed=5).double().numpy() - o for weight in ([0.6, 0], [0, 0.9])]
    sign = np.where(sum(kept) >= 0, 1, -1)
    near(dare_ties(base, tensors, [0.6, 0.9], 0.5, seed=5), o + sum(delta * (delta * sign > 0) for delta in kept), 1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_sums_are_in_float32_whatever_the_tensors_are(method):
    tensors = values(dtype=torch.bfloat16)
    found, precise = merged(method, tensors), merged(method, [tensor.double() for tensor in tensors])
    assert (found.dtype, precise.dtype) == (torch.bfloat16, torch.float64)
    # Rounded once: but for a rare tie the float64 result's own rounding.
    assert (found != precise.bfloat16()).double().mean() < 0.02
    out = torch.empty(SHAPE, dtype=torch.float32)
    assert merged(method, tensors, out=out) is out
    near(out, precise.numpy())


@pytest.mark.parametrize("method", METHODS)
def test_tensors_given_are_left_as_they_are_and_may_have_any_strides(method):
    tensors = [torch.nn.Parameter(tensor) for tensor in values()]
    before = [tensor.detach().clone() for tensor in tensors]
    found = merged(method, tensors)
    assert all(torch.equal(tensor, old) for tensor, old in zip(tensors, before, strict=True))
    assert not found.requires_grad
    turned = [tensor.t().contiguous().t() for tensor in tensors]
    assert not turned[0].is_contiguous()
    assert torch.equal(merged(method, turned), found)


@pytest.mark.parametrize("method", METHODS)
def test_equal_parents_give_themselves(method):
    (tensor,) = values(1)
    near(merged(method, [tensor] * 3), exact([tensor])[0], 3e-7)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("model", [0, 1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_what_is_not_finite_stays_visible(method, model, wrong):
    if (method, model) == ("slerp", 2):
        return  # takes two
    for place in ((0, 0), (12, 10)):
        tensors = values()
        tensors[model][place] = wrong
        assert not merged(method, tensors).isfinite().all()


@pytest.mark.parametrize("method", METHODS)
def test_a_single_number_and_no_number_are_tensors_too(method):
    one = [tensor[0, 0] for tensor in values()]
    assert merged(method, one).shape == ()
    assert merged(method, [torch.empty(0, 5)] * 3).shape == (0, 5)


@given(st.integers(0, 1000), st.sampled_from([torch.float32, torch.bfloat16, torch.float16]))
def test_ends_are_the_parents_to_the_bit(seed, dtype):
    base, first, second = values(seed=seed, dtype=dtype)
    assert torch.equal(slerp(base, first, 0.0), base)
    assert torch.equal(slerp(base, first, 1.0), first)
    assert torch.equal(linear([base, first, second], [0, 1, 0]), first)
    for method in (task_arithmetic, ties, dare_linear, dare_ties):
        assert torch.equal(method(base, [first, second], [0, 0]), base)
    assert torch.equal(mergealign(base, first, second, 0.0, 0.0), base)


@given(st.integers(0, 1000), st.floats(-2, 2), st.floats(-2, 2))
def test_dare_drops_nothing_at_density_one(seed, a, b):
    base, *tensors = values(seed=seed)
    assert torch.equal(dare_linear(base, tensors, [a, b], 1.0), task_arithmetic(base, tensors, [a, b]))
    assert torch.equal(dare_ties(base, tensors, [a, b], 1.0), ties(base, tensors, [a, b], 1.0, normalize=False))


@given(st.integers(0, 1000), st.floats(0, 1))
def test_the_order_of_parents_does_not_matter(seed, t):
    base, *tensors = values(seed=seed)
    near(slerp(*tensors, t), slerp(*reversed(tensors), 1 - t).double().numpy(), 1e-5)
    near(ties(base, tensors, [t, 0.5], 0.3), ties(base, tensors[::-1], [0.5, t], 0.3).double().numpy(), 1e-5)
    near(linear(tensors, [t, 0.5]), linear(tensors[::-1], [0.5, t]).double().numpy(), 1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a, b: linear([a, b], [1, -1]), r"weights add up to 0.0: they cannot be normalised"),
        (lambda a, b: task_arithmetic(a, [b], 0.0, normalize=True), "weights add up to 0.0"),
        (lambda a, b: linear([a, b], [1, 2, 3]), "weight has 3 values for 2 models"),
        (lambda a, b: linear([a, b], [1, math.nan]), "weight is nan, allowed: finite numbers"),
        (lambda a, b: ties(a, [b], 1, 0), "density is 0, allowed: above 0, at most 1"),
        (lambda a, b: dare_ties(a, [b], 1, 1.01), "density is 1.01"),
        (lambda a, b: dare_linear(a, [b], 1, math.nan), "density is nan"),
        (lambda a, b: slerp(a, b, math.inf), "t is inf"),
        (lambda a, b: ties(a, [b], 1, lambda_=math.nan), "lambda is nan"),
        (lambda a, b: dare_linear(a, [b], 1, 0.5, seed=-1), "seed is -1, allowed: whole numbers from 0"),
        (lambda a, b: slerp(a, b.t(), 0.5), r"shapes differ: \(13, 11\) and \(11, 13\)"),
        (lambda a, b: linear([a, b], 1, out=torch.empty(2)), "shapes differ"),
        (lambda a, b: linear([a, b.int()], 1), "int32 has no values between two others"),
    ],
)
def test_what_makes_no_sense_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(*values(2))
