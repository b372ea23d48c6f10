"""What is looked at after a run: each recipe on a model trained without it."""

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from common.batches import evenly_spaced, shuffled_batches
from common.models import new_language_model
from common.quantization import Recipe, quantize
from common.quantization.examination import Examination, examine, outlier_losses
from common.scoring.loss import mean_loss
from common.training import Plan, adamw, language_loss, train

RECIPES = ["W4 tensor", "A8 tensor", "A4 tensor", "A4 token", "G4 tensor", "m2 8 tensor"]
PLAN = {
    "recipes": RECIPES, "outlier_scales": [1.0, 64.0], "outlier_channels": 2, "outlier_windows": 32,
    "surface_tokens": 5, "sharpness_radius": 0.05, "sharpness_batches": 2,
}  # fmt: skip


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def trained(request, tmp_path_factory):
    stream = tmp_path_factory.mktemp("stream") / "ids.npy"
    np.save(stream, np.random.default_rng(0).integers(64, size=4000).repeat(2).astype(np.uint16))
    shape = {"vocab_size": 64, "hidden": 16, "layers": 1, "heads": 2, "context": 16, "tied": False}
    model = new_language_model(request.param, **shape, embedding_std=0.3, seed=0)
    quantize(model, Recipe())
    optimizer = adamw(model, weight_decay=0.1)
    batch = shuffled_batches(stream, 16, 8, 0)
    train(model, language_loss, batch, Plan(60, 0.01, 5), optimizer=optimizer)
    return model, lambda model: language_loss(model, batch(0)), optimizer, evenly_spaced(stream, 16, 32)


def test_every_recipe_is_in_the_tables_of_its_component_and_the_model_stays_as_it_was(trained):
    model, loss, optimizer, ids = trained
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tables = examine(model, loss, optimizer, ids, Examination(**PLAN))
    settings = {name: set(table["setting"]) for name, table in tables.items() if "setting" in table}
    assert settings == {
        "gradient_errors": {"G4 tensor"},
        "output_errors": {"W4 tensor", "A8 tensor", "A4 tensor", "A4 token"},
        "second_moment": {"m2 8 tensor"},
        "outliers": {"W4 tensor", "A8 tensor", "A4 tensor", "A4 token"},
    }
    assert tables["surface"]["token"].max() == 4
    assert tables["surface"]["channel"].max() == 15
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_outliers_cost_only_what_a_recipe_makes_of_them(trained):
    model, _, _, ids = trained
    settings = [Recipe.named(label) for label in ("A8 tensor", "A4 tensor", "A4 token")]
    table = outlier_losses(model, ids, settings, [1.0, 8.0], [0, 1])
    by_setting = table.pivot(index="setting", columns="scale", values="loss")
    rises = by_setting[8.0] - by_setting[1.0]
    assert rises["A4 tensor"] > rises["A8 tensor"] > 0
    assert rises["A4 tensor"] > rises["A4 token"]
    plain = outlier_losses(model, ids, [Recipe()], [1.0, 64.0], [0, 1])["loss"]
    assert plain.tolist() == pytest.approx([mean_loss(model, ids)] * 2, abs=1e-5)


@pytest.mark.parametrize(
    ("recipes", "says"),
    [
        (RECIPES[1:4], "recipes: none quantises weights, gradients, second_moment"),
        ([*RECIPES, "W8 channel + A8 token"], "'W8 channel . A8 token' must quantise one of"),
        ([*RECIPES, "m1 4 tensor"], "'m1 4 tensor' must quantise one of"),
        ([*RECIPES, "full precision"], "'full precision' must quantise one of"),
    ],
)
def test_recipes_that_would_leave_a_table_empty_or_blur_it_are_refused(recipes, says):
    with pytest.raises(ValidationError, match=says):
        Examination(**PLAN | {"recipes": recipes})


def test_tables_hold_plain_numbers_in_tidy_columns(trained):
    model, loss, optimizer, ids = trained
    for name, table in examine(model, loss, optimizer, ids, Examination(**PLAN)).items():
        assert isinstance(table, pd.DataFrame), name
        assert not table.isna().any(axis=None), name
        assert len(table), name
