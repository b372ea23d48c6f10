"""A small training for tests/test_distributed.py, which runs it alone and launches this program in two processes.

`python together.py FOLDER`: it has the checkpoints `one` and `one, to shard`, and gets `two`, `sharded`, and what each
process found.
"""

import contextlib
import json
import os
import shutil
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType

from common.distributed import train_shared
from common.documents import document_loss
from common.errors import UserError
from common.models import new_language_model
from common.training import Plan, adamw

STEPS, ROWS, LENGTH = 12, 6, 10
CUT = STEPS // 2 + 1  # after the checkpoint at half way


def batch(step):
    """Rows of unequal lengths: what is learnt of them is not the same number of tokens in each."""
    drawn = torch.Generator().manual_seed(step)
    ids = (torch.randint(39, (ROWS, 1), generator=drawn) + torch.arange(LENGTH)) % 39 + 1  # one more each time
    lengths = torch.randint(3, LENGTH + 1, (ROWS, 1), generator=drawn)
    return {"input_ids": ids, "labels": ids.where(torch.arange(LENGTH) < lengths, -100)}


def trained(checkpoint=None, stop=STEPS):
    """Curve of a training, none if cut off; first weights, last head, how many of its weights this process holds."""

    def until(step):
        if step == stop:
            raise KeyboardInterrupt
        return batch(step)

    size = {"hidden": 16, "layers": 2, "heads": 2, "context": LENGTH, "tied": True, "embedding_std": 0.3}
    model = new_language_model("llama", vocab_size=40, **size, seed=0)
    drawn = [parameter.double().abs().sum().item() for parameter in model.parameters()]
    kept = {"checkpoint": checkpoint, "checkpoint_every": 3} if checkpoint else {}
    plan, ended = Plan(STEPS, 0.02, 2, log_every=3), None
    with contextlib.suppress(KeyboardInterrupt):
        ended = train_shared(model, document_loss, until, plan, optimizer=adamw(model, weight_decay=0.1), **kept)
    weight = model.lm_head.weight
    whole = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
    held = getattr(weight, "to_local", lambda: weight)().numel()
    return {"curve": ended and ended.curve, "drawn": drawn, "head": whole.flatten().tolist(), "held": held}


@contextlib.contextmanager
def sharding(version=2):
    """Have what is trained in the block share its weights.

    accelerate shards weights on GPUs only; nothing else in it asks what the devices are.
    """
    before, state = dict(os.environ), PartialState()
    plain, state.distributed_type = state.distributed_type, DistributedType.MULTI_GPU
    os.environ |= {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": f"{version}",
        "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
    }
    yield
    os.environ.clear()
    os.environ |= before
    state.distributed_type = plain


def main(folder):
    torch.set_num_threads(1)
    state, folder = PartialState(cpu=True), Path(folder)
    found = {"whole": trained(), "cut": trained(folder / "two", CUT), "gone on": trained(folder / "one")}
    with sharding():
        found["sharded"] = trained(folder / "undisturbed")
        found["sharded, cut"] = trained(folder / "sharded", CUT)
        found["sharded, gone on"] = trained(folder / "one, to shard")
    if state.is_main_process:
        shutil.copytree(folder / "sharded", folder / "sharded, for two")
    found["gone on from shares"] = trained(folder / "sharded, for two")
    with sharding(version=1):
        try:
            trained(folder / "refused")
        except UserError as error:
            found["refused"] = str(error)
    (folder / f"{state.process_index}.json").write_text(json.dumps(found))
    state.wait_for_everyone()
    state.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
