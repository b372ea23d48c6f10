"""Growing small networks: tasks, candidates, what a run says of them, slices of the surface."""

from importlib.metadata import version

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from common.connectivity import canonical
from common.errors import UserError
from common.growing.design import Course, Sizes, Widths
from common.growing.examination import costs, short_runs, size_of, walk_of
from common.growing.minima import measure_walks, slice_surface
from common.growing.networks import grow, keep_network, moved, network_of, new_network, open_network
from common.growing.runs import examine, pretrain
from common.growing.surfaces import plane
from common.growing.tasks import FURTHER, SHORT, task_of
from common.predictors import continuations
from grown import COURSE, LANGUAGE, PERCEPTRON, write_tables

NETWORKS = {"mnist": PERCEPTRON, "digits": PERCEPTRON, "text": LANGUAGE}
WIDER = {"mnist": {"widths": [9, 8], "width": "zero"}, "text": {"to": {"ff": 48}, "width": "zero"}}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_tables(tmp_path_factory.mktemp("tables"))


@pytest.fixture(scope="module")
def bases(files, tmp_path_factory):
    kept = {}
    for task in ("mnist", "text"):
        kept[task] = tmp_path_factory.mktemp(task)
        pretrain(task, NETWORKS[task], 0, version("scikit-learn"), keep=kept[task], **files)
    return kept


def opened(task, files, seed=0):
    network = network_of(task, NETWORKS[task])
    data = task_of(task, network, COURSE["judged"], **files)
    return network, data, new_network(network, data, seed)


def asked(task, files, bases, grown, **more):
    cell = {"task": task, "network": NETWORKS[task], "course": COURSE, "grown": grown, "seed": 0} | more
    return cell | {"base": "start", "scikit_learn": version("scikit-learn"), "start": bases[task], **files}


def test_text_is_bytes_and_splits_share_none(files):
    _, data, model = opened("text", files)
    rows = data.train["input_ids"]
    assert bytes(rows[0].tolist()).decode() in files["sotu"].read_text()
    assert data.validation["input_ids"].shape == (4, 16)
    assert data.logits(model, data.judged).shape == (16 * 2, 256)
    with pytest.raises(UserError, match="validation has"):
        task_of("text", network_of("text", LANGUAGE | {"held_out": 10_000}), 4, **files)


def test_every_purpose_has_an_order_of_its_own(files):
    _, data, _ = opened("text", files)
    orders = [data.batches(0), data.batches(0, FURTHER), data.batches(0, SHORT), *map(data.continued(0), (0, 1))]
    length = orders[0].per_epoch
    seen = [
        torch.cat([order(step)["input_ids"] for step in range(epoch * length, (epoch + 1) * length)])
        for order in orders
        for epoch in range(3)  # an epoch of the one must not be a later one of the other
    ]
    assert len({rows.numpy().tobytes() for rows in seen}) == len(seen)


def test_noise_is_for_noisy_copies_alone_and_reaches_them(files):
    _, _, model = opened("mnist", files)
    with pytest.raises(ValidationError, match="noise is None with width copy_noise"):
        Widths(widths=[9, 8], width="copy_noise")
    with pytest.raises(ValidationError, match=r"noise is 0\.1 with width zero"):
        Widths(widths=[9, 8], width="zero", noise=0.1)
    ways = [{"width": "net2wider"}, *({"width": "copy_noise", "noise": noise} for noise in (0.1, 0.3))]
    exact, less, more = (grow(model, {"widths": [9, 8], **way}, seed=0)[0][0].weight for way in ways)
    assert (less - exact).abs().max() > 0
    torch.testing.assert_close(more - exact, 3 * (less - exact), atol=1e-6, rtol=1e-4)


def test_batches_are_those_of_their_seed(files):
    _, data, _ = opened("mnist", files)
    first, again, other = (data.batches(*seed)(3)["inputs"] for seed in ((1, 2), (1, 2), (1, 3)))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(first) == 16
    # A loss on data is a mean over them.
    model = nn.Linear(50, 10)
    images = data.test
    said = -torch.log_softmax(model(images["inputs"]), 1)[torch.arange(len(images["labels"])), images["labels"]].mean()
    assert data.loss_on(model, images) == pytest.approx(said.item())


@pytest.mark.parametrize("task", ["mnist", "text"])
def test_a_network_is_fixed_by_its_seed_and_kept_whole(task, files, tmp_path):
    network, data, model = opened(task, files)
    same, other = (new_network(network, data, seed) for seed in (0, 1))
    assert moved(model.eval(), same, data) == 0
    assert moved(model, other, data) > 0.1
    keep_network(model, tmp_path)
    assert moved(model, open_network(network, data, tmp_path), data) == 0


def test_candidates_say_how_they_grow():
    for wrong in ({}, {"widths": [9, 8]}, {"widths": [9, 8], "width": "zero", "depth": "stack"}, {"width": "zero"}):
        with pytest.raises(ValidationError, match=r"allowed: a way|nothing grows"):
            Widths.model_validate(wrong)
    with pytest.raises(ValidationError, match="allowed: a way"):
        Sizes.model_validate({"to": {"layers": 2}, "width": "zero"})
    with pytest.raises(ValidationError):
        Widths.model_validate({"widths": [9, 8], "width": "magic"})


def test_what_should_preserve_the_function_does_and_random_units_do_not(files):
    both = {"to": {"layers": 2, "ff": 48}, "width": "zero", "depth": "identity"}
    for task, preserving, other in (
        ("mnist", {"layers": 3, "depth": "identity"}, {"widths": [9, 8], "width": "random"}),
        ("text", both, {"to": {"ff": 48}, "width": "random"}),
    ):
        _, data, model = opened(task, files)
        grown, said = grow(model, preserving, 0)
        assert said
        assert moved(model.eval(), grown, data) < 1e-5
        grown, said = grow(model, other, 0)
        assert not said
        assert moved(model, grown, data) > 0.002
        assert moved(model, grow(model, None, 0)[0], data) == 0


def test_costs_are_passes_over_data(files):
    _, data, _ = opened("mnist", files)
    found = costs(data, walk_of(Course.model_validate(COURSE)))
    # 16 judged images are one batch; three continuations of four steps; five places on each of three lines.
    assert found["m"] == pytest.approx(12 + (3 + 5 * 3) / 3)
    assert found["level"] == pytest.approx(12 + 15 / 3)
    assert found["volume"] == pytest.approx(12 + 3 / 3)
    assert found["m_c"] == 12
    assert found["parameters"] == 0
    assert found["loss_before"] == pytest.approx(1 / 3)
    assert found["gradient_norm"] == found["snip"] == 1
    assert found["hessian_trace"] == 17


def test_short_runs_take_shares_of_ms_cost_and_promise_more_when_longer(files):
    _, data, model = opened("mnist", files)
    rows = short_runs(model, data, Course.model_validate(COURSE), [0.003, 0.01], [0.5, 1.0, 3.0], 0)
    assert [(row["share"], row["steps"], row["rate"]) for row in rows] == [
        (0.5, 9, 0.003), (0.5, 9, 0.01), (1.0, 18, 0.003), (1.0, 18, 0.01), (3.0, 54, 0.003), (3.0, 54, 0.01),
    ]  # fmt: skip
    promised = [row["promise"] for row in rows if row["rate"] == 0.01]
    assert promised == sorted(promised)


@pytest.mark.parametrize("task", ["mnist", "text"])
def test_a_run_asks_every_predictor_and_trains_on(task, files, bases):
    short = {"rates": [0.01], "shares": [1.0]}
    base = examine(**asked(task, files, bases, None, **short))
    grown = examine(**asked(task, files, bases, WIDER[task], **short))
    assert grown["parameters"] > base["parameters"]
    assert grown["moved"] < 1e-4
    assert base["moved"] == 0
    assert grown["m"] == pytest.approx(grown["volume"] + grown["level"])
    assert grown["level"] == pytest.approx(-np.log(grown["loss"]))
    # The function is the same, and so is the loss; training on changed both.
    assert grown["loss_before"] == pytest.approx(base["loss_before"], abs=1e-4)
    assert grown["curve"]["test_loss"][0] == pytest.approx(base["curve"]["test_loss"][0], abs=1e-4)
    assert grown["test_loss"] != base["test_loss"]
    assert grown["test_loss"] == grown["curve"]["test_loss"][-1]
    assert {"naswot", "synflow", "snip", "gradient_norm", "sharpness", "hessian_trace"} <= grown.keys()
    assert len(grown["short"]["promise"]) == 1
    assert examine(**asked(task, files, bases, WIDER[task], **short)) == grown


def test_a_run_refuses_another_package_and_a_candidate_that_does_not_grow(files, bases):
    short = {"rates": [0.01], "shares": [1.0]}
    with pytest.raises(UserError, match=r"asks for 0\.0\.1"):
        examine(**asked("mnist", files, bases, None, **short) | {"scikit_learn": "0.0.1"})
    with pytest.raises(UserError, match="makes nothing larger"):
        examine(**asked("mnist", files, bases, {"widths": [6, 6], "width": "zero"}, **short))
    with pytest.raises(UserError, match="there is no task 'cats'"):
        task_of("cats", network_of("mnist", PERCEPTRON), 4, **files)


def test_walks_at_the_course_own_k_and_t_are_its_m(files, bases):
    found = measure_walks(**asked("mnist", files, bases, WIDER["mnist"], counts=[3, 4], steps=[4, 6]))["walks"]
    alone = measure_walks(**asked("mnist", files, bases, WIDER["mnist"], counts=[3], steps=[6]))["walks"]
    m = examine(**asked("mnist", files, bases, WIDER["mnist"], rates=[0.01], shares=[1.0]))["m"]
    assert list(zip(found["count"], found["steps"], strict=True)) == [(3, 4), (4, 4), (3, 6), (4, 6)]
    assert alone["m"] == [found["m"][2]]
    assert found["m"][0] == m
    assert len(set(found["m"])) == 4
    # Without the lines the loss is lower by what lies between the minima, or higher where a valley does.
    network, data, _ = opened("mnist", files)
    start = canonical(grow(open_network(network, data, bases["mnist"]), WIDER["mnist"], 0)[0])
    ends = continuations(start, data.loss, data.continued(0), walk_of(Course.model_validate(COURSE)))
    losses = [data.loss_on(end, data.judged) for end in ends]
    whole = size_of(start, ends, data, walk_of(Course.model_validate(COURSE)))
    assert found["m_at_ends"][0] == pytest.approx(m + np.log(whole.loss) - np.log(np.mean(losses)), abs=1e-6)
    assert found["m_at_ends"][0] != found["m"][0]


def test_a_slice_goes_through_its_minima(files, bases):
    _, data, model = opened("mnist", files)
    surface, minima = plane(model, data, walk_of(Course.model_validate(COURSE)), 5, 0)
    assert len(surface) == 25
    (first, second, third) = minima
    assert (first["x"], first["y"]) == (0, 0)
    assert second["x"] > 0
    assert second["y"] == pytest.approx(0, abs=1e-9)
    assert third["y"] > 0
    xs, ys = sorted({point["x"] for point in surface}), sorted({point["y"] for point in surface})
    assert xs[0] < min(0, third["x"])
    assert ys[-1] > third["y"]
    assert len(xs) == len(ys) == 5
    found = slice_surface(**asked("mnist", files, bases, WIDER["mnist"], places=5))
    assert len(found["surface"]["loss"]) == 25
    assert found["minima"]["minimum"] == [1, 2, 3]
