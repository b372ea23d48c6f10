"""Handwritten digits as vectors for small networks: MNIST's, and scikit-learn's as another set to confirm with."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from torch import Tensor

from common.errors import UserError
from common.training import Batch

SIDE = 28


@dataclass(frozen=True)
class Digits:
    """By split, `inputs (images, size)` in float32 and `labels (images,)`; `train`, `validation` and `test`."""

    inputs: dict[str, Tensor]
    labels: dict[str, Tensor]

    def part(self, split: str, count: int | None = None) -> Batch:
        """The first `count` images of a split, all by default, as a batch."""
        return {"inputs": self.inputs[split][:count], "labels": self.labels[split][:count]}

    def batches(self, size: int, seed: int) -> "Batches":
        """Batches of `size` training images by step; each epoch passes over all in a new order."""
        return Batches(self.part("train"), size, seed)


class Batches:
    """From a step to its batch: a function of the step and the seed, one number or several, alone."""

    def __init__(self, examples: Batch, size: int, *seed: int):
        self.examples, self.size = examples, size
        # NumPy takes [3], [3, 0] and [3, 0, 0] for the same seed: how many numbers there are keeps streams apart.
        self.seed = [len(seed), *seed]
        self.count = len(next(iter(examples.values())))
        self.per_epoch = self.count // size
        if not self.per_epoch:
            raise UserError(f"{self.count} examples are fewer than one batch of {size}")
        self.epoch, self.order = -1, torch.empty(0)

    def __call__(self, step: int) -> Batch:
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self.epoch:
            drawn = np.random.default_rng([*self.seed, epoch]).permutation(self.count)
            # Once an epoch to where the examples are: a step waits for no copy.
            there = next(iter(self.examples.values())).device
            self.epoch, self.order = epoch, torch.from_numpy(drawn).to(there, non_blocking=True)
        chosen = self.order[place * self.size : (place + 1) * self.size]
        return {name: tensor[chosen] for name, tensor in self.examples.items()}


def mnist_digits(table: pd.DataFrame, components: int = 50) -> Digits:
    """The table `mnist`: means of 2 × 2 pixels, their first principal components on the training images, scaled.

    All inputs are divided by one number, by which the training images' first component has a standard deviation of one.
    """
    pixels = np.stack([np.frombuffer(bytes.fromhex(text), np.uint8) for text in table["pixels"]])
    images = pixels.reshape(-1, SIDE // 2, 2, SIDE // 2, 2).mean((2, 4)).reshape(len(pixels), -1) / 255
    return _reduced(images, table["label"].to_numpy(), table["split"].to_numpy(), components)


def sklearn_digits(components: int = 50) -> Digits:
    """scikit-learn's 1,797 digits of 8 × 8 pixels (Alpaydin and Kaynak, UCI), prepared alike.

    Of every ten in the order of the set, which mixes writers and digits, one is for validation, two are for testing.
    """
    pixels, labels = load_digits(return_X_y=True)
    place = np.arange(len(labels)) % 10
    split = np.where(place == 7, "validation", np.where(place > 7, "test", "train"))
    return _reduced(pixels / 16, labels, split, components)


def _reduced(images: np.ndarray, labels: np.ndarray, split: np.ndarray, components: int) -> Digits:
    fitted = PCA(components, svd_solver="full").fit(images[split == "train"])
    values = fitted.transform(images) / np.sqrt(fitted.explained_variance_[0])
    inputs, named = {}, {}
    for name in ("train", "validation", "test"):
        inputs[name] = torch.from_numpy(values[split == name].astype(np.float32))
        named[name] = torch.from_numpy(labels[split == name].astype(np.int64))
    return Digits(inputs, named)
