"""The training loop on several devices: the same batches, the same losses, the same checkpoints as on one.

Run by `accelerate launch` or `torchrun`, each process calls `train_shared` as one process would call `train`, on which
it rests: accelerate wraps the model (DDP, or FSDP where its configuration says so) and averages gradients. Added is
what must not depend on how many processes there are: each takes its share of every batch's rows, a loss is the mean
over all of them, and one process writes the checkpoint, the same whatever shared the work (`common.sharded`).
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from accelerate import PartialState

from common.documents import IGNORED
from common.errors import UserError
from common.training import Batch, Plan, Trained, train

Loss = Callable[[torch.nn.Module, Batch], torch.Tensor]


def predicted(batch: Batch) -> torch.Tensor | int:
    """How many tokens a mean loss is over: those that `labels` count, or all but the first of each row of ids."""
    if "labels" in batch:
        return (batch["labels"][:, 1:] != IGNORED).sum()
    ids = batch["input_ids"]
    return ids.shape[0] * (ids.shape[1] - 1)


def shared_loss(loss: Loss, rank: int, processes: int) -> Loss:
    """A loss of which each process computes its rows', and every one is told the mean over all tokens of the batch.

    The mean of the processes' gradients is the gradient of that mean, also where rows have unequal numbers of tokens
    and where those of a process have none that counts.
    `loss(model, batch)` must be a mean over what `predicted` counts. Raises `UserError` for a batch of fewer rows than
    processes.
    """

    def share(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        rows = len(next(iter(batch.values())))
        if rows < processes:
            raise UserError(f"a batch of {rows} rows cannot be shared by {processes} processes")
        own = {name: value[rank::processes] for name, value in batch.items()}
        weight = predicted(own) * processes / predicted(batch)
        if "labels" in own:
            # The mean over no token is no number, whatever its weight, and DDP waits for a gradient of every process:
            # all tokens give one, times 0. Which it is the device alone knows, and the host does not ask.
            own["labels"] = own["labels"].where(predicted(own) > 0, own["input_ids"])
        value = loss(model, own) * weight
        whole = value.detach().clone()
        dist.all_reduce(whole)
        return value + (whole / processes - value.detach())  # the number is the whole batch's, the gradient its own

    return share


def train_shared(
    model: torch.nn.Module,
    loss: Loss,
    batch: Callable[[int], Batch],
    plan: Plan,
    **more: object,
) -> Trained:
    """`common.training.train` by all processes that were launched together, or by this one alone.

    Takes what `train` takes and gives every process the same curve. `batch(step)` must be the same in all. The first
    process writes the checkpoint, which one process or any number goes on from, by DDP or FSDP; all must see its
    folder. `UserError` for a checkpoint under FSDP's version 1.
    """
    state = PartialState()
    kind = state.distributed_type
    if state.num_processes > 1:
        # What the first wrote before is there for all. It writes again only after a step, in which all take part, and
        # each reads before its first.
        state.wait_for_everyone()
        loss = shared_loss(loss, state.process_index, state.num_processes)
    try:
        return train(model, loss, batch, plan, **more)
    finally:
        state.distributed_type = kind  # accelerate notes FSDP here, and where it stands sets up no second one
