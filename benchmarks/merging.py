"""What merging costs, beside mergekit: CPU seconds, wall time, memory.

    python benchmarks/merging.py [--rounds 3 --out benchmarks/merging.md]

Three Llamas with random weights in bfloat16 are written to a temporary folder and merged by each method. A merge is a
process of its own, the command that a user gives, with one thread; ours and mergekit's take turns in random order. CPU
seconds and resident memory are the kernel's count; anonymous memory, which unlike pages of mapped files cannot be given
back, is sampled, 50 times a second. Beside them stand what starting Python and importing takes either, and the floor: a
program that reads the same files and writes one of them. mergekit comes with the extra `test`.
"""

import importlib.util
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer
import yaml
from safetensors import safe_open
from torch.profiler import ProfilerActivity
from transformers import AutoModelForCausalLM, LlamaConfig

from common.merging import merge_folders

BASE, FIRST, SECOND = "base", "first", "second"
METHODS = {
    "linear": {"weight": 0.4},
    "task_arithmetic": {"weight": 0.4},
    "slerp": {"t": 0.4},
    "ties": {"weight": 0.4, "density": 0.3},
    "dare_linear": {"weight": 0.4, "density": 0.3},
    "dare_ties": {"weight": 0.4, "density": 0.3},
}
"""Those that mergekit has too, with parameters."""
RANDOM = ("dare_linear", "dare_ties")
OURS, PEER = "ours", "mergekit"
LONG = 30
"""CPU seconds, ours and mergekit's together: what a method may take to be measured in every round."""
START = {
    OURS: "import common.cli, common.merging",
    PEER: "import mergekit.scripts.run_yaml",
}
COMMAND = {
    OURS: "from common.cli import main; main()",
    PEER: "from mergekit.scripts.run_yaml import main; main()",
}
FLOOR = """
import sys
block = memoryview(bytearray(1 << 19))
for path in sys.argv[1:]:
    with open(path, "rb", buffering=0) as file:
        while file.readinto(block):
            pass
with open(sys.argv[1], "rb", buffering=0) as source, open(sys.argv[1] + ".copy", "wb", buffering=0) as copy:
    while size := source.readinto(block):
        copy.write(block[:size])
"""


def write_models(folder: Path, hidden: int, layers: int, vocabulary: int) -> int:
    """Write three Llamas with random weights; return the number of parameters of one."""
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=hidden * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=max(1, hidden // 64),
        vocab_size=vocabulary,
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.to_empty(device="cpu")
    for seed, name in enumerate((BASE, FIRST, SECOND)):
        source = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=source).mul_(0.02))
        model.save_pretrained(folder / name)
    return sum(parameter.numel() for parameter in model.parameters())


def write_config(folder: Path, method: str) -> Path:
    models = [BASE, FIRST, SECOND] if method == "linear" else [BASE, FIRST] if method == "slerp" else [FIRST, SECOND]
    content = {"merge_method": method, "dtype": "bfloat16", "parameters": METHODS[method]}
    content |= {"models": [{"model": str(folder / name)} for name in models]}
    content |= {} if method == "linear" else {"base_model": str(folder / BASE)}
    path = folder / f"{method}.yml"
    path.write_text(yaml.safe_dump(content))
    return path


def merge_command(who: str, config: Path, out: Path) -> list[str]:
    options = {OURS: ["merge", str(config), str(out)], PEER: [str(config), str(out), "--no-copy-tokenizer", "--quiet"]}
    return ["-c", COMMAND[who], *options[who]]


def measure(arguments: list[str]) -> dict[str, float]:
    """Run Python with `arguments`: CPU and wall seconds, peaks of resident and anonymous memory in MB."""
    start, peaks = time.perf_counter(), {"VmHWM": 0, "RssAnon": 0}
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TRANSFORMERS_VERBOSITY": "error"}
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen([sys.executable, *arguments], stdout=output, stderr=output, env=environment)
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            peaks = {
                name: max(peak, now)
                for (name, peak), now in zip(peaks.items(), _memory(process.pid, peaks), strict=True)
            }
            time.sleep(0.02)
        process.returncode = os.waitstatus_to_exitcode(ended[1])
        if process.returncode:
            output.seek(0)
            raise RuntimeError(f"{arguments} ended with {process.returncode}: {output.read().decode()[-2000:]}")
    usage = ended[2]
    return {
        "CPU s": usage.ru_utime + usage.ru_stime,
        "wall s": time.perf_counter() - start,
        "RSS MB": peaks["VmHWM"] / 1024,
        "anonymous MB": peaks["RssAnon"] / 1024,
    }


def _memory(process: int, names: Iterable[str]) -> list[int]:
    """What the kernel says of a process's memory, in KB; the resource usage of a child begins with its parent's."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:  # it has just ended, or this system has no such file
        lines = []
    found = dict(line.split(":") for line in lines)
    return [int(found.get(name, "0 kB").split()[0]) for name in names]


def check_same(method: str, base: Path, ours: Path, peer: Path) -> None:
    """Raise `RuntimeError` unless both moved away from the base alike: by tensors, or by length where it is random."""
    with (
        safe_open(base / "model.safetensors", "pt") as start,
        safe_open(ours / "model.safetensors", "pt") as here,
        safe_open(peer / "model.safetensors", "pt") as there,
    ):
        name = "model.layers.0.mlp.up_proj.weight"
        origin, moved, expected = (file.get_tensor(name).float() for file in (start, here, there))
    step, wanted = moved - origin, expected - origin
    error = abs(step.norm() / wanted.norm() - 1) if method in RANDOM else (step - wanted).norm() / wanted.norm()
    # mergekit computes task vectors in bfloat16.
    if not error < 0.05:
        raise RuntimeError(f"{method}: ours and mergekit's differ by {error:.2g} of the step: not the same work")


def rounds_of(
    folder: Path, methods: list[str], who: list[str], rounds: int, report: Callable[[str], object]
) -> pd.DataFrame:
    """One row for each merge: round, method, who and what was measured. A method that takes long has one round."""
    rows = []
    for number in range(rounds):
        spent = {method: sum(row["CPU s"] for row in rows if row["what"] == method) for method in methods}
        for method in (method for method in methods if spent[method] < LONG * number or not number):
            config = write_config(folder, method)
            outs = {name: folder / f"out-{name}" for name in who}
            for name in random.sample(who, len(who)):
                shutil.rmtree(outs[name], ignore_errors=True)
                rows.append(
                    {"round": number, "what": method, "who": name, **measure(merge_command(name, config, outs[name]))}
                )
                report(f"{number + 1}. {method}, {name}: {rows[-1]['CPU s']:.1f} CPU s\n")
            if number == 0 and PEER in who:
                check_same(method, folder / BASE, outs[OURS], outs[PEER])
        for name in who:
            rows.append({"round": number, "what": "start", "who": name, **measure(["-c", START[name]])})
        files = [str(folder / name / "model.safetensors") for name in (BASE, FIRST, SECOND)]
        rows.append({"round": number, "what": "floor", "who": "-", **measure(["-c", FLOOR, *files])})
    return pd.DataFrame(rows)


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """Medians over rounds, and how many times less ours takes: the median ratio of merges of the same round."""
    measures = ["CPU s", "wall s", "RSS MB", "anonymous MB"]
    medians = rows.groupby(["what", "who"], sort=False)[measures].median()
    pairs = rows.set_index(["round", "what", "who"])
    for measure_name in ("CPU s", "RSS MB", "anonymous MB"):
        ours = pairs.xs(OURS, level="who")[measure_name]
        for who in medians.index.unique("who").difference([OURS, "-"]):
            ratio = (pairs.xs(who, level="who")[measure_name] / ours).groupby("what").median()
            for what in ratio.index:
                medians.loc[(what, who), f"ratio of {measure_name}"] = ratio[what]
    return medians.sort_index(level="who", ascending=False, sort_remaining=False).reindex(
        medians.index.unique("what"), level="what"
    )


def operators(folder: Path, method: str) -> pd.DataFrame:
    """Where a merge of ours, after the start, spends its time: the operators that take most, in CPU seconds and %."""
    config, outs = write_config(folder, method), [folder / "out-plain", folder / "out-profile"]
    for out in outs:
        shutil.rmtree(out, ignore_errors=True)
    start = time.process_time()
    merge_folders(config, outs[0])
    whole = time.process_time() - start
    with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as profiler:
        merge_folders(config, outs[1])
    spent = pd.Series({event.key: event.self_cpu_time_total / 1e6 for event in profiler.key_averages()})
    spent["files, page faults, Python"] = max(0.0, whole - spent.sum())  # the profiler's own time is in neither
    found = pd.DataFrame({"CPU s": spent, "%": 100 * spent / spent.sum()}).rename_axis("operator")
    return found.sort_values("CPU s", ascending=False).head(8)


def _number(value: float) -> str:
    return "" if value != value else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def markdown(found: pd.DataFrame) -> str:
    shown = found.reset_index()
    text = shown.map(lambda value: _number(value) if isinstance(value, float) else str(value))
    lines = [" | ".join(map(str, shown.columns)), " | ".join("---" for _ in shown.columns)]
    lines += [" | ".join(row) for row in text.to_numpy().tolist()]
    return "\n".join(f"| {line} |" for line in lines)


def main(
    hidden: Annotated[int, typer.Option(min=1)] = 1024,
    layers: Annotated[int, typer.Option(min=1)] = 20,
    vocabulary: Annotated[int, typer.Option(min=1)] = 32000,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    method: Annotated[list[str], typer.Option(help="By default all.", default_factory=lambda: list(METHODS))] = ...,
    out: Annotated[Path | None, typer.Option(help="Write the report here instead of showing it.")] = None,
) -> None:
    """Measure merges of three models, ours and mergekit's."""
    torch.set_num_threads(1)
    who = [OURS, PEER] if importlib.util.find_spec("mergekit") else [OURS]
    with tempfile.TemporaryDirectory() as temporary:
        size = write_models(Path(temporary), hidden, layers, vocabulary)
        rows = rounds_of(Path(temporary), method, who, rounds, sys.stderr.write)
        profiles = {name: operators(Path(temporary), name) for name in method[:1]}
    peer = f"mergekit {version('mergekit')}" if PEER in who else "mergekit is not installed (extra `test`)"
    made = f"torch {torch.__version__}, {peer}, one thread on a CPU shared with other work, rounds: {rounds}"
    text = (
        f"# What merging costs\n\nWritten by `python benchmarks/merging.py` ({made}): models of {size / 1e6:.0f}M "
        "parameters in bfloat16, medians; a ratio is mergekit's over ours in the same round. "
        f"What takes over {LONG} s for both is measured once. `start`: Python and "
        "imports alone. `floor`: reading all three models and writing one.\n\n" + markdown(table(rows)) + "\n"
    )
    for name, profile in profiles.items():
        text += f"\nWhere ours spends its time after the start, `{name}`, in this process:\n\n"
        text += markdown(profile) + "\n"
    if out is None:
        sys.stdout.write(text)
    else:
        notes = out.read_text().partition("\n## ")[1:] if out.exists() else ()
        out.write_text(text + "".join(notes))


if __name__ == "__main__":
    typer.run(main)
