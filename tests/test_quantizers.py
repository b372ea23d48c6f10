"""Quantisers and the quantised linear layer against float64 references written out here from the formulas."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pydantic import TypeAdapter, ValidationError
from torch import nn
from transformers.pytorch_utils import Conv1D

from common.errors import UserError
from common.quantization import MomentQuantizer, Quantizer, Recipe, fake_quantize, log_quantize, quantize
from common.quantization.recipe import COMPONENTS, GRANULARITIES

FLOOR = 1e-5
ALL_BITS = (2, 3, 4, 8)
GROUP = 4  # values that share a scale in this file, where granularity is `group`


def reference_levels(values: np.ndarray, bits: int, symmetric: bool, floor: float) -> np.ndarray:
    """The paper's formulas for values that share one scale, zero point and clamp written out, float64."""
    lowest_code, highest_code = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    if symmetric:
        scale = max(np.abs(values).max(), floor) / highest_code
        return scale * np.round(np.clip(values / scale, lowest_code, highest_code))
    scale = max(values.max() - values.min(), floor) / (2 * highest_code)
    zero_point = np.round(values.min() / scale - lowest_code)
    codes = np.clip(np.round(values / scale) - zero_point, lowest_code, highest_code)
    return scale * (codes + zero_point)


def reference(x: np.ndarray, quantizer: Quantizer, floor: float = FLOOR) -> np.ndarray:
    """Rows are tokens or output channels."""
    out = np.empty_like(x, dtype=np.float64)
    rows, width = x.shape
    size = quantizer.group_size or width
    if quantizer.granularity == "tensor":
        return reference_levels(x.astype(np.float64), quantizer.bits, quantizer.symmetric, floor)
    for row in range(rows):
        for start in range(0, width, size):
            part = x[row, start : start + size].astype(np.float64)
            out[row, start : start + size] = reference_levels(part, quantizer.bits, quantizer.symmetric, floor)
    return out


def quantizer_of(granularity: str, bits: int = 8, symmetric: bool = True) -> Quantizer:
    return Quantizer(
        bits=bits,
        granularity=granularity,
        symmetric=symmetric,
        group_size=GROUP if granularity == "group" else None,
    )


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def matrices_of(widths: st.SearchStrategy[int]) -> st.SearchStrategy[np.ndarray]:
    shapes = st.tuples(st.integers(1, 6), widths)
    return hnp.arrays(np.float64, shapes, elements=st.floats(-1e3, 1e3, allow_subnormal=False))


matrices = matrices_of(st.integers(1, 6))
grouped_matrices = matrices_of(st.sampled_from([2 * GROUP, 3 * GROUP]))
cases = st.sampled_from(["tensor", "channel", "token", "group"]).flatmap(
    lambda granularity: st.tuples(grouped_matrices if granularity == "group" else matrices, st.just(granularity))
)


def parts_of(x: np.ndarray, granularity: str) -> np.ndarray:
    """`x (rows, width)` as `(parts, values)`, where the values of a part share a scale; channels are rows."""
    return x.reshape(-1, {"tensor": x.size, "group": GROUP}.get(granularity, x.shape[1]))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("granularity", ["tensor", "channel", "token", "group"])
@pytest.mark.parametrize("bits", ALL_BITS)
@pytest.mark.parametrize("offset", [0.0, 5.0, -40.0])
def test_values_are_those_of_the_formulas(bits, granularity, symmetric, offset):
    x = random(6, 12) + offset
    quantizer = quantizer_of(granularity, bits, symmetric)
    result = fake_quantize(torch.from_numpy(x), quantizer, floor=FLOOR)
    np.testing.assert_allclose(result.numpy(), reference(x, quantizer), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("granularity", ["tensor", "channel", "group"])
def test_a_transposed_weight_is_quantised_as_the_weight_itself(granularity):
    weight = random(8, 12)
    result = fake_quantize(torch.from_numpy(weight.T.copy()), quantizer_of(granularity, 4), floor=FLOOR, channel_dim=1)
    np.testing.assert_allclose(result.numpy().T, reference(weight, quantizer_of(granularity, 4)), rtol=1e-12)


@pytest.mark.parametrize("granularity", ["token", "group"])
def test_a_batch_of_tokens_is_quantised_as_its_rows(granularity):
    x = random(3, 5, 8)
    result = fake_quantize(torch.from_numpy(x), quantizer_of(granularity), floor=FLOOR)
    np.testing.assert_allclose(
        result.numpy().reshape(15, 8), reference(x.reshape(15, 8), quantizer_of(granularity)), rtol=1e-12
    )


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_only_once_more_than_single(dtype, symmetric):
    x = torch.from_numpy(random(16, 32)).to(dtype)
    quantizer = quantizer_of("token", symmetric=symmetric)
    result = fake_quantize(x, quantizer, floor=FLOOR)
    assert result.dtype == dtype
    assert torch.equal(result, fake_quantize(x.float(), quantizer, floor=FLOOR).to(dtype))


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_range_below_the_floor_does_not_narrow_the_levels(symmetric):
    x = random(4, 4) * 1e-7
    result = fake_quantize(torch.from_numpy(x), quantizer_of("tensor", symmetric=symmetric), floor=FLOOR)
    np.testing.assert_allclose(result.numpy(), reference(x, quantizer_of("tensor", symmetric=symmetric)), atol=1e-20)


def test_a_value_that_is_not_finite_spoils_its_own_token_alone():
    x = torch.from_numpy(random(3, 4))
    x[1, 2] = float("inf")
    result = fake_quantize(x, quantizer_of("token"), floor=FLOOR)
    assert result[1].isnan().all()
    assert result[[0, 2]].isfinite().all()


@given(cases, st.sampled_from(ALL_BITS), st.booleans())
def test_no_value_moves_by_more_than_half_a_step(case, bits, symmetric):
    x, granularity = case
    result = fake_quantize(torch.from_numpy(x), quantizer_of(granularity, bits, symmetric), floor=FLOOR).numpy()
    parts, moved = (parts_of(values, granularity) for values in (x, np.abs(result - x)))
    extent = np.abs(parts).max(1, keepdims=True) if symmetric else np.ptp(parts, axis=1, keepdims=True) / 2
    step = np.maximum(extent, FLOOR if symmetric else FLOOR / 2) / (2 ** (bits - 1) - 1)
    assert (moved <= step / 2 + 1e-9 * np.abs(parts).max(1, keepdims=True) + 1e-12).all()


@example((np.array([[1, 0.5, -0.5, 0]]), "group"), 2)  # ties, which drawn values hardly ever are
@given(cases, st.sampled_from(ALL_BITS))
def test_symmetric_quantisation_is_idempotent_and_odd(case, bits):
    x, granularity = case
    quantizer = quantizer_of(granularity, bits)
    once = fake_quantize(torch.from_numpy(x), quantizer, floor=FLOOR)
    np.testing.assert_allclose(fake_quantize(once, quantizer, floor=FLOOR), once, rtol=1e-12, atol=1e-15)
    assert torch.equal(fake_quantize(torch.from_numpy(-x), quantizer, floor=FLOOR), -once)


@given(cases, st.integers(0, 100), st.sampled_from(ALL_BITS), st.booleans())
def test_zero_stays_zero(case, index, bits, symmetric):
    x, granularity = case
    place = index % x.size
    x.flat[place] = 0
    result = fake_quantize(torch.from_numpy(x), quantizer_of(granularity, bits, symmetric), floor=FLOOR)
    assert result.flatten()[place] == 0


@given(matrices, st.sampled_from(ALL_BITS), st.booleans())
def test_a_tensor_has_no_more_levels_than_its_bits_can_name(x, bits, symmetric):
    result = fake_quantize(torch.from_numpy(x), quantizer_of("tensor", bits, symmetric), floor=FLOOR).numpy()
    assert len(np.unique(result)) <= 2**bits


@given(matrices, st.integers(0, 10), st.floats(1e-3, 1e3))
def test_a_token_does_not_see_other_tokens(x, index, factor):
    row = index % len(x)
    changed = x * factor
    changed[row] = x[row]
    results = [fake_quantize(torch.from_numpy(each), quantizer_of("token", 4), floor=FLOOR) for each in (x, changed)]
    assert torch.equal(results[0][row], results[1][row])


@given(matrices, st.integers(0, 10), st.floats(1e-3, 1e3))
def test_a_channel_does_not_see_other_channels(x, index, factor):
    column = index % x.shape[1]
    changed = x * factor
    changed[:, column] = x[:, column]
    results = [
        fake_quantize(torch.from_numpy(each), quantizer_of("channel", 4), floor=FLOOR, channel_dim=1)
        for each in (x, changed)
    ]
    assert torch.equal(results[0][:, column], results[1][:, column])


@given(grouped_matrices, st.integers(0, 100), st.floats(1e-3, 1e3), st.booleans())
def test_a_group_does_not_see_other_groups_of_its_row_or_of_others(x, index, factor, symmetric):
    changed = x * factor
    group = index % (x.size // GROUP)
    parts_of(changed, "group")[group] = parts_of(x, "group")[group]
    results = [
        fake_quantize(torch.from_numpy(each), quantizer_of("group", 4, symmetric), floor=FLOOR).view(-1, GROUP)
        for each in (x, changed)
    ]
    assert torch.equal(results[0][group], results[1][group])


@pytest.mark.parametrize("symmetric", [True, False])
def test_more_bits_and_finer_sharing_make_smaller_errors(symmetric):
    x = random(64, 64) * np.exp(random(64, 1, seed=1))

    def error(granularity: str, bits: int) -> float:
        result = fake_quantize(torch.from_numpy(x), quantizer_of(granularity, bits, symmetric), floor=FLOOR)
        return np.linalg.norm(result.numpy() - x)

    for granularity in ("token", "group"):
        by_bits = [error(granularity, bits) for bits in ALL_BITS]
        assert by_bits == sorted(by_bits, reverse=True)
        assert by_bits[-1] < by_bits[-2] / 10  # 127 levels against 7
    assert error("group", 4) < error("token", 4) < error("tensor", 4)


# --- the log codes of the second moment


def second_moments(*shape: int) -> np.ndarray:
    return np.exp(random(*shape, seed=3) * 4 - 10)


def log_quantizer(bits: int = 8, granularity: str = "tensor", code: str = "log") -> MomentQuantizer:
    return MomentQuantizer(
        bits=bits, granularity=granularity, group_size=GROUP if granularity == "group" else None, code=code
    )


@pytest.mark.parametrize("granularity", ["tensor", "channel", "group"])
@pytest.mark.parametrize("bits", ALL_BITS)
def test_log_levels_are_powers_of_two_below_the_maximum(bits, granularity):
    x = second_moments(6, 8)
    expected = np.empty_like(x)
    for row in range(6):
        for start in range(0, 8, 4):
            part = x[row, start : start + 4]
            top = {"tensor": x, "channel": x[row], "group": part}[granularity].max()
            levels = top * 2.0 ** (-32 * np.arange(2**bits - 1) / (2**bits - 2))
            nearest = np.abs(np.log(part[:, None]) - np.log(levels[None])).argmin(1)
            expected[row, start : start + 4] = levels[nearest]
    result = log_quantize(torch.from_numpy(x), log_quantizer(bits, granularity))
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-12)


@given(
    hnp.arrays(np.float32, (3, 2 * GROUP), elements=st.floats(0, 10, width=32, allow_subnormal=False)),
    st.sampled_from(GRANULARITIES["second_moment"]),
    st.booleans(),
)
def test_log_codes_keep_the_largest_of_each_scale_and_zeros_and_nothing_else_becomes_zero(x, granularity, stochastic):
    x[x < 1e-20] = 0
    code = "log-stochastic" if stochastic else "log"
    result = log_quantize(torch.from_numpy(x), log_quantizer(granularity=granularity, code=code)).numpy()
    assert ((result == 0) == (x == 0)).all()
    assert (parts_of(result, granularity).max(1) == parts_of(x, granularity).max(1)).all()


def test_log_code_in_8_bits_has_small_relative_errors_over_nine_decades():
    x = np.logspace(-9, 0, 1000)
    result = log_quantize(torch.from_numpy(x), log_quantizer()).numpy()
    assert np.abs(np.sqrt(result / x) - 1).max() < 0.023
    linear = fake_quantize(torch.from_numpy(x), quantizer_of("tensor"), floor=1e-8).numpy()
    assert (linear == 0).mean() > 0.7


@pytest.mark.parametrize("bits", [4, 8])
def test_stochastic_log_rounding_has_the_value_itself_as_its_mean(bits):
    x = torch.tensor([1.0, 0.6, 0.3, 1e-3, 3e-7], dtype=torch.float64)
    draws = log_quantize(
        torch.cat([x[:1], x[1:].repeat(200_000)]),
        log_quantizer(bits, code="log-stochastic"),
        generator=torch.Generator().manual_seed(0),
    )
    samples = draws[1:].view(-1, 4)
    standard_error = samples.std(0) / len(samples) ** 0.5
    assert ((samples.mean(0) - x[1:]).abs() < 5 * standard_error + 1e-12).all()
    assert all(len(samples[:, i].unique()) <= 2 for i in range(4))


def test_only_stochastic_rounding_lets_an_average_decay():
    def after_decay(code: str) -> float:
        moments = torch.ones(2_000, dtype=torch.float64)
        moments[0] = 1.0
        generator = torch.Generator().manual_seed(0)
        for _ in range(500):
            moments[1:] *= 0.999
            moments = log_quantize(moments, log_quantizer(code=code), generator=generator)
        return moments[1:].mean().item()

    assert after_decay("log") == 1.0
    assert after_decay("log-stochastic") == pytest.approx(0.999**500, rel=0.02)


@pytest.mark.parametrize("code", ["log", "log-stochastic"])
@pytest.mark.parametrize("values", [[1.0, -1.0, 0.0, -0.0], [-1.0, -2.0, -0.5]])
def test_a_negative_second_moment_becomes_nan_and_nothing_else_does(values, code):
    found = log_quantize(torch.tensor(values), log_quantizer(code=code))
    assert found.isnan().tolist() == [value < 0 for value in values]


def test_each_function_refuses_the_other_ones_codes():
    with pytest.raises(ValueError, match="linear levels"):
        fake_quantize(torch.ones(2), log_quantizer(), floor=FLOOR)
    with pytest.raises(ValueError, match="log levels"):
        log_quantize(torch.ones(2), log_quantizer(code="linear"))


# --- the quantised linear layer


W = quantizer_of("channel", 4)
A = quantizer_of("token", 4, symmetric=False)
G = quantizer_of("tensor", 3)


@pytest.mark.parametrize("backward", ["paper", "straight-through"])
@pytest.mark.parametrize("branch", ["weight", "input"])
@pytest.mark.parametrize(("kind", "bias"), [("Linear", True), ("Linear", False), ("Conv1D", True)])
def test_forward_and_gradients_follow_the_formulas(kind, branch, backward, bias):
    torch.manual_seed(0)
    layer = (nn.Linear(12, 7, bias=bias) if kind == "Linear" else Conv1D(7, 12)).double()
    x = torch.from_numpy(random(2, 5, 12, seed=1)).requires_grad_()
    grad = random(2, 5, 7, seed=2)
    quantize(layer, Recipe(weights=W, activations=A, gradients=G, gradient_branch=branch, backward=backward))

    y = layer(x)
    y.backward(torch.from_numpy(grad))

    weight = layer.weight.detach().numpy() if kind == "Linear" else layer.weight.detach().numpy().T
    rows, grad = x.detach().numpy().reshape(10, 12), grad.reshape(10, 7)
    rows_q, weight_q, grad_q = reference(rows, A), reference(weight, W), reference(grad, G, floor=1e-9)
    offset = layer.bias.detach().numpy() if bias else 0
    np.testing.assert_allclose(y.detach().numpy().reshape(10, 7), rows_q @ weight_q.T + offset, rtol=1e-10, atol=1e-12)

    kept_rows, kept_weight = (rows, weight) if backward == "paper" else (rows_q, weight_q)
    for_weight, for_input = (grad_q, grad) if branch == "weight" else (grad, grad_q)
    np.testing.assert_allclose(x.grad.numpy().reshape(10, 12), for_input @ kept_weight, rtol=1e-10, atol=1e-12)
    weight_grad = layer.weight.grad.numpy() if kind == "Linear" else layer.weight.grad.numpy().T
    np.testing.assert_allclose(weight_grad, for_weight.T @ kept_rows, rtol=1e-10, atol=1e-12)
    if bias:
        np.testing.assert_allclose(layer.bias.grad.numpy(), grad.sum(0), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", ["Linear", "Conv1D"])
def test_without_quantisers_the_derivatives_are_exact(kind):
    layer = (nn.Linear(4, 3) if kind == "Linear" else Conv1D(3, 4)).double()
    quantize(layer, Recipe())
    x = torch.from_numpy(random(2, 5, 4)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, *_: layer(x), (x, layer.weight, layer.bias))


def test_frozen_weights_and_inputs_without_gradient_get_none():
    layer = nn.Linear(4, 3)
    quantize(layer, Recipe(weights=quantizer_of("tensor"), gradients=quantizer_of("tensor")))
    layer.weight.requires_grad_(False)
    x = torch.randn(2, 4)
    layer(x).sum().backward()
    assert layer.weight.grad is None
    assert x.grad is None
    assert torch.equal(layer.bias.grad, torch.full((3,), 2.0))


def test_autocast_computes_in_bfloat16_and_keeps_single_precision_gradients():
    torch.manual_seed(0)
    layer, plain = nn.Linear(32, 16), nn.Linear(32, 16)
    plain.load_state_dict(layer.state_dict())
    quantize(layer, Recipe(weights=quantizer_of("channel"), activations=quantizer_of("token")))
    x = torch.randn(8, 32)
    for each in (layer, plain):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = each(x)
        assert y.dtype == torch.bfloat16
        y.float().square().sum().backward()
    assert layer.weight.grad.dtype == torch.float32
    torch.testing.assert_close(layer.weight.grad, plain.weight.grad, rtol=0.05, atol=0.5)


# --- recipes


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"weights": {"bits": 5, "granularity": "tensor"}}, "weights.*bits.*2, 3, 4 or 8.*got 5"),
        ({"weights": {"bits": 8}}, "weights.*granularity.*required"),
        ({"weights": {"bits": 8, "granularity": "token"}}, "weights.*tensor, channel, group"),
        ({"activations": {"bits": 8, "granularity": "channel"}}, "activations.*tensor, token, group"),
        ({"gradients": {"bits": 8, "granularity": "channel"}}, "gradients.*tensor, token, group"),
        ({"first_moment": {"bits": 8, "granularity": "token"}}, "first_moment.*tensor, channel, group"),
        ({"weights": {"bits": 8, "granularity": "group"}}, "weights.*group_size must be given"),
        ({"weights": {"bits": 8, "granularity": "tensor", "group_size": 4}}, "weights.*only then"),
        ({"weights": {"bits": 8, "granularity": "group", "group_size": 0}}, "weights.*group_size.*greater than 0"),
        ({"weights": {"bits": 8, "granularity": "tensor", "code": "log"}}, "weights.*code.*not permitted"),
        ({"first_moment": {"bits": 8, "granularity": "tensor", "code": "log"}}, "first_moment.*linear"),
        (
            {"second_moment": {"bits": 8, "granularity": "tensor", "code": "log", "symmetric": False}},
            "second_moment.*zero point",
        ),
        ({"wieghts": None}, "wieghts.*not permitted"),
        ({"backward": "exact"}, "backward.*'paper' or 'straight-through'"),
        ({"gradient_branch": "input"}, "needs a gradients quantiser"),
        ({"backward": "straight-through"}, "needs a weights or activations quantiser"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_one_line_about_what_is_wrong(fields, expected):
    for build in (Recipe.model_validate, lambda given: Recipe(**given)):
        with pytest.raises(UserError, match=expected) as caught:
            build(fields)
        assert "\n" not in str(caught.value)


def test_a_recipe_survives_a_file_and_cannot_be_changed():
    recipe = Recipe(weights=W, gradients=G, second_moment=log_quantizer(4, "group", "log-stochastic"))
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert Recipe.model_validate(recipe.model_dump()) == recipe
    with pytest.raises(ValueError, match="frozen"):
        recipe.backward = "straight-through"


def test_a_recipe_says_what_it_does():
    recipe = Recipe(weights=W, activations=A, second_moment=log_quantizer(4, "group", "log-stochastic"))
    assert str(recipe) == (
        "weights 4-bit channel, activations 4-bit token asymmetric, second_moment 4-bit group of 4 log-stochastic"
    )
    assert str(Recipe()) == "full precision"


@st.composite
def recipes(draw):
    fields = {}
    for component in draw(st.sets(st.sampled_from(COMPONENTS))):
        settings = {
            "bits": draw(st.sampled_from(ALL_BITS)),
            "granularity": draw(st.sampled_from(GRANULARITIES[component])),
        }
        if settings["granularity"] == "group":
            settings["group_size"] = draw(st.integers(1, 512))
        codes = ["linear", "log", "log-stochastic"] if component == "second_moment" else ["linear"]
        if (code := draw(st.sampled_from(codes))) != "linear":
            settings["code"] = code
        else:
            settings["symmetric"] = draw(st.booleans())
        fields[component] = settings
    if "gradients" in fields:
        fields["gradient_branch"] = draw(st.sampled_from(["weight", "input"]))
    if fields.keys() & {"weights", "activations"}:
        fields["backward"] = draw(st.sampled_from(["paper", "straight-through"]))
    return Recipe(**fields)


@given(recipes())
def test_a_label_names_one_recipe_and_every_recipe_has_one(recipe):
    assert Recipe.named(recipe.label) == recipe
    assert TypeAdapter(list[Recipe]).validate_python([recipe.label]) == [recipe]


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("W8", "'W8' in 'W8' is not allowed; say 'full precision'"),
        ("X8 tensor", "'X8 tensor'.* is not allowed"),
        ("W5 tensor", "weights: bits: Input should be 2, 3, 4 or 8"),
        ("W8 token", "weights: granularity must be one of tensor, channel, group"),
        ("W8 channel + W4 tensor", "'W4 tensor' in 'W8 channel . W4 tensor' is not allowed"),
        ("W8 group", "group_size must be given"),
        ("m1 8 tensor log", "first_moment: code must be 'linear'"),
        ("full precision, straight", "after a comma: input branch, straight-through"),
        ("W8 channel, input branch", "needs a gradients quantiser"),
        ("", "'' in '' is not allowed"),
    ],
)
def test_a_label_that_names_no_recipe_is_one_line_about_what_is_wrong(label, expected):
    with pytest.raises(UserError, match=expected) as caught:
        Recipe.named(label)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValidationError, match=r"\n1(\.\w+)?\n"):  # in a list pydantic says at which place
        TypeAdapter(list[Recipe]).validate_python(["full precision", label])
