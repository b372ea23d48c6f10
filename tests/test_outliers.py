"""Outlier features: the function stays, the activations grow, and quantisers that share a scale suffer."""

import math
import re

import pytest
import torch
from torch import nn
from transformers import MistralConfig, MistralForCausalLM

from common.errors import UserError
from common.models import new_language_model
from common.quantization import Quantizer, Recipe, quantize
from common.quantization.outliers import inject_outliers

CHANNELS = (3, 7)
READERS = {
    "gpt2": r"transformer\.h\.\d\.(attn\.c_attn|mlp\.c_fc)|lm_head",
    "llama": r"model\.layers\.\d\.(self_attn\.[qkv]_proj|mlp\.(gate|up)_proj)|lm_head",
}
OTHERS = {
    "gpt2": r"transformer\.h\.\d\.(attn|mlp)\.c_proj",
    "llama": r"model\.layers\.\d\.(self_attn\.o_proj|mlp\.down_proj)",
}
FAMILIES = pytest.mark.parametrize("family", ["gpt2", "llama"])


def build(family, tied=False):
    """A small model whose norms have gains, and biases where there are any, as after training."""
    sizes = {"vocab_size": 64, "hidden": 16, "layers": 2, "heads": 2, "context": 12, "embedding_std": 0.3}
    model = new_language_model(family, tied=tied, seed=0, **sizes).eval()
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if re.search(r"(norm|ln_\w+)\.(weight|bias)$", name):
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=draw))
    return model


@torch.no_grad()
def logits(model):
    ids = torch.randint(0, 64, (4, 12), generator=torch.Generator().manual_seed(1))
    return model(input_ids=ids).logits


def inputs(model, names):
    """What the linear layers whose name matches are given, by name."""
    seen = {}
    handles = [
        module.register_forward_pre_hook(lambda _, args, name=name: seen.__setitem__(name, args[0]))
        for name, module in model.named_modules()
        if re.fullmatch(names, name)
    ]
    logits(model)
    for handle in handles:
        handle.remove()
    return seen


@FAMILIES
@pytest.mark.parametrize("scale", [8, 128, 7.3])
def test_the_model_computes_the_same_function(family, scale):
    model = build(family).double()
    before = logits(model)
    weights = {name: parameter.clone() for name, parameter in model.named_parameters()}
    inject_outliers(model, scale, CHANNELS)
    torch.testing.assert_close(logits(model), before, rtol=0, atol=1e-9)
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, weights[name])}
    assert len(changed) == {"gpt2": 2 * (2 * 2 + 2) + 2 + 1, "llama": 2 * (2 + 5) + 1 + 1}[family]


@FAMILIES
def test_powers_of_two_change_no_bit_in_single_precision(family):
    model = build(family)
    inject_outliers(model, 128, CHANNELS)
    assert torch.equal(logits(model), logits(build(family)))


@FAMILIES
def test_every_layer_after_a_norm_gets_the_channels_scaled_and_no_other_layer_does(family):
    model = build(family).double()
    before = inputs(model, f"{READERS[family]}|{OTHERS[family]}")
    inject_outliers(model, 8, CHANNELS)
    after = inputs(model, READERS[family])
    assert len(after) == {"gpt2": 2 * 2 + 1, "llama": 2 * 5 + 1}[family]
    factors = torch.ones(16, dtype=torch.float64)
    factors[list(CHANNELS)] = 8
    for name, found in after.items():
        torch.testing.assert_close(found, before[name] * factors, rtol=1e-9, atol=1e-12, msg=name)
    others = inputs(model, OTHERS[family])
    assert len(others) == 4
    for name, found in others.items():
        torch.testing.assert_close(found, before[name], rtol=1e-9, atol=1e-12, msg=name)


@FAMILIES
def test_a_channel_given_twice_is_scaled_once(family):
    once, twice = build(family), build(family)
    inject_outliers(once, 8, [3])
    inject_outliers(twice, 8, [3, 3])
    assert all(torch.equal(*pair) for pair in zip(once.parameters(), twice.parameters(), strict=True))


@FAMILIES
def test_before_or_after_quantising_is_the_same(family):
    recipe = Recipe(
        weights=Quantizer(bits=8, granularity="channel"), activations=Quantizer(bits=8, granularity="token")
    )
    before, after = build(family), build(family)
    inject_outliers(before, 8, CHANNELS)
    quantize(before, recipe)
    quantize(after, recipe)
    inject_outliers(after, 8, CHANNELS)
    assert torch.equal(logits(before), logits(after))
    assert not torch.equal(logits(after), logits(build(family)))


@FAMILIES
def test_the_more_values_share_a_scale_the_more_outliers_cost(family):
    exact = logits(build(family))

    def error(scale, **shared):
        model = build(family)
        inject_outliers(model, scale, [3])
        quantize(model, Recipe(activations=Quantizer(bits=8, **shared)))
        return ((logits(model) - exact).norm() / exact.norm()).item()

    scales = (1, 8, 128)
    tensor, token, group = (
        [error(scale, **shared) for scale in scales]
        for shared in ({"granularity": "tensor"}, {"granularity": "token"}, {"granularity": "group", "group_size": 4})
    )
    # A channel that is large in every token is in every token's scale: finer ones suffer less, but suffer too.
    for errors in (tensor, token, group):
        assert errors[0] < 0.02
        assert errors[1] > 1.5 * errors[0]
        assert errors[2] > 5 * errors[1]
    for scale, by_tensor, by_token, by_group in list(zip(scales, tensor, token, group, strict=True))[1:]:
        assert by_tensor > 1.5 * by_token > 2 * by_group, scale


# --- refusals, all before anything is changed


def refused(model, scale, channels, expected):
    weights = {name: parameter.clone() for name, parameter in model.named_parameters()}
    with pytest.raises(UserError, match=expected) as caught:
        inject_outliers(model, scale, channels)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(parameter, weights[name]) for name, parameter in model.named_parameters())


@FAMILIES
def test_a_head_tied_to_the_embedding_is_refused(family):
    refused(build(family, tied=True), 8, CHANNELS, "head tied to its embedding")


@FAMILIES
@pytest.mark.parametrize("scale", [0, -8, math.nan, math.inf])
def test_a_scale_without_an_inverse_is_refused(family, scale):
    refused(build(family), scale, CHANNELS, f"scale of outliers is {scale}, allowed: positive")


@FAMILIES
@pytest.mark.parametrize(("channels", "named"), [((3, 16, -1), r"\[16, -1\]"), ((), r"\[\]")])
def test_channels_the_model_does_not_have_are_refused(family, channels, named):
    refused(build(family), 8, channels, f"channels {named}, allowed: one or more of 0 to 15")


def test_an_unknown_class_is_refused_by_name():
    config = MistralConfig(
        vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2,
    )  # fmt: skip
    refused(MistralForCausalLM(config), 8, CHANNELS, "MistralForCausalLM: .* GPT2LMHeadModel, LlamaForCausalLM only")


def test_a_reader_that_is_no_ordinary_linear_layer_is_refused():
    model = build("llama")
    layers = model.model.layers
    layers[1].mlp.up_proj = nn.Sequential(layers[1].mlp.up_proj)
    refused(model, 8, CHANNELS, r"model\.layers\.1\.mlp\.up_proj is a Sequential, allowed: Linear or Conv1D")
