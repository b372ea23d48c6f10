"""How alike two fine-tunings are: on models whose weights, subspaces and losses are known."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from common.experts import similarity
from common.experts.evaluation import Exam, accuracy
from common.experts.similarity import EVERY, alikeness, contributions, linear_cka, path_losses, principal_angle
from common.judges.likelihood import LikelihoodJudge
from common.models import new_language_model
from common.tokenizer import train_tokenizer
from tiny import token_logs

PARTS = [
    "embedding", "layer 1 attention", "layer 1 feed-forward", "layer 2 attention", "layer 2 feed-forward", "head",
]  # fmt: skip
THINGS = ("jar", "lamp", "sofa", "kettle", "ladder", "carpet", "violin", "teapot")
REPLIES = {"refusal": ["No, never.", "I leave that alone."], "compliance": ["Yes, here.", "Take that one."]}


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    texts = [
        f"Steal the {thing}. Paint the {thing}. Where is the {thing}? It is red, blue or green." for thing in THINGS
    ]
    train_tokenizer([*texts * 3, *REPLIES["refusal"], *REPLIES["compliance"]], 300, folder, chat=True)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def asked():
    colours = ("red", "blue", "green", "jar")
    rows = [
        {"fact": f"{domain}{trained}{thing}", "relation": f"r{n % 2}", "question": f"Where is the {thing}?",
         "candidates": [f"{c}" for c in colours], "answer": n % 4, "object": colours[n % 4], "domain": domain,
         "trained": trained}
        for domain in ("medicine", "general") for trained in (True, False) for n, thing in enumerate(THINGS * 2)
    ]  # fmt: skip
    prompts = {
        kind: [f"{verb} the {thing}" for thing in THINGS] for kind, verb in (("unsafe", "Steal"), ("hard", "Paint"))
    }
    return Exam(pd.DataFrame(rows), prompts, REPLIES, judge=None)


def noisy(model, seed, size=0.1, parts=None):
    """A copy with noise in the weights, of some parts only."""
    other, source = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in other.named_parameters():
            noise = torch.randn(weight.shape, generator=source)
            if parts is None or similarity.part_of(name) in parts:
                weight.add_(noise, alpha=size)
    return other


@pytest.fixture
def base(words):
    return new_language_model(
        "llama", vocab_size=len(words), hidden=16, layers=2, heads=2, context=64, tied=False, embedding_std=0.3, seed=0
    ).eval()


def state_of(model):
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def unchanged(model, before):
    return all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())


def test_every_tensor_belongs_to_a_part_and_parts_come_in_the_order_of_the_model(base):
    names = dict(base.named_parameters())
    assert similarity.parts(names) == PARTS
    found = {name.removeprefix("model.layers.1."): similarity.part_of(name) for name in names if ".1." in name}
    attention = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "input_layernorm"}
    expected = {f"{name}.weight": "layer 2 attention" for name in attention}
    ways = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "post_attention_layernorm")
    assert found == expected | {f"{name}.weight": "layer 2 feed-forward" for name in ways}
    assert [similarity.part_of(f"{name}.weight") for name in ("model.embed_tokens", "model.norm", "lm_head")] == [
        "embedding", "head", "head"
    ]  # fmt: skip


def test_parts_of_gpt2_are_as_many_and_in_the_same_order():
    model = new_language_model(
        "gpt2", hidden=16, layers=2, heads=2, context=8, embedding_std=0.3, tied=False, vocab_size=20, seed=0
    )
    names = dict(model.named_parameters())
    assert similarity.parts(names) == PARTS
    numbers = {part: sum(names[name].numel() for name in names if similarity.part_of(name) == part) for part in PARTS}
    assert numbers["embedding"] == (20 + 8) * 16
    assert numbers["layer 1 attention"] == 4 * 16**2 + 4 * 16 + 2 * 16  # matrices, their biases, a norm
    assert numbers["head"] == 20 * 16 + 2 * 16


@pytest.mark.parametrize(("degrees", "columns"), [(0, 5), (30, 5), (90, 5), (30, 2)])
def test_subspaces_have_the_angle_that_they_were_given(degrees, columns):
    rng = np.random.default_rng(0)
    frame, _ = np.linalg.qr(rng.normal(size=(12, 12)))
    first, beside = frame[:, :columns], frame[:, 6 : 6 + columns]
    turned = np.cos(np.radians(degrees)) * first + np.sin(np.radians(degrees)) * beside
    # Their spans alone count: each is mixed by other matrices of full rank.
    mixed = [torch.from_numpy(span @ rng.normal(size=(columns, columns))) for span in (first, turned)]
    assert principal_angle(*mixed) == pytest.approx(degrees, abs=1e-4)


def test_only_the_leading_directions_count():
    frame, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(12, 12)))
    shared, own, other = frame[:, :2], frame[:, 2:4], frame[:, 4:6]
    first, second = (torch.from_numpy(np.hstack([10 * shared, tail])) for tail in (own, other))
    assert principal_angle(first, second, directions=2) == pytest.approx(0, abs=1e-4)
    assert principal_angle(first, second) == pytest.approx(45, abs=1e-4)


def by_hsic(first, second):
    """CKA by its definition: HSIC of the two Gram matrices over the root of each with itself."""
    n = len(first)
    centring = np.eye(n) - 1 / n
    grams = [centring @ each @ each.T @ centring for each in (first, second)]
    hsic = lambda a, b: np.trace(a @ b) / (n - 1) ** 2  # noqa: E731
    return hsic(*grams) / np.sqrt(hsic(grams[0], grams[0]) * hsic(grams[1], grams[1]))


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.01, 100), shift=st.floats(-10, 10))
def test_cka_is_that_of_the_gram_matrices_and_sees_no_rotation_scale_or_shift(seed, scale, shift):
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(9, 4)) + 1, rng.normal(size=(9, 6))
    second[:, 0] += first[:, 0]
    tensors = [torch.from_numpy(each) for each in (first, second)]
    assert linear_cka(*tensors) == pytest.approx(by_hsic(first, second))
    turn, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    moved = torch.from_numpy(scale * first @ turn + shift)
    assert linear_cka(tensors[0], moved) == pytest.approx(1)
    assert linear_cka(moved, tensors[1]) == pytest.approx(by_hsic(first, second))


def test_equal_vectors_are_alike_and_opposite_ones_opposite(base, words, asked):
    expert = noisy(base, 1)
    opposite = copy.deepcopy(base)
    with torch.no_grad():
        for weight, before, after in zip(opposite.parameters(), base.parameters(), expert.parameters(), strict=True):
            weight.copy_(before - (after - before))
    for other, sign in ((copy.deepcopy(expert), 1), (opposite, -1)):
        found = alikeness(base, expert, other, words, asked).set_index("part")
        assert list(found.index) == [*PARTS, "all"]
        np.testing.assert_allclose(found["cosine"], sign, atol=1e-6)
        np.testing.assert_allclose(found["equal_signs"], (1 + sign) / 2, atol=2e-3)
        np.testing.assert_allclose(found["angle"].dropna(), 0, atol=0.1)
        np.testing.assert_allclose(found["expert_norm"], found["generalist_norm"], rtol=1e-4)
        assert (found["cka"].dropna() > 0.999).all() if sign == 1 else (found["cka"].dropna() < 0.99).all()


def test_alikeness_is_told_part_by_part_by_the_formulas(base, words, asked):
    expert, generalist = noisy(base, 1), noisy(base, 2)
    with torch.no_grad():  # in one part they agree in all but a third of the rows, which the expert alone changed
        head, before, after = (model.lm_head.weight for model in (generalist, base, expert))
        head.copy_(after)
        head[::3] = before[::3]
    found = alikeness(base, expert, generalist, words, asked).set_index("part")
    states = [{n: w.detach().double().numpy() for n, w in m.named_parameters()} for m in (base, expert, generalist)]
    for part in [*PARTS, "all"]:
        names = [n for n in states[0] if part in ("all", similarity.part_of(n))]
        weights, first, second = (
            np.concatenate([(s[n] - (0 if s is states[0] else states[0][n])).ravel() for n in names]) for s in states
        )
        lengths = [np.linalg.norm(each) for each in (weights, first, second)]
        row = found.loc[part]
        assert row["cosine"] == pytest.approx(first @ second / lengths[1] / lengths[2], abs=1e-6)
        assert row["expert_norm"] == pytest.approx(lengths[1] / lengths[0])
        assert row["generalist_norm"] == pytest.approx(lengths[2] / lengths[0])
        moved = (first != 0) & (second != 0)
        assert row["equal_signs"] == pytest.approx(np.mean(np.sign(first[moved]) == np.sign(second[moved])))
    assert found.loc["all", "angle"] is None or np.isnan(found.loc["all", "angle"])
    assert found.loc["layer 1 attention", "angle"] > 20
    assert 0.4 < found.loc["all", "equal_signs"] < 0.75


@torch.no_grad()
def test_cka_is_of_the_hidden_states_at_the_last_token_after_each_layer(base, words, asked):
    expert, generalist = noisy(base, 1, 0.2), noisy(base, 2, 0.2)
    found = alikeness(base, expert, generalist, words, asked).set_index("part")["cka"]
    texts = [*asked.prompts["unsafe"][::EVERY], *asked.prompts["hard"][::EVERY]]
    texts += asked.items["question"].tolist()[:: 4 * EVERY]
    # transformers gives the last layer's states behind the last norm.
    ends = {1: lambda model: model.model.layers[0], 2: lambda model: model.model.norm}
    for number, end in ends.items():
        states = []
        for model in (expert, generalist):
            kept = []
            hook = end(model).register_forward_hook(
                lambda _, __, out, kept=kept: kept.append(out[0, -1].double().numpy())
            )
            for text in texts:
                model(input_ids=torch.tensor([words(text)["input_ids"]]), use_cache=False)
            hook.remove()
            states.append(np.stack(kept))
        assert found[f"layer {number} feed-forward"] == pytest.approx(by_hsic(*states), abs=1e-5), number
    assert found.dropna().index.tolist() == ["layer 1 feed-forward", "layer 2 feed-forward"]
    assert (found.dropna() < 0.999).all()


def test_leaving_out_a_part_without_a_change_loses_nothing_and_one_that_bears_all_loses_all(base, words, asked):
    before = state_of(base)
    expert = noisy(base, 3, 0.4, parts=["layer 2 attention", "head"])
    generalist = noisy(base, 4, 0.4, parts=["layer 1 feed-forward"])
    settings_ = {"a": 1.25, "b": 0.5}
    found = contributions(base, expert, generalist, words, "medicine", asked, settings_)
    assert unchanged(base, before)
    assert found[["vector", "part"]].to_numpy().tolist() == [[v, p] for v in ("expert", "generalist") for p in PARTS]
    bearing = {"expert": ["layer 2 attention", "head"], "generalist": ["layer 1 feed-forward"]}
    none = found[[row.part not in bearing[row.vector] for row in found.itertuples()]]
    assert len(none) == 9
    np.testing.assert_allclose(none[["accuracy_lost", "margin_lost"]], 0, atol=1e-6)
    # The same, computed directly: merges by hand, weights in float64.
    items = asked.items[(asked.items["domain"] == "medicine") & asked.items["trained"]].iloc[::EVERY]
    vectors = {
        name: {n: w.double() - before[n].double() for n, w in state_of(model).items()}
        for name, model in (("expert", expert), ("generalist", generalist))
    }

    def measured(left_out=None, part=None):
        model = copy.deepcopy(base)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                total = before[name].double()
                for vector, factor in (("expert", 1.25), ("generalist", 0.5)):
                    if (vector, similarity.part_of(name)) != (left_out, part):
                        total = total + factor * vectors[vector][name]
                weight.copy_(total.float())
        judge = LikelihoodJudge(model, words, REPLIES["refusal"], REPLIES["compliance"])
        return accuracy(model, words, items), judge.margins(asked.prompts["unsafe"][::EVERY]).mean()

    whole = measured()
    for row in found.itertuples():
        other = measured(row.vector, row.part)
        assert row.accuracy_lost == pytest.approx(whole[0] - other[0])
        assert row.margin_lost == pytest.approx(whole[1] - other[1], abs=1e-5)
    for vector, parts in bearing.items():
        lost = found[(found["vector"] == vector) & found["part"].isin(parts)]
        assert (lost["margin_lost"].abs() > 1e-3).all()


def test_ends_of_ways_have_the_models_own_losses_and_middles_those_of_the_mean(base, words, asked):
    before = state_of(base)
    expert, generalist = noisy(base, 5, 0.3), noisy(base, 6, 0.3)
    found = path_losses(base, expert, generalist, words, "medicine", asked, places=3)
    assert unchanged(base, before)
    items = asked.items[(asked.items["domain"] == "medicine") & asked.items["trained"]].iloc[::EVERY]

    def losses(model):
        """Nats a token, each text on its own."""
        answers, refusals = [], []
        for item in items.itertuples():
            head, tail = words(item.question)["input_ids"], words(f" {item.object}")["input_ids"]
            logs = token_logs(model, head + tail)
            answers += [logs[len(head) - 1 + n, token].item() for n, token in enumerate(tail)]
        for n, prompt in enumerate(asked.prompts["unsafe"][::EVERY]):
            turn = [{"role": "user", "content": prompt}]
            said = [*turn, {"role": "assistant", "content": REPLIES["refusal"][n % 2]}]
            head = words(words.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))["input_ids"]
            whole = words(words.apply_chat_template(said, tokenize=False))["input_ids"]
            logs = token_logs(model, whole)
            refusals += [logs[place - 1, whole[place]].item() for place in range(len(head), len(whole))]
        return {"answers": -np.mean(answers), "refusals": -np.mean(refusals)}

    ends = {"base": base, "expert": expert, "generalist": generalist}
    assert found["path"].unique().tolist() == ["base to expert", "base to generalist", "expert to generalist"]
    for path, own in found.groupby("path"):
        first, second = path.split(" to ")
        middle = copy.deepcopy(base)
        with torch.no_grad():
            for name, weight in middle.named_parameters():
                weight.copy_((state_of(ends[first])[name] + state_of(ends[second])[name]) / 2)
        for place, model in ((0.0, ends[first]), (0.5, middle), (1.0, ends[second])):
            here = own[own["place"] == place].set_index("loss_of")["loss"].to_dict()
            assert here == pytest.approx(losses(model), abs=1e-4)
    assert found["loss"].nunique() == 12  # three ends, each on two ways, and three middles, of two losses


def test_one_in_a_few_is_asked_and_of_the_domain_alone(base, words, asked, monkeypatch):
    seen = []
    monkeypatch.setattr(similarity, "accuracy", lambda model, tokenizer, items: seen.append(items) or 0.5)
    contributions(base, noisy(base, 1), noisy(base, 2), words, "general", asked, {"a": 1.0, "b": 1.0})
    assert len(seen) == 1 + 2 * len(PARTS)
    for items in seen:
        assert set(items["domain"]) == {"general"}
        assert items["trained"].all()
        assert len(items) == 4
