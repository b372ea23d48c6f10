"""Whole models merged in memory: parameters by layer and kind of tensor, tied heads, and one line for what is wrong."""

import pytest
import torch

from common.merging import METHODS, dare_linear, linear, merge_state_dicts, slerp, task_arithmetic, ties
from common.merging import recipe as recipes
from common.merging.settings import depths, value_at
from tiny import random_model

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
NAMES = (EMBEDDING, *(f"model.layers.{layer}.{part}.weight" for layer in range(3) for part in ("self_attn", "mlp")))


def state(seed, names=(*NAMES, "model.norm.weight", HEAD)):
    source = torch.Generator().manual_seed(seed)
    return {name: torch.randn(4, 5, generator=source) for name in names}


TURNED, BROKEN = torch.ones(5, 4), torch.full((4, 5), torch.nan)
BASE, FIRST, SECOND = (state(seed) for seed in range(3))


def equal(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


def test_every_tensor_is_merged_by_the_method():
    found = merge_state_dicts("ties", BASE, [FIRST, SECOND], weight=[1, 0.5], density=0.4, lambda_=0.9)
    assert list(found) == list(BASE)
    assert equal(found, {n: ties(BASE[n], [FIRST[n], SECOND[n]], [1, 0.5], 0.4, lambda_=0.9) for n in BASE})
    assert equal(
        merge_state_dicts("linear", None, [FIRST, SECOND], weight=(1, 3), normalize=False),
        {n: linear([FIRST[n], SECOND[n]], [1, 3], normalize=False) for n in BASE},
    )
    assert equal(merge_state_dicts("slerp", FIRST, [SECOND], t=0.2), {n: slerp(FIRST[n], SECOND[n], 0.2) for n in BASE})
    aligned = merge_state_dicts("mergealign", BASE, [FIRST, SECOND], a=0.7, b=0.6)
    assert equal(aligned, merge_state_dicts("task_arithmetic", BASE, [FIRST, SECOND], weight=[0.7, 0.6]))


def test_a_gradient_runs_from_the_first_layer_to_the_last():
    found = merge_state_dicts("slerp", FIRST, [SECOND], t=[0, 0.5, 1])
    expected = {"0.self": 0, "0.mlp": 0, "1.self": 0.5, "1.mlp": 0.5, "2.self": 1, "2.mlp": 1, "embed": 0, "norm": 0}
    for part, t in expected.items():
        name = next(name for name in BASE if part in name)
        assert torch.equal(found[name], slerp(FIRST[name], SECOND[name], t)), part
    assert depths(["layers.0.x", "layers.9.x", "layers.3.experts.7.y", "head"]) == {
        **{"layers.0.x": 0, "layers.9.x": 1, "layers.3.experts.7.y": pytest.approx(1 / 3), "head": 0}
    }
    assert depths(["h.0.x", "wte"]) == {"h.0.x": 1, "wte": 0}  # an only layer counts as the last, as in mergekit
    assert [value_at([0, 10, 40], float, "", depth) for depth in (0, 0.25, 0.5, 0.75, 1)] == [0, 5, 10, 25, 40]


def test_the_first_filter_that_fits_counts_and_models_may_differ():
    layered = [{"filter": "self_attn", "value": [1, 0]}, {"filter": "mlp", "value": 0.2}, {"value": 0.5}]
    found = merge_state_dicts("task_arithmetic", BASE, [FIRST, SECOND], weight=[layered, 1])
    for name, weight in zip(NAMES, (0.5, 1, 0.2, 0.5, 0.2, 0, 0.2), strict=True):
        assert torch.equal(found[name], task_arithmetic(BASE[name], [FIRST[name], SECOND[name]], [weight, 1])), name
    with pytest.raises(ValueError, match=f"{EMBEDDING}: task_arithmetic needs weight, which has no value for"):
        merge_state_dicts("task_arithmetic", BASE, [FIRST], weight=[[{"filter": "mlp", "value": 1}]])


def test_each_tensor_draws_its_own_random_numbers():
    equals = dict.fromkeys(["a", "b"], torch.zeros(400)), dict.fromkeys(["a", "b"], torch.ones(400))
    found = merge_state_dicts("dare_linear", equals[0], [equals[1]], weight=1, density=0.5)
    assert 100 < (found["a"] != found["b"]).sum() < 300
    assert equal(found, merge_state_dicts("dare_linear", equals[0], [equals[1]], weight=1, density=0.5, seed=0))
    assert not equal(found, merge_state_dicts("dare_linear", equals[0], [equals[1]], weight=1, density=0.5, seed=1))


def test_a_models_own_state_dict_is_merged_and_loads_again():
    torch.manual_seed(1)
    model, other = random_model("gpt2"), random_model("gpt2")  # its head is its embedding
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn_like(parameter))
    merged = merge_state_dicts("dare_ties", model.state_dict(), [other.state_dict()], weight=1, density=0.5)
    assert torch.equal(merged[HEAD], merged["transformer.wte.weight"])
    assert not torch.equal(merged[HEAD], model.lm_head.weight)
    random_model("gpt2").load_state_dict(merged)
    copied = {name: tensor.clone() for name, tensor in other.state_dict().items()}  # no longer one memory
    assert equal(merged, merge_state_dicts("dare_ties", model.state_dict(), [copied], weight=1, density=0.5))
    copied[HEAD] += 1
    apart = merge_state_dicts("task_arithmetic", model.state_dict(), [copied], weight=1.0)
    assert torch.equal(apart[HEAD], model.lm_head.weight + (copied[HEAD] - model.lm_head.weight))


def test_a_head_that_is_not_stored_is_the_embedding():
    base, first = BASE | {HEAD: BASE[EMBEDDING]}, {name: FIRST[name] for name in FIRST if name != HEAD}
    merged = merge_state_dicts("task_arithmetic", base, [first], weight=0.5)
    assert torch.equal(merged[HEAD], merged[EMBEDDING])
    assert HEAD not in merge_state_dicts("task_arithmetic", first, [base], weight=0.5)
    with pytest.raises(ValueError, match=r"lm_head\.weight is in the base and not in model 1"):
        merge_state_dicts("task_arithmetic", BASE, [first], weight=0.5)


def test_counters_must_agree_and_the_type_can_be_chosen():
    base, first = BASE | {"steps": torch.tensor([3])}, FIRST | {"steps": torch.tensor([3])}
    merged = merge_state_dicts("slerp", base, [first], t=0.5, dtype=torch.bfloat16)
    assert merged.pop("steps").tolist() == [3]
    assert {tensor.dtype for tensor in merged.values()} == {torch.bfloat16}
    with pytest.raises(ValueError, match=r"steps: of type torch\.int64, differs between models"):
        merge_state_dicts("slerp", base, [first | {"steps": torch.tensor([4])}], t=0.5)


def test_a_new_method_is_a_typed_function_and_its_name(monkeypatch):
    def furthest(base: torch.Tensor, tensors: list, scale: float = 1.0, out: torch.Tensor | None = None):
        """Of all values the one furthest from the base."""
        steps = torch.stack([tensor - base for tensor in tensors])
        return base + scale * steps.gather(0, steps.abs().argmax(0, keepdim=True))[0]

    monkeypatch.setitem(METHODS, "furthest", furthest)
    merged = merge_state_dicts("furthest", BASE, [FIRST, BASE], scale=[1, 0])
    assert torch.allclose(merged[EMBEDDING], FIRST[EMBEDDING])
    assert torch.equal(merged[NAMES[-1]], BASE[NAMES[-1]])
    assert recipes.takes_base("furthest")


def without(model, name):
    return {key: tensor for key, tensor in model.items() if key != name}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (("unheard", BASE, [FIRST], {}), "there is no merge method 'unheard'; allowed: linear, task_arithmetic"),
        (("ties", BASE, [FIRST], {"weight": 1, "densty": 1}), "ties has no parameter 'densty'; allowed: weight, dens"),
        (("slerp", BASE, [FIRST], {"t": 0.5, "weight": 1}), "slerp has no parameter 'weight'; allowed: t$"),
        (("task_arithmetic", BASE, [FIRST], {"weight": 1, "density": 0.5}), "has no parameter 'density'"),
        (("task_arithmetic", BASE, [FIRST], {}), "embed_tokens.weight: task_arithmetic needs weight"),
        (("slerp", BASE, [FIRST, SECOND], {"t": 0.5}), "slerp merges 1 models beside its base, not 2"),
        (("mergealign", BASE, [FIRST], {"a": 0.5}), "mergealign merges 2 models beside its base, not 1"),
        (("ties", BASE, [], {"weight": 1}), "ties merges 1 or more models beside its base, not 0"),
        (("linear", BASE, [FIRST], {"weight": 1}), "linear takes no base"),
        (("ties", None, [FIRST], {"weight": 1}), "ties needs a base"),
        (("linear", None, [FIRST, SECOND], {"weight": [1]}), "weight has 1 values for 2 models"),
        (("linear", None, [FIRST], {"weight": 1, "seed": 3}), "linear draws nothing at random: it takes no seed"),
        (("ties", BASE, [FIRST], {"weight": 1, "density": 0}), "embed_tokens.weight: density is 0, allowed: above 0"),
        (("slerp", BASE, [FIRST], {"t": "half"}), "t is 'half', allowed: finite numbers"),
        (("slerp", BASE, [FIRST], {"t": True}), "t is True, allowed: finite numbers"),
        (("slerp", BASE, [FIRST], {"t": []}), "t is an empty list"),
        (("ties", BASE, [FIRST], {"weight": 1, "normalize": 1}), "normalize is 1, allowed: true or false"),
        (("ties", BASE, [FIRST], {"weight": 1, "normalize": [True, False]}), "normalize is .* is for numbers only"),
        (("slerp", BASE, [FIRST], {"t": [{"filter": "x"}]}), "t is {'filter': 'x'} in a list of filters"),
        (("slerp", BASE, [without(FIRST, NAMES[2])], {"t": 0.5}), f"{NAMES[2]} is in the base and not in model 1"),
        (("slerp", BASE, [FIRST | {"more": FIRST[HEAD]}], {"t": 0.5}), "more is in model 1 and not in the base"),
        (
            ("slerp", BASE, [FIRST | {HEAD: TURNED}], {"t": 0.5}),
            r"weight is \(4, 5\) in the base and \(5, 4\) in model 1",
        ),
        (
            ("slerp", BASE, [FIRST | {HEAD: BROKEN}], {"t": 0.5}),
            "weight: 20 of its values in model 1 are infinite or not",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(call, message):
    method, base, models, parameters = call
    with pytest.raises(ValueError, match=message) as caught:
        merge_state_dicts(method, base, models, **parameters)
    assert "\n" not in str(caught.value)


def test_values_too_large_for_the_type_are_refused():
    big = {"w": torch.full((3,), 1e5)}
    assert merge_state_dicts("linear", None, [big], weight=1, dtype=torch.float32)["w"].tolist() == [1e5] * 3
    with pytest.raises(ValueError, match=r"w: its merged values are too large for torch\.float16"):
        merge_state_dicts("linear", None, [big], weight=1, dtype=torch.float16)
    huge = {"w": torch.full((3,), 3e38)}  # finite, though their sum is not
    assert merge_state_dicts("linear", None, [huge], weight=1)["w"].isfinite().all()


def test_a_drop_of_one_seed_is_that_of_the_function():
    found = merge_state_dicts("dare_linear", BASE, [FIRST], weight=1, density=0.5, seed=4)
    seed = recipes.Recipe("dare_linear", [{"weight": 1}], [[]], 4).arguments(EMBEDDING, 0)["seed"]
    assert torch.equal(found[EMBEDDING], dare_linear(BASE[EMBEDDING], [FIRST[EMBEDDING]], 1, 0.5, seed=seed))
