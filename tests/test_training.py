"""The training loop, against a loop written out by hand and against itself when cut off."""

import copy

import numpy as np
import pytest
import torch
from transformers import get_cosine_with_min_lr_schedule_with_warmup

from common.batches import evenly_spaced, shuffled_batches
from common.errors import UserError
from common.models import new_language_model, parameter_count
from common.scoring.loss import mean_loss
from common.training import NonFiniteLoss, Plan, adamw, language_loss, train


def regression(module, batch):
    return ((module(batch["x"]) - batch["y"]) ** 2).mean()


def regression_batch(step):
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
    return {"x": x, "y": x.sum(1, keepdim=True)}


def network(dropout=0.0):
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(3, 16), torch.nn.Tanh(), torch.nn.Dropout(dropout), torch.nn.Linear(16, 1)
    )


def small_model(seed=0, family="gpt2", tied=False):
    sizes = {"vocab_size": 50, "hidden": 16, "layers": 1, "heads": 2, "context": 8, "embedding_std": 0.3}
    return new_language_model(family, tied=tied, seed=seed, **sizes)


def token_batch(step):
    return {"input_ids": torch.randint(50, (4, 8), generator=torch.Generator().manual_seed(step))}


PLAN = Plan(steps=12, learning_rate=0.01, warmup=3, clip=0.5, log_every=3)


def test_the_loop_equals_one_written_out_by_hand():
    ours, plain = network(), network()
    trained = train(ours, regression, regression_batch, PLAN, optimizer=adamw(ours, weight_decay=0.1))
    matrices = [p for p in plain.parameters() if p.dim() == 2]
    vectors = [p for p in plain.parameters() if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95))
    losses = []
    for step in range(12):
        loss = regression(plain, regression_batch(step))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        for group in optimizer.param_groups:
            group["lr"] = PLAN.rate(step)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    # The reference's update is not fused: the same numbers up to rounding.
    torch.testing.assert_close(list(ours.parameters()), list(plain.parameters()), rtol=1e-5, atol=1e-7)
    expected = [sum(losses[start : start + 3]) / 3 for start in range(0, 12, 3)]
    assert [row["loss"] for row in trained.curve] == pytest.approx(expected, rel=1e-6)
    assert [row["step"] for row in trained.curve] == [3, 6, 9, 12]


def test_the_learning_rate_is_transformers_cosine_with_warmup():
    plan = Plan(steps=40, learning_rate=0.02, warmup=8)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.02)
    reference = get_cosine_with_min_lr_schedule_with_warmup(optimizer, 8, 40, min_lr_rate=0.1)
    for step in range(40):
        # Ours gives the first step a rate above zero: its warm-up is one step ahead.
        ahead = reference.lr_lambdas[0](step + 1 if step < 8 else step)
        assert plan.rate(step) == pytest.approx(0.02 * ahead, rel=1e-9)
        assert plan.rate(step) > 0


@pytest.mark.parametrize("make", [lambda: network(dropout=0.5), lambda: small_model(tied=True)])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, make):
    loss, batch = (
        (regression, regression_batch) if isinstance(make(), torch.nn.Sequential) else (language_loss, token_batch)
    )

    class Cut(Exception):
        pass

    def cut(step):
        if step == 8:
            raise Cut
        return batch(step)

    whole, first, second = make(), make(), make()
    settings = {"checkpoint": tmp_path / "checkpoint", "checkpoint_every": 3}
    torch.manual_seed(1)
    expected = train(whole, loss, batch, PLAN, optimizer=adamw(whole, weight_decay=0.1))
    torch.manual_seed(1)
    with pytest.raises(Cut):
        train(first, loss, cut, PLAN, optimizer=adamw(first, weight_decay=0.1), **settings)
    torch.manual_seed(99)
    seen = []
    resumed = train(
        second,
        loss,
        lambda step: seen.append(step) or batch(step),
        PLAN,
        optimizer=adamw(second, weight_decay=0.1),
        **settings,
    )
    assert seen == [6, 7, 8, 9, 10, 11]
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))
    assert resumed == expected
    assert not list(tmp_path.rglob("*.bin")) + list(tmp_path.rglob("*.pkl")) + list(tmp_path.rglob("*.pt"))


def test_a_checkpoint_of_another_plan_is_refused(tmp_path):
    model = network()
    settings = {"checkpoint": tmp_path / "c", "checkpoint_every": 3}
    train(model, regression, regression_batch, PLAN, optimizer=adamw(model, weight_decay=0), **settings)
    other = Plan(steps=15, learning_rate=0.01, warmup=3, log_every=3)
    with pytest.raises(UserError, match="belongs to another plan"):
        train(model, regression, regression_batch, other, optimizer=adamw(model, weight_decay=0), **settings)


def test_a_checkpoint_interval_that_would_never_save_is_refused(tmp_path):
    model = network()
    with pytest.raises(ValueError, match="checkpoint_every is 4, allowed: a multiple of log_every=3"):
        train(
            model, regression, regression_batch, PLAN, optimizer=adamw(model, weight_decay=0),
            checkpoint=tmp_path / "c", checkpoint_every=4,
        )  # fmt: skip


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run_with_step_and_setting(bad):
    model = network()

    def poisoned(module, batch):
        return regression(module, batch) * batch["factor"]

    def batch(step):
        return regression_batch(step) | {"factor": torch.tensor(bad if step == 7 else 1.0)}

    with pytest.raises(NonFiniteLoss, match=r"step 7 \(lr 3\)"):
        train(model, poisoned, batch, PLAN, optimizer=adamw(model, weight_decay=0), setting="lr 3")


@pytest.mark.parametrize("bad", [float("nan"), 50.0])
def test_a_run_that_may_diverge_reports_the_first_step_above_the_bound(bad):
    model = network()

    def jump(module, batch):
        return regression(module, batch) * 0 + batch["value"]

    def batch(step):
        return regression_batch(step) | {"value": torch.tensor(bad if step >= 4 else 1.0)}

    trained = train(model, jump, batch, PLAN, optimizer=adamw(model, weight_decay=0), stop_above=10.0)
    assert trained.diverged_at == 4
    assert [row["step"] for row in trained.curve] == [3]


@pytest.mark.parametrize("broken_at", [3, 12])
def test_an_evaluation_that_is_not_finite_is_a_divergence_and_no_row_of_the_curve(broken_at):
    def evaluate(module):
        evaluate.calls += 3
        return {"held_out": float("nan") if evaluate.calls >= broken_at else 1.0}

    model = network()
    settings = {"optimizer": adamw(model, weight_decay=0), "evaluate": evaluate}
    evaluate.calls = 0
    trained = train(model, regression, regression_batch, PLAN, stop_above=10.0, **settings)
    assert trained.diverged_at == broken_at - 1
    assert [row["held_out"] for row in trained.curve] == [1.0] * (broken_at // 3 - 1)
    evaluate.calls = 0
    with pytest.raises(NonFiniteLoss, match=rf"evaluation gives .*nan.* at step {broken_at - 1}"):
        train(model, regression, regression_batch, PLAN, **settings)


def test_what_was_used_is_counted_and_not_echoed():
    model = small_model()
    trained = train(model, language_loss, token_batch, PLAN, optimizer=adamw(model, weight_decay=0))
    by_hand = 50 * 16 * 2 + 8 * 16 + 16 * 2 + (16 * 48 + 48 + 16 * 16 + 16 + 16 * 64 + 64 + 64 * 16 + 16 + 16 * 4)
    assert trained.used == {
        "parameters": by_hand,
        "trainable": by_hand,
        "dtype": "float32",
        "precision": "no",
        "device": "cpu",
        "optimizer": "AdamW",
        "examples": 48,
        "tokens": 384,
    }


def test_mixed_precision_is_really_used():
    seen = set()

    def loss(model, batch):
        hidden = model.lm_head(torch.ones(1, 16))
        seen.add(hidden.dtype)
        return language_loss(model, batch)

    for precision in ("bf16", "no"):
        model = small_model()
        plan = Plan(steps=1, learning_rate=0.01, warmup=0, precision=precision)
        trained = train(model, loss, token_batch, plan, optimizer=adamw(model, weight_decay=0))
        assert trained.used["precision"] == precision
    assert seen == {torch.bfloat16, torch.float32}


def test_what_comes_after_training_in_mixed_precision_is_computed_as_the_weights_are():
    model, batch = small_model(), token_batch(0)
    plan = Plan(steps=1, learning_rate=0.01, warmup=0, precision="bf16")
    train(model, language_loss, token_batch, plan, optimizer=adamw(model, weight_decay=0))
    fresh = small_model()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(model(**batch).logits, fresh(**batch).logits)
    # And another training with it is in its precision again.
    dtypes = set()
    model.lm_head.register_forward_hook(lambda layer, inputs, output: dtypes.add(output.dtype))
    train(model, language_loss, token_batch, plan, optimizer=adamw(model, weight_decay=0))
    assert dtypes == {torch.bfloat16}


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_training_lowers_the_loss_of_a_language_model_on_a_text_it_can_learn(family):
    model = small_model(family=family)
    batch = {"input_ids": torch.arange(8).repeat(4, 1)}
    before = language_loss(model, batch).item()
    plan = Plan(steps=60, learning_rate=0.01, warmup=5)
    train(model, language_loss, lambda step: batch, plan, optimizer=adamw(model, weight_decay=0))
    assert language_loss(model, batch).item() < before / 10


def test_a_seed_fixes_a_model_and_another_seed_changes_it():
    """Also in another process: tests/test_distributed.py."""

    def total(model):
        return sum(p.double().abs().sum().item() for p in model.parameters())

    first = total(small_model(0))
    assert total(small_model(0)) == first
    assert total(small_model(1)) != first


def test_the_language_loss_is_the_transformers_own():
    model = small_model()
    ids = token_batch(0)["input_ids"]
    assert language_loss(model, {"input_ids": ids}).item() == pytest.approx(
        model(ids, labels=ids).loss.item(), rel=1e-6
    )
    assert parameter_count(small_model(tied=True)) == parameter_count(model) - 50 * 16


def test_the_batch_size_does_not_move_a_score():
    model = small_model()
    ids = torch.cat([token_batch(step)["input_ids"] for step in range(5)])
    scores = {size: mean_loss(model, ids, batch_size=size) for size in (1, 3, 7, 20)}
    by_row = [language_loss(copy.deepcopy(model), {"input_ids": row[None]}).item() for row in ids]
    assert list(scores.values()) == pytest.approx([sum(by_row) / 20] * 4, rel=1e-6)


@pytest.fixture
def stream(tmp_path):
    path = tmp_path / "train.npy"
    np.save(path, np.arange(103, dtype=np.uint16))
    return path


def test_an_epoch_shows_every_window_once_and_the_next_one_in_another_order(stream):
    batch = shuffled_batches(stream, context=10, batch_size=5, seed=3)
    epochs = [torch.cat([batch(step)["input_ids"] for step in steps]) for steps in ((0, 1), (2, 3))]
    for epoch in epochs:
        assert sorted(epoch[:, 0].tolist()) == list(range(0, 100, 10))
        assert torch.equal(epoch, epoch[:, :1] + torch.arange(10))
    assert not torch.equal(*epochs)
    assert torch.equal(batch(1)["input_ids"], shuffled_batches(stream, 10, 5, 3)(1)["input_ids"])
    assert not torch.equal(batch(1)["input_ids"], shuffled_batches(stream, 10, 5, 4)(1)["input_ids"])


def test_held_out_windows_are_spread_over_the_text(stream):
    assert evenly_spaced(stream, 10, 4)[:, 0].tolist() == [0, 30, 60, 90]


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda s: evenly_spaced(s, 10, 11), "has 10 windows of 10, fewer than the 11 asked for"),
        (lambda s: shuffled_batches(s, 10, 11, 0), "fewer than one batch of 11"),
        (lambda s: shuffled_batches(s, 200, 1, 0), "has 103 tokens, fewer than one context of 200"),
    ],
)
def test_a_text_that_is_too_short_is_named(stream, ask, says):
    with pytest.raises(UserError, match=says):
        ask(stream)
