"""Losses of preference tuning: TRL's own code where it has the loss, else a closed form in float64."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import strategies as st
from trl.experimental.cpo.cpo_trainer import CPOTrainer
from trl.experimental.orpo.orpo_trainer import ORPOTrainer
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.kto_trainer import KTOTrainer

from common.errors import UserError
from common.preference.losses import LOSSES, use

PAIRS = 6
TENSORS = ("chosen", "rejected", "mismatched")
PARAMETERS = {
    "sft": {}, "sigmoid": {"beta": 0.3}, "hinge": {"beta": 0.3}, "ipo": {"beta": 0.3}, "sigmoid_norm": {"beta": 2.0},
    "robust": {"beta": 0.3, "label_smoothing": 0.2}, "bco": {"beta": 0.3}, "orpo": {"beta": 0.4}, "poft": {},
    "kto": {"beta": 0.3, "desirable_weight": 1.3, "undesirable_weight": 0.7},
    "simpo": {"beta": 2.0, "simpo_gamma": 0.8},
}  # fmt: skip


def drawn(seed, scale=1.0):
    """Log-probabilities of completions of 2 to 9 tokens that trained and reference model find equally likely or not."""
    rng = np.random.default_rng(seed)
    tokens = {name: torch.from_numpy(rng.integers(2, 10, PAIRS)) for name in TENSORS}
    found = {f"{name}_tokens": count for name, count in tokens.items()}
    for name, count in tokens.items():
        found[f"ref_{name}"] = torch.from_numpy(-rng.gamma(2, 1, PAIRS)) * count
        found[name] = found[f"ref_{name}"] + scale * torch.from_numpy(rng.normal(0.1, 1, PAIRS))
        found[name] = found[name].clamp(max=-0.01).float().requires_grad_()
        found[f"ref_{name}"] = found[f"ref_{name}"].float()
    found["aligned"] = torch.from_numpy(rng.normal(-8, 4, (PAIRS, 3))).float()
    return found


def ours(name, tensors, parameters):
    loss = use(name, parameters)
    value = loss(tensors)
    return value, gradients(value, tensors)


def gradients(value, tensors):
    found = torch.autograd.grad(value, [tensors[name] for name in TENSORS], allow_unused=True)
    return torch.stack([torch.zeros(PAIRS) if each is None else each for each in found])


class Spread(torch.nn.Module):
    """Stands in for a model under TRL: gives each completion's log-probability, spread over its tokens."""

    def __init__(self, logs, tokens):
        super().__init__()
        self.logs, self.lengths = logs, tokens

    def forward(self, labels, **_):
        counted = labels[:, 1:] != -100
        assert counted.sum(1).tolist() == self.lengths.tolist()
        log_probs = counted * (self.logs / self.lengths)[:, None]
        zeros = torch.zeros_like(log_probs)
        return SimpleNamespace(log_probs=log_probs, entropy=zeros, mean_logits=zeros, is_top1=counted)


def ids_of(tokens):
    """Ids and masks of sequences of one prompt token and a completion of so many."""
    mask = torch.arange(int(tokens.max()) + 1)[None] <= tokens[:, None]
    completion = mask.long()
    completion[:, 0] = 0
    return {"input_ids": mask.long(), "attention_mask": mask.long(), "completion_mask": completion}


def trainer(model, **settings):
    """What TRL's methods look at of a trainer."""
    plain = {"aux_loss_enabled": False, "precompute_ref_logps": True, "ref_model": None, "_total_train_tokens": 0}
    metrics = {"train": {}}
    made = SimpleNamespace(**plain | settings, model=model, accelerator=Accelerator(cpu=True), _tp_size=1)
    made._metrics = {"train": _Lists(metrics["train"])}
    return made


class _Lists(dict):
    def __missing__(self, key):
        self[key] = []
        return self[key]


def under_dpo(loss_type, tensors, beta, label_smoothing=0.0):
    tokens = torch.cat([tensors["chosen_tokens"], tensors["rejected_tokens"]])
    model = Spread(torch.cat([tensors["chosen"], tensors["rejected"]]), tokens)
    settings = {"loss_types": [loss_type], "loss_weights": [1.0], "beta": beta, "label_smoothing": label_smoothing}
    rest = {"ld_alpha": None, "f_divergence_type": "reverse_kl", "use_weighting": False}
    references = {f"{name}_logps": tensors[name] for name in ("ref_chosen", "ref_rejected")}
    return DPOTrainer._compute_loss(trainer(model, **settings, **rest), model, ids_of(tokens) | references, False)


def under_kto(tensors, beta, desirable_weight, undesirable_weight):
    tokens = torch.cat([tensors["chosen_tokens"], tensors["rejected_tokens"]])
    model = Spread(torch.cat([tensors["chosen"], tensors["rejected"]]), tokens)
    settings = {"beta": beta, "desirable_weight": desirable_weight, "undesirable_weight": undesirable_weight}
    made = trainer(model, loss_type="kto", calculate_KL=True, **settings)
    made._compute_kl_logps = lambda *_: tensors["mismatched"]
    label = torch.tensor([1] * PAIRS + [0] * PAIRS)
    references = torch.cat([tensors["ref_chosen"], tensors["ref_rejected"]])
    inputs = ids_of(tokens) | {"label": label, "ref_logps": references, "ref_KL_logps": tensors["ref_mismatched"]}
    return KTOTrainer._compute_loss(made, model, inputs, False)


def without_reference(trainer_class, made, tensors):
    """ORPO's and CPO's whole loss, given the mean log-probabilities and the cross-entropy that their model gives."""
    means = [tensors[name] / tensors[f"{name}_tokens"] for name in ("chosen", "rejected")]
    nll = -tensors["chosen"].sum() / tensors["chosen_tokens"].sum()
    nothing = torch.zeros(1)
    made.concatenated_forward = lambda *_: (*means, nothing, nothing, nll)
    return trainer_class.get_batch_loss_metrics(made, None, {})[0]


def under_orpo(tensors, beta):
    made = trainer(None, beta=beta)
    made.odds_ratio_loss = lambda *logs: ORPOTrainer.odds_ratio_loss(made, *logs)
    return without_reference(ORPOTrainer, made, tensors)


def under_simpo(tensors, beta, simpo_gamma):
    settings = {
        "loss_type": "simpo",
        "simpo_gamma": simpo_gamma,
        "label_smoothing": 0.0,
        "alpha": 0.0,
        "cpo_alpha": 0.0,
    }
    made = trainer(None, beta=beta, **settings)
    made.cpo_loss = lambda *logs: CPOTrainer.cpo_loss(made, *logs)
    return without_reference(CPOTrainer, made, tensors)


def under_conservative(tensors, beta, label_smoothing):
    """TRL 1.16 smooths CPO's labels, not DPO's; DPO is CPO on the log-ratios."""
    settings = {"loss_type": "sigmoid", "label_smoothing": label_smoothing, "alpha": 0.0}
    ratios = [tensors[name] - tensors[f"ref_{name}"] for name in ("chosen", "rejected")]
    return CPOTrainer.cpo_loss(trainer(None, beta=beta, **settings), *ratios)[0].mean()


PEERS = {
    **{name: lambda t, name=name, **p: under_dpo(name, t, **p) for name in ("sigmoid", "hinge", "ipo", "sigmoid_norm")},
    "robust": lambda t, **p: under_dpo("robust", t, **p),
    "sft": lambda t: under_dpo("sft", t, beta=1.0),
    "kto": under_kto, "orpo": under_orpo, "simpo": under_simpo,
}  # fmt: skip


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.parametrize("scale", [0.1, 1, 30])
def test_value_and_gradient_are_those_of_trl(name, scale):
    for seed in range(3):
        tensors = drawn(seed, scale)
        value, slopes = ours(name, tensors, PARAMETERS[name])
        peer = PEERS[name](tensors, **PARAMETERS[name])
        assert value.item() == pytest.approx(peer.item(), abs=1e-5, rel=1e-5)
        torch.testing.assert_close(slopes, gradients(peer, tensors), atol=1e-5, rtol=1e-5)
        assert slopes.any() or (name == "hinge" and not value)


def test_smoothed_labels_are_those_of_trl():
    tensors, parameters = drawn(0), {"beta": 0.3, "label_smoothing": 0.2}
    value, slopes = ours("sigmoid", tensors, parameters)
    peer = under_conservative(tensors, **parameters)
    assert value.item() == pytest.approx(peer.item(), abs=1e-6)
    torch.testing.assert_close(slopes, gradients(peer, tensors))


def test_bco_with_rewards_that_are_balanced_is_that_of_trl():
    tensors = drawn(0)
    with torch.no_grad():
        rewards = [(tensors[name] - tensors[f"ref_{name}"]).mean() for name in ("chosen", "rejected")]
        tensors["ref_rejected"] += sum(rewards)  # the shift becomes 0, which is TRL's loss
    value, slopes = ours("bco", tensors, {"beta": 0.3})
    peer = under_dpo("bco_pair", tensors, 0.3)
    assert value.item() == pytest.approx(peer.item(), abs=1e-5)
    torch.testing.assert_close(slopes, gradients(peer, tensors), atol=1e-5, rtol=1e-5)


def as_numbers(tensors):
    return {name: value.detach().double().numpy() for name, value in tensors.items()}


def falling(x):
    return 1 / (1 + np.exp(x))  # the slope of -log sigmoid, with its sign turned


def test_bco_by_hand():
    tensors = drawn(3)
    n, beta = as_numbers(tensors), 0.3
    good, bad = beta * (n["chosen"] - n["ref_chosen"]), beta * (n["rejected"] - n["ref_rejected"])
    middle = (good.mean() + bad.mean()) / 2
    assert abs(middle) > 0.01
    value, slopes = ours("bco", tensors, {"beta": beta})
    expected = np.mean(np.log1p(np.exp(middle - good))) + np.mean(np.log1p(np.exp(bad - middle)))
    assert value.item() == pytest.approx(expected, abs=1e-6)
    by_hand = beta / PAIRS * np.array([-falling(good - middle), falling(middle - bad), 0 * good])
    np.testing.assert_allclose(slopes, by_hand, atol=1e-6)


def test_poft_by_hand():
    tensors = drawn(4)
    n = as_numbers(tensors)
    ahead = n["chosen"][:, None] - n["aligned"]
    value, slopes = ours("poft", tensors, {})
    assert value.item() == pytest.approx(np.mean(np.logaddexp(0, -ahead)), abs=1e-5)
    np.testing.assert_allclose(slopes[0], -falling(ahead).mean(1) / PAIRS, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "bco"])  # whose shift has no gradient by design
def test_the_gradient_is_the_slope_in_float64(name):
    tensors = {key: value.detach().double() for key, value in drawn(5).items()}
    loss = use(name, PARAMETERS[name])
    inputs = [tensors[key].requires_grad_() for key in ("chosen", "rejected") if key in loss.tensors]
    assert torch.autograd.gradcheck(lambda *_: loss(tensors), inputs)


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("sft", "poft", "ipo")])
@given(seed=st.integers(0, 10**6))
def test_a_better_chosen_and_a_worse_rejected_completion_never_cost(name, seed):
    tensors = {key: value.detach() for key, value in drawn(seed, 3.0).items()}
    tensors["chosen"].clamp_(max=-0.5)
    loss = use(name, PARAMETERS[name])
    better = tensors | {"chosen": tensors["chosen"] + 0.01, "rejected": tensors["rejected"] - 0.01}
    assert loss(better) <= loss(tensors) + 1e-6


@pytest.mark.parametrize("name", LOSSES)
def test_certain_and_impossible_completions_give_finite_losses(name):
    tensors = {key: value.detach() for key, value in drawn(6).items()}
    tensors["chosen"] = torch.tensor([-1e-7, -1e4] * 3, requires_grad=True)
    tensors["rejected"] = torch.tensor([-1e4, -1e-7] * 3, requires_grad=True)
    value = use(name, PARAMETERS[name])(tensors)
    value.backward()
    assert value.isfinite()
    assert all(tensors[key].grad is None or tensors[key].grad.isfinite().all() for key in ("chosen", "rejected"))


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("dpq", {}, "loss dpq: there is none of that name, allowed: sft, sigmoid"),
        ("sft", {"beta": 0.1}, "loss sft does not use beta, allowed: no parameter"),
        ("hinge", {"beta": 0.1, "label_smoothing": 0.1}, "loss hinge does not use label_smoothing, allowed: beta"),
        ("simpo", {"beta": 2.0}, "loss simpo needs simpo_gamma"),
        ("sigmoid", {}, "loss sigmoid needs beta"),
        ("sigmoid", {"beta": 0.0}, "loss sigmoid: beta is 0.0, allowed: above 0"),
        ("sigmoid", {"beta": math.nan}, "loss sigmoid: beta is nan"),
        ("robust", {"beta": 0.1, "label_smoothing": 0.5}, "label_smoothing is 0.5, allowed: from 0 to below .5"),
    ],
)
def test_parameters_that_a_loss_does_not_use_or_lacks_are_refused(name, parameters, message):
    with pytest.raises(UserError, match=message):
        use(name, parameters)
