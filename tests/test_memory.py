"""Bytes that training needs: against closed forms, codes that are really packed, and a walk over autograd's graph."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from common.models import new_language_model
from common.quantization import MomentQuantizer, Quantizer, Recipe, quantize
from common.quantization.memory import integer_bytes, memory_table, training_memory
from common.training import language_loss

VOCABULARY, HIDDEN, LAYERS, CONTEXT = 64, 16, 2, 12
W8 = Quantizer(bits=8, granularity="channel")
W4 = Quantizer(bits=4, granularity="channel")
A8 = Quantizer(bits=8, granularity="token")
M8 = MomentQuantizer(bits=8, granularity="channel")
V4 = MomentQuantizer(bits=4, granularity="tensor", code="log-stochastic")
STRAIGHT = "straight-through"
FAMILIES = pytest.mark.parametrize("family", ["gpt2", "llama"])
FLOAT = 4


def model_of(family: str, tied: bool = False):
    return new_language_model(
        family, vocab_size=VOCABULARY, hidden=HIDDEN, layers=LAYERS, heads=2, context=CONTEXT, tied=tied,
        embedding_std=0.3, seed=0,
    )  # fmt: skip


def matrices(family: str) -> list[tuple[int, int]]:
    """(outputs, inputs) of every linear layer, from the papers' architectures; the head is the last."""
    wide = 4 * HIDDEN if family == "gpt2" else 40  # 8/3 of the width in eights
    block = {
        "gpt2": [(3 * HIDDEN, HIDDEN), (HIDDEN, HIDDEN), (wide, HIDDEN), (HIDDEN, wide)],
        "llama": [(HIDDEN, HIDDEN)] * 4 + [(wide, HIDDEN)] * 2 + [(HIDDEN, wide)],
    }[family]
    return block * LAYERS + [(VOCABULARY, HIDDEN)]


def other_parameters(family: str) -> int:
    """Embeddings, norms and biases."""
    if family == "llama":
        return VOCABULARY * HIDDEN + (2 * LAYERS + 1) * HIDDEN
    biases = sum(outputs for outputs, _ in matrices(family)[:-1])
    return (VOCABULARY + CONTEXT) * HIDDEN + (2 * LAYERS + 1) * 2 * HIDDEN + biases


def saved_by_autograd(loss: torch.Tensor, model: torch.nn.Module) -> int:
    """Bytes of the storages that the nodes behind `loss` hold, parameters left out: found by walking the graph."""
    storages, nodes, seen = {}, [loss.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        nodes += [parent for parent, _ in node.next_functions]
        held = [getattr(node, name) for name in dir(node) if name.startswith("_saved_")]
        for tensor in [*held, *getattr(node, "saved_tensors", ())]:
            # Python numbers appear as double scalars here; autograd holds them by value.
            if torch.is_tensor(tensor) and (tensor.ndim or tensor.dtype != torch.float64):
                storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    for parameter in model.parameters():
        storages.pop(parameter.untyped_storage().data_ptr(), None)
    return sum(storages.values())


SAVED = ("quantized_weights", "linear_inputs", "other_activations")


@FAMILIES
@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(),
        Recipe(weights=W8, activations=A8),
        Recipe(weights=W8, activations=A8, backward=STRAIGHT),
        Recipe(activations=A8, backward=STRAIGHT),
    ],
    ids=lambda recipe: f"{recipe}, {recipe.backward}",
)
def test_simulated_bytes_are_what_the_graph_holds(family, recipe):
    memory = training_memory(model_of(family), recipe, 3, CONTEXT)
    model = model_of(family)
    quantize(model, recipe)
    loss = language_loss(model, {"input_ids": torch.zeros(3, CONTEXT, dtype=torch.long)})
    assert sum(memory[component]["simulated"] for component in SAVED) == saved_by_autograd(loss, model) > 0


@FAMILIES
@pytest.mark.parametrize("tied", [False, True])
def test_weights_gradients_and_moments_follow_from_the_shape(family, tied):
    recipe = Recipe(gradients=A8, first_moment=M8, second_moment=V4)
    memory = training_memory(model_of(family, tied), recipe, 1, CONTEXT)
    linear = sum(outputs * inputs for outputs, inputs in matrices(family))
    rest = other_parameters(family) - tied * VOCABULARY * HIDDEN
    for component in ("weights", "gradients", "first_moment", "second_moment"):
        assert memory[component]["simulated"] == FLOAT * (linear + rest)
    for component in ("weights", "gradients"):
        assert memory[component]["integer"] == FLOAT * (linear + rest)
    rows = sum(outputs for outputs, _ in matrices(family))
    assert memory["first_moment"]["integer"] == linear + 4 * rows + FLOAT * rest
    assert memory["second_moment"]["integer"] == linear // 2 + 4 * len(matrices(family)) + FLOAT * rest


@FAMILIES
def test_the_papers_backward_pass_saves_nothing_by_weights_activations_or_gradients(family):
    model = model_of(family)
    exact = training_memory(model, Recipe(), 2, CONTEXT)
    assert all(counts["simulated"] == counts["integer"] for counts in exact.values())
    assert training_memory(model, Recipe(weights=W8, activations=A8, gradients=A8), 2, CONTEXT) == exact


@FAMILIES
def test_straight_through_costs_more_simulated_and_less_in_integers(family):
    model = model_of(family)
    paper, straight = (
        training_memory(model, Recipe(activations=A8, backward=backward), 2, CONTEXT)
        for backward in ("paper", STRAIGHT)
    )

    def activations(memory, storage):
        return memory["linear_inputs"][storage] + memory["other_activations"][storage]

    assert activations(straight, "simulated") > activations(paper, "simulated")
    assert activations(straight, "integer") < activations(paper, "integer")
    assert straight["quantized_weights"] == {"simulated": 0, "integer": 0}


@FAMILIES
@pytest.mark.parametrize("batch_size", [1, 3])
def test_straight_through_inputs_are_one_byte_a_value_and_a_scale_a_token_and_layer(family, batch_size):
    memory = training_memory(model_of(family), Recipe(activations=A8, backward=STRAIGHT), batch_size, CONTEXT)
    tokens = batch_size * CONTEXT
    inputs = sum(inputs for _, inputs in matrices(family))
    assert memory["linear_inputs"] == {
        "simulated": FLOAT * tokens * inputs,
        "integer": tokens * inputs + 4 * tokens * len(matrices(family)),
    }


@FAMILIES
@pytest.mark.parametrize(("weights", "values_a_byte"), [(W8, 1), (W4, 2)])
def test_straight_through_keeps_a_copy_of_linear_weights(family, weights, values_a_byte):
    memory = training_memory(model_of(family), Recipe(weights=weights, backward=STRAIGHT), 1, CONTEXT)
    values = sum(outputs * inputs for outputs, inputs in matrices(family))
    rows = sum(outputs for outputs, _ in matrices(family))
    assert memory["quantized_weights"] == {
        "simulated": FLOAT * values,
        "integer": values // values_a_byte + 4 * rows,
    }
    assert memory["linear_inputs"]["simulated"] == memory["linear_inputs"]["integer"] > 0


@FAMILIES
@pytest.mark.parametrize("backward", ["paper", STRAIGHT])
def test_activations_grow_by_the_same_bytes_with_every_sequence(family, backward):
    model, recipe = model_of(family), Recipe(weights=W8, activations=A8, backward=backward)
    memory = [training_memory(model, recipe, batch_size, CONTEXT) for batch_size in range(2, 6)]
    for component in memory[0]:
        for storage in ("simulated", "integer"):
            growth = set(np.diff([found[component][storage] for found in memory]))
            assert len(growth) == 1
            assert (growth != {0}) == (component in ("linear_inputs", "other_activations"))


@settings(max_examples=60)
@given(
    shape=st.lists(st.sampled_from([2, 4, 6, 12]), min_size=2, max_size=3).map(tuple),
    bits=st.sampled_from([2, 3, 4, 8]),
    granularity=st.sampled_from(["tensor", "channel", "token", "group"]),
    symmetric=st.booleans(),
    transposed=st.booleans(),
)
def test_integer_bytes_are_those_of_packed_codes_and_their_scales(shape, bits, granularity, symmetric, transposed):
    channel_dim = int(transposed)
    quantizer = Quantizer(
        bits=bits, granularity=granularity, symmetric=symmetric, group_size=2 if granularity == "group" else None
    )
    values = np.random.default_rng(0).random(shape, dtype=np.float32)
    packed = np.packbits(np.ones((values.size, bits), dtype=np.uint8))
    scales = {
        "tensor": lambda: values.max(keepdims=True),
        "channel": lambda: np.moveaxis(values, channel_dim, 0).reshape(shape[channel_dim], -1).max(1),
        "token": lambda: values.max(-1),
        "group": lambda: values.reshape(-1, 2).max(1),
    }[granularity]()
    zero_points = 0 if symmetric else np.zeros(scales.shape, np.int32).nbytes
    found = integer_bytes(torch.from_numpy(values), quantizer, channel_dim=channel_dim)
    assert found == packed.nbytes + scales.nbytes + zero_points


@FAMILIES
def test_the_callers_model_and_random_numbers_stay_as_they_were(family):
    model = model_of(family).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):  # GPT-2's
            module.p = 0.1
        elif hasattr(module, "attention_dropout"):  # Llama's
            module.attention_dropout = 0.1
    before, random_state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    kinds = [type(module) for module in model.modules()]
    training_memory(model, Recipe(weights=W8, first_moment=M8), 2, CONTEXT)
    assert [type(module) for module in model.modules()] == kinds
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_the_table_has_a_row_for_everything_and_is_the_same_twice():
    model = model_of("gpt2")
    recipes = [Recipe(), Recipe(activations=A8), Recipe(activations=A8, backward=STRAIGHT)]
    table = memory_table(model, recipes, [1, 2], CONTEXT)
    keys = ["setting", "backward", "batch_size", "component", "storage"]
    assert list(table) == [*keys, "bytes"]
    assert not table.duplicated(keys).any()
    assert len(table) == math.prod((3, 2, 7, 2))
    assert table.equals(memory_table(model, recipes, [1, 2], CONTEXT))
    row = table.set_index(keys).loc[("A8 token, straight-through", STRAIGHT, 2, "linear_inputs", "integer")]
    assert row["bytes"] == training_memory(model, recipes[2], 2, CONTEXT)["linear_inputs"]["integer"]


@pytest.mark.parametrize(("batch_size", "context"), [(0, CONTEXT), (1, 1), (1, CONTEXT + 1)])
def test_sizes_that_the_model_cannot_take_are_refused(batch_size, context):
    with pytest.raises(ValueError, match=f"batch size {batch_size} and context {context}, allowed: .* {CONTEXT}"):
        training_memory(model_of("gpt2"), Recipe(), batch_size, context)


def test_a_model_that_is_quantised_already_is_refused():
    model = model_of("llama")
    quantize(model, Recipe(weights=Quantizer(bits=8, granularity="channel")))
    with pytest.raises(UserError, match="already"):
        training_memory(model, Recipe(), 1, CONTEXT)
