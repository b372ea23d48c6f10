"""Memory of every training and examination of scales, and training's speed on the GPU that is there.

    python benchmarks/gpu.py [--scale gpu ...] [--study bases ...] [--steps 20] [--plan] [--out benchmarks/gpu.md]

Memory is computed (see common.footprint), on any machine. Speed is measured: tokens a second of the training loop on
random tokens, and what share that is of the bfloat16 peak, itself measured as the product of two large matrices, at six
operations a token and parameter (Kaplan et al., arXiv 2001.08361), embeddings left out unless they are the head too.
Without a GPU it is measured on the CPU where --cpu asks for it, which is for small scales; --plan leaves it out. A
model that does not fit is told as that and the next one is tried.
"""

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import torch
import typer

from common.documents import document_loss
from common.errors import UserError, run_command
from common.footprint import GIB, OF_STUDY, Footprint, Training, examination, footprint, trainings
from common.gpu_workers import packed
from common.machine import Gpu
from common.models import parameter_count
from common.preference.adapters import Lora, attach
from common.preference.recomputing import recomputing
from common.scales import has_section
from common.training import Plan, adamw, train

SIZES = (24, 80, 141)  # GB of usual GPUs, for which it is told how many runs fit
CORES = 64  # no limit: what fits is asked of memory alone
WARM = 3  # steps before the clock starts
SIDE = 8192  # of the matrices whose product gives the peak


def main(
    scale: Annotated[list[str] | None, typer.Option(help="Files in scales/; by default gpu.")] = None,
    study: Annotated[list[str] | None, typer.Option(help="Studies; by default all that train language models.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps that are timed.")] = 20,
    plan: Annotated[bool, typer.Option(help="Memory only, computed.")] = False,
    cpu: Annotated[bool, typer.Option(help="Measure on the CPU.")] = False,
    side: Annotated[int, typer.Option(min=1, help="Of the matrices whose product gives the peak.")] = SIDE,
    out: Annotated[Path | None, typer.Option(help="A Markdown file; by default the terminal.")] = None,
) -> None:
    """Compute memory and measure speed of what scales train."""
    scales = scale or ["gpu"]
    chosen = [(one, name) for one in scales for name in study or _studies(one)]
    every = [(one, each) for one, name in chosen for each in trainings(name, one)]
    if not plan and not cpu and not torch.cuda.is_available():
        raise UserError("this machine has no GPU to measure: --plan computes memory, --cpu measures a small scale here")
    options = [*(f"--scale {one}" for one in scales), *(["--plan"] if plan else ["--cpu"] if cpu else [])]
    command = " ".join(["python benchmarks/gpu.py", *options])
    text = f"# What training takes on a GPU\n\nWritten by `{command}` (torch {torch.__version__}).\n\n"
    rows = [(one, each.study, each.name, f"{each.rows} × {each.length}", footprint(each)) for one, each in every]
    rows += [(one, name, "examination", "–", examination(name, one)) for one, name in chosen]
    text += memory(sorted(rows, key=lambda row: chosen.index(row[:2])))
    text += "\n## Speed\n\n" + (NOT_RUN if plan else speed(every, steps, side))
    if out:
        out.write_text(text)
    else:
        typer.echo(text, nl=False)


def _studies(scale: str) -> list[str]:
    """Those that train language models and that a scale has; of a scale that is none, `trainings` says so."""
    return [name for name in OF_STUDY if has_section(scale, name)] or list(OF_STUDY)


NOT_RUN = """**Not run on a GPU yet.** On a machine that has one, this command with `--out benchmarks/gpu.md` in
place of `--plan` measures tokens a second, memory and the share of the bfloat16 peak, and writes this page anew.
"""


def memory(found: list[tuple[str, str, str, str, Footprint]]) -> str:
    """A table of computed memory: scale, study, name, rows and tokens of each training or examination."""
    lines = [
        "## Memory, computed\n",
        "One step with weights, gradients and AdamW's moments in float32, and activations as autograd keeps them. The",
        "last columns tell how many such runs share a GPU of so many GB, with a tenth of it left over. An",
        "examination: the weights of as many models as a run holds at once, and the largest pass over a batch.\n",
        "| scale | study | training | parameters | rows × tokens | state, GB | activations, GB | in all, GB | "
        + " | ".join(f"{size}" for size in SIZES) + " |",
        "|---|---|---|---|---|---|---|---|" + "---|" * len(SIZES),
    ]  # fmt: skip
    for scale, study, name, seen, taken in found:
        state = taken.weights + taken.gradients + taken.moments
        numbers = (state, taken.activations + taken.logits, taken.total)
        shared = [fit(size, taken.total) for size in SIZES]
        cells = [
            scale, study, name, f"{taken.parameters / 1e6:.2f}M", seen,
            *(f"{number / GIB:.2f}" for number in numbers), *shared,
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def fit(size: int, taken: int) -> str:
    """How many runs fit a GPU of so many GB, as a word."""
    try:
        return str(packed(Gpu("0", "", size * GIB), taken, CORES))
    except UserError:
        return "none"


def speed(every: list[tuple[str, Training]], steps: int, side: int) -> str:
    """A table of what was measured on the first GPU, or on the CPU where there is none."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    peak = measured_peak(device, side)
    where = torch.cuda.get_device_name() if device.type == "cuda" else "a CPU, so that no number says what a GPU does"
    lines = [
        f"Measured on {where}; bfloat16 peak {peak / 1e12:.3g} TFLOP/s ({side} × {side} matrices), {steps} steps.\n",
        "| scale | study | training | precision | tokens a second | share of the peak | memory, GB |",
        "|---|---|---|---|---|---|---|",
    ]
    for scale, training in every:
        try:
            tokens, share, taken = timed(training, steps, device, peak)
            cells = [f"{tokens:,.0f}", f"{share:.1%}", "–" if taken is None else f"{taken / GIB:.2f}"]
        except torch.OutOfMemoryError:
            cells = ["does not fit", "–", "–"]
        lines.append(f"| {' | '.join([scale, training.study, training.name, training.precision, *cells])} |")
    return "\n".join(lines) + "\n"


def measured_peak(device: torch.device, side: int) -> float:
    """Operations a second of a product of two square bfloat16 matrices, the best of a few."""
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        begun = clock(device)
        left @ right
        best = min(best, clock(device) - begun)
    return 2 * side**3 / best


def timed(training: Training, steps: int, device: torch.device, peak: float) -> tuple[float, float, int | None]:
    """Tokens a second, their share of the peak, and the GPU's memory at its highest in bytes."""
    model = training.make()
    words = model.get_input_embeddings().weight
    count = parameter_count(model) - (0 if model.get_output_embeddings().weight is words else words.numel())
    lora = {"r": training.rank, "lora_alpha": training.rank, "target_modules": training.targets}
    tuned = attach(model, Lora(**lora), 0) if training.rank else model
    optimizer = adamw(tuned, weight_decay=0.1)
    ids = torch.randint(model.config.vocab_size, (training.rows, training.length))
    run = {"optimizer": optimizer, "setting": training.name}

    def trained(number: int) -> None:
        pace = Plan(number, 1e-5, 0, log_every=number, precision=training.precision)
        with recomputing(model) if training.tuned else nullcontext():
            train(tuned, document_loss, lambda step: {"input_ids": ids, "labels": ids}, pace, **run)

    trained(WARM)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    begun = clock(device)
    trained(steps)
    tokens = steps * ids.numel() / (clock(device) - begun)
    taken = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
    return tokens, 6 * count * tokens / peak, taken


def clock(device: torch.device) -> float:
    """Seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
