"""Train a small model by one process or by several, and leave what came of it: run by tests/test_distributed.py.

`python together.py OUT STEPS KIND [CHECKPOINT]`; KIND is plain or sharded.
"""

import contextlib
import json
import os
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType

from common.distributed import train_shared
from common.documents import document_loss
from common.models import new_language_model
from common.training import Plan, adamw

STEPS, ROWS, LENGTH = 12, 6, 10


def batch(step):
    """Rows of unequal lengths: what is learnt of them is not the same number of tokens in each."""
    drawn = torch.Generator().manual_seed(step)
    ids = torch.randint(1, 40, (ROWS, LENGTH), generator=drawn)
    lengths = torch.randint(3, LENGTH + 1, (ROWS, 1), generator=drawn)
    return {"input_ids": ids, "labels": ids.where(torch.arange(LENGTH) < lengths, -100)}


def main(out, steps, kind, checkpoint=None):
    torch.set_num_threads(1)
    state = PartialState(cpu=True)
    if kind == "sharded":
        # accelerate shards weights on GPUs only; nothing else in it asks what the devices are.
        os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_CPU_RAM_EFFICIENT_LOADING": "false"}
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    size = {"hidden": 16, "layers": 2, "heads": 2, "context": LENGTH, "tied": False, "embedding_std": 0.3}
    model = new_language_model("llama", vocab_size=40, **size, seed=0)
    stop = int(steps)

    def cut_off(step):
        if step == stop:
            raise KeyboardInterrupt
        return batch(step)

    kept = {"checkpoint": Path(checkpoint), "checkpoint_every": 3} if checkpoint else {}
    trained, optimizer = None, adamw(model, weight_decay=0.1)
    plan = Plan(STEPS, 0.01, 2, log_every=3)
    with contextlib.suppress(KeyboardInterrupt):
        trained = train_shared(model, document_loss, cut_off, plan, optimizer=optimizer, **kept)
    weight = model.lm_head.weight
    whole = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
    found = {
        "curve": trained.curve if trained else None,
        "head": whole.flatten().tolist(),
        "local": weight.shape.numel(),
    }
    found["sharded"] = hasattr(weight, "full_tensor")
    Path(out).with_suffix(f".{state.process_index}.json").write_text(json.dumps(found))
    state.wait_for_everyone()
    state.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
