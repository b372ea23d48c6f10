"""What a network is trained on and judged by: digits for small perceptrons, bytes of text for small language models."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from common.digits import Batches, mnist_digits, sklearn_digits
from common.errors import UserError
from common.growing.design import Language, Perceptron
from common.models import device
from common.predictors.continuations import Loss
from common.training import Batch, language_loss

EACH = 8  # every eighth position of a text gives a probe
BYTES = 256
FURTHER, SHORT, CONTINUED = 0, 1, 2  # orders of the data with a seed: training on, short runs, continuations
SETS = ("mnist", "digits", "text")


@dataclass(frozen=True)
class Task:
    """A loss and the data: `train` to draw batches from, `judged`, some of it on which minima are judged, the others.

    `logits(model, batch)` are those that a loss sees, `(probes, classes)`. All is on `common.models.device`.
    """

    loss: Loss
    logits: Callable[[nn.Module, Batch], Tensor]
    train: Batch
    judged: Batch
    validation: Batch
    test: Batch
    batch_size: int

    def batches(self, *seed: int) -> Batches:
        """Batches of training data; each epoch passes over all in a new order."""
        return Batches(self.train, self.batch_size, *seed)

    def continued(self, seed: int) -> Callable[[int], Batches]:
        """The batches of each continuation from one network, by its number."""
        return lambda number: self.batches(seed, CONTINUED + number)

    @torch.no_grad()
    def loss_on(self, model: nn.Module, batch: Batch) -> float:
        """Mean loss in nats, in evaluation mode."""
        return self.loss(model.eval(), batch).item()


def task_of(name: str, network: Perceptron | Language, judged: int, *, mnist: Path, sotu: Path) -> Task:
    """The task `name`, one of `SETS`, with batches and windows as the network's knobs have them.

    `judged`: how many examples of the training data minima are judged on. `mnist`, `sotu`: the tables' files.
    """
    if name == "text":
        return _text(sotu, network, judged)
    if name not in SETS:
        raise UserError(f"there is no task {name!r}, allowed: {', '.join(SETS)}")
    drawn = sklearn_digits() if name == "digits" else mnist_digits(pd.read_json(mnist, lines=True))
    return Task(
        digit_loss,
        lambda model, images: model(images["inputs"]),
        _placed(drawn.part("train")),
        _placed(drawn.part("train", judged)),
        _placed(drawn.part("validation")),
        _placed(drawn.part("test")),
        network.batch,
    )


def _placed(batch: Batch) -> Batch:
    """Where models are: all data are small enough to lie there."""
    return {name: tensor.to(device()) for name, tensor in batch.items()}


def digit_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy in nats of `labels (images,)` given `inputs (images, size)`."""
    return nn.functional.cross_entropy(model(batch["inputs"]), batch["labels"])


def _text(sotu: Path, network: Language, judged: int) -> Task:
    context = network.context
    documents = pd.read_json(sotu, lines=True)
    windows = {}
    for split, own in documents.groupby("split"):
        stream = np.frombuffer("\n".join(own["text"]).encode(), np.uint8)
        count = len(stream) // context
        windows[split] = torch.from_numpy(stream[: count * context].reshape(count, context).astype(np.int64))

    def some(split: str, count: int) -> Batch:
        if len(windows[split]) < count:
            raise UserError(f"{split} has {len(windows[split])} windows of {context}, fewer than {count}")
        places = np.linspace(0, len(windows[split]) - 1, count).round().astype(np.int64)
        return _placed({"input_ids": windows[split][places]})

    return Task(
        language_loss,
        lambda model, texts: model(input_ids=texts["input_ids"]).logits[:, EACH - 1 :: EACH].flatten(0, 1),
        _placed({"input_ids": windows["train"]}),
        some("train", judged),
        some("validation", network.held_out),
        some("test", network.held_out),
        network.batch,
    )
