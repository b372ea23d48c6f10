"""The `compendium` command."""

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import psutil
import typer

from common.commands import run
from common.environment import CLUSTER, FRESH, STARTER
from common.errors import UserError
from common.processes import only_one
from common.project import BUILD, ROOT, check_own
from common.scales import current_scale, has_section, lend_scale, own_scale, restore_scale, section, studies

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def compendium() -> None:
    """Studies of language models, each a notebook that one command regenerates."""
    # jsonschema, which reads notebooks, would compile a grammar of web addresses for a second; notebooks need none.
    sys.modules.setdefault("rfc3987_syntax", None)
    # A polite kill ends like Ctrl-C: what was lent is put back.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


@app.command()
def figures(
    scale: Annotated[str, typer.Option(help="A file in scales/; by default the one that params.yaml names.")] = "",
    study: Annotated[str, typer.Option(help="One study; by default all of them.")] = "",
    source: Annotated[
        Literal["runs", "tables"],
        typer.Option("--from", help="tables: draw from those that git holds, and run nothing."),
    ] = "runs",
) -> None:
    """Regenerate every figure: run the studies again, taking only runs that this machine did itself.

    `dvc repro` in its place does only what changed, and takes runs that git holds. With `--from tables` nothing runs
    and no data are read: figures are drawn from the committed tables, on any machine, whatever the scale took.
    """
    if source == "tables":
        _redraw(scale, study)
        return
    from common.sharing import EXPORTED

    _check_ready(scale or own_scale(), study)
    with _prepared(scale, study) as (scale, chosen):
        for name in chosen:
            _dvc("repro", "--force", "--single-item", f"study@{name}-{scale}")
        # It trains what it lacks: after one study alone that would be hours of the other's runs, not asked for.
        if not study and EXPORTED & set(chosen) and all(has_section(scale, name) for name in EXPORTED):
            _dvc("repro", "--single-item", f"checkpoints/dvc.yaml:checkpoints@{scale}")
    sys.stdout.write(f"figures/{scale}: {', '.join(chosen)}\n")
    _compare_with_git(chosen, scale)


def _check_ready(scale: str, study: str) -> None:
    """Raise `UserError` before anything runs where a study, one or all, would be refused later.

    GPUs are not there or too small for its largest run, or what it names on the hub cannot be had.
    """
    from common.hub import check_hub, check_read
    from common.machine import check_machine

    chosen = _chosen(scale, study)
    check_hub(scale, check_read(scale, chosen))
    found = [] if CLUSTER in os.environ else check_machine(scale)
    if found:
        from common.devices import devices

        for name in chosen:
            devices([name], scale, found)


def _redraw(scale: str, study: str) -> None:
    from common.redrawing import redraw, tabled

    scale = scale or own_scale()
    chosen = _chosen(scale, study)
    there = [study] if study else tabled(chosen, scale)
    lock = BUILD / "locks" / "figures"
    with only_one(lock, _holder(lock)):
        for name in there:
            redraw(name, scale)
            sys.stdout.write(f"figures/{scale}/{name}: drawn from results/{scale}/{name}\n")
    if lacking := [name for name in chosen if name not in there]:
        sys.stdout.write(f"not drawn, as git holds no tables of them at the scale {scale}: {', '.join(lacking)}\n")
    _compare_with_git(there, scale)


def _compare_with_git(chosen: list[str], scale: str) -> None:
    """Say how the figures agree with those of the last commit. That they are made is what was asked, and was done."""
    from common.verification.report import show, verify

    try:
        show(verify(chosen, scale, "HEAD"), scale, "HEAD")
    except UserError as error:
        sys.stdout.write(f"not compared: {error}\n")


@app.command()
def prepare(
    scale: Annotated[str, typer.Option(help="A file in scales/; by default the one that params.yaml names.")] = "",
) -> None:
    """Make what the studies' notebooks read: data, tokenizer, token streams."""
    with _prepared(scale, "") as (scale, _):
        sys.stdout.write(f"ready for notebooks at the scale {scale}\n")


@app.command()
def push(
    study: Annotated[str, typer.Argument(help="One study; by default all of them.")] = "",
    scale: Annotated[str, typer.Option(help="A file in scales/; by default the one that params.yaml names.")] = "",
) -> None:
    """Share with DVC's default remote: what studies read, their finished runs, the exported models."""
    from common.sharing import push as push_studies

    _check_remote()
    with _lent(scale, study) as (scale, chosen):
        push_studies(chosen, scale, _dvc)
    sys.stdout.write("pushed; commit dvc.lock, sharing/dvc.lock and checkpoints/dvc.lock, by which others find it\n")


@app.command()
def pull(
    study: Annotated[str, typer.Argument(help="One study; by default all of them.")] = "",
    scale: Annotated[str, typer.Option(help="A file in scales/; by default the one that params.yaml names.")] = "",
) -> None:
    """Fetch from DVC's default remote what studies read and their finished runs."""
    from common.sharing import pull as pull_studies

    _check_remote()
    with _lent(scale, study) as (scale, chosen):
        new = pull_studies(chosen, scale, _dvc)
    sys.stdout.write(f"{', '.join(chosen)} at {scale}: {new} runs new to this machine\n")


def _check_remote() -> None:
    """Raise `UserError` where DVC knows no default remote, before anything is prepared for it."""
    if "core.remote=" not in _dvc("config", "--list", stdout=subprocess.PIPE, text=True).stdout:
        raise UserError("DVC has no default remote; name one: `dvc remote add --default shared PLACE`")


@contextmanager
def _prepared(scale: str, study: str) -> Iterator[tuple[str, list[str]]]:
    """Make what studies rest on, where it changed or is missing; yield the scale, lent to params.yaml, and names."""
    with _lent(scale, study) as (scale, chosen):
        for name in chosen:
            _check_notebook(name, scale)
        stages = [stage for name in chosen for stage in (f"tables@{name}-{scale}", f"notebook@{name}")]
        _dvc("repro", f"tokenizer@{scale}", *stages)
        yield scale, chosen


def _check_notebook(name: str, scale: str) -> None:
    """Refuse a notebook, or names of its parameters, that can't be right, before a study's results are taken away."""
    from common.notebooks import check_parameters, read_notebook

    notebook = read_notebook(ROOT / "notebooks" / f"{name}.ipynb")
    check_parameters(notebook, section(scale, name), f"scales/{scale}.yaml", name)


@contextmanager
def _lent(scale: str, study: str) -> Iterator[tuple[str, list[str]]]:
    """Lend params.yaml the scale; yield it and the names of the studies, one or all."""
    if (Path.cwd() / "params.yaml").exists():
        check_own(Path.cwd())
    lock = BUILD / "locks" / "figures"
    with only_one(lock, _holder(lock)):
        restore_scale()
        scale = scale or current_scale()
        chosen = _chosen(scale, study)
        with lend_scale(scale):
            yield scale, chosen


def _holder(lock: Path) -> str:
    """The command that holds a lock, as far as its process tells."""
    try:
        words = psutil.Process(int(lock.read_text())).cmdline()
    except (OSError, ValueError, psutil.Error):
        words = []
    at = next((place for place, word in enumerate(words) if Path(word).name == "compendium"), None)
    return "compendium" if at is None else " ".join(["compendium", *words[at + 1 : at + 2]])


def _chosen(scale: str, study: str) -> list[str]:
    """The study, or all that the scale has; `UserError` before anything starts where there is none of that name."""
    if study and study not in studies():
        raise UserError(f"there is no study {study!r}; allowed: {', '.join(studies())}")
    chosen = [study] if study else [name for name in studies() if has_section(scale, name)]
    for name in chosen or studies():
        section(scale, name)
    return chosen


@app.command()
def verify(
    study: Annotated[str, typer.Argument(help="One study, file by file; by default all of them, in short.")] = "",
    scale: Annotated[str, typer.Option(help="A file in scales/; by default the one that params.yaml names.")] = "",
    against: Annotated[str, typer.Option(metavar="REF", help="A commit, by any name that git knows.")] = "HEAD",
) -> None:
    """Compare results and figures that are here with those that git holds.

    The exit code says what holds of all: 0 bitwise (the same bytes), 3 numerical (every number within its metric's
    tolerance), 4 statistical (estimates inside each other's intervals), 5 verdicts (the same verdicts on the claims),
    6 not even those. 1 and 2 are errors. Seconds and memory are not compared.
    """
    from common.verification import report

    scale = scale or own_scale()
    level = report.show(report.verify(_chosen(scale, study), scale, against), scale, against)
    raise typer.Exit(level)


@app.command()
def readme() -> None:
    """Write the README's gallery and its table of claims anew, from the results."""
    from common.overview import write_readme

    sys.stdout.write(f"README.md: results of {write_readme()}\n")


@app.command()
def restore() -> None:
    """Let params.yaml name its own scale again, after a `make figures SCALE=…` that was killed."""
    lock = BUILD / "locks" / "figures"
    with only_one(lock, _holder(lock)):  # a command that runs has the scale for as long as it takes
        restore_scale()
    sys.stdout.write(f"params.yaml: scale {current_scale()}\n")


@app.command()
def plan(
    study: Annotated[str, typer.Argument(help="One study; by default all of them.")] = "",
    scale: Annotated[str, typer.Option(help="A file in scales/; by default the one that params.yaml names.")] = "",
) -> None:
    """Say what `dvc repro` and `make figures` would run and why, how long it takes and with how much memory."""
    with _prepared(scale, study) as (scale, chosen):
        from common.devices import worker_count
        from common.planning import plan as plan_study

        by_then: set[str] = set()
        for name in chosen:
            sys.stdout.write(plan_study(name, scale, worker_count(name, scale), by_then) + "\n")


@app.command()
def hub(
    scale: Annotated[str, typer.Option(help="A file in scales/ that names models and data sets of the hub.")] = "paper",
) -> None:
    """Say whether what a scale names on the hub can be had: pinned, there, not gated. Nothing is downloaded."""
    from common.hub import check_hub, items

    section(scale, "hub")
    check_hub(scale)
    sys.stdout.write(f"{len(items(scale))} models and data sets of the scale {scale} can be had\n")


@app.command()
def fork(
    study: Annotated[str, typer.Argument(help="The study to start from.")],
    new: Annotated[str, typer.Argument(help="The new study's name: small letters, digits and _.")],
) -> None:
    """Start a study from another: notebook, knobs, plots, analysis, test, and the rows of its finished runs."""
    from common.forking import fork as fork_study

    made = fork_study(study, new)
    # Of rows, which are many files, their folder.
    shown = dict.fromkeys(f"{Path(*path.parts[:3])}/" if path.parts[0] == "results" else str(path) for path in made)
    sys.stdout.write("\n".join(shown) + "\n")
    sys.stdout.write(f"{new}: forked from {study}; commit, so that its rows count, then change what you like\n")


@app.command()
def diff(
    new: Annotated[str, typer.Argument(help="A study made by `compendium fork`.")],
    scale: Annotated[str, typer.Option(help="A file in scales/; by default the one that params.yaml names.")] = "",
) -> None:
    """Show parameters, code and results of a fork against those of its parent."""
    from common.comparing import compared

    sys.stdout.write(compared(new, scale or own_scale()) + "\n")


@app.command()
def merge(
    config: Annotated[Path, typer.Argument(help="A mergekit file: merge_method, models, parameters and so on.")],
    out: Annotated[Path, typer.Argument(help="The merged model's folder, made anew.")],
    seed: Annotated[int | None, typer.Option(min=0, help="Of what DARE drops; by default 0.")] = None,
) -> None:
    """Merge language models into one, as a mergekit file says."""
    gc.disable()  # importing makes many objects and no garbage; looking for some takes longer than merging small models
    from common.merging import merge_folders  # with torch, which the other commands do without

    gc.enable()
    merge_folders(config, out, seed)
    sys.stdout.write(f"{out}: merged\n")


@app.command()
def expand(
    model: Annotated[Path, typer.Argument(help="A folder with a Llama or GPT-2.")],
    out: Annotated[Path, typer.Argument(help="The larger model's folder, made anew.")],
    to: Annotated[
        list[str], typer.Option(help="Sizes: any of hidden, ff, heads, kv_heads, layers, as hidden=256,layers=8.")
    ],
    how: Annotated[str, typer.Option(help="To widen: net2wider, copy_noise, fpi, aki, zero or random.")] = "net2wider",
    depth: Annotated[str, typer.Option(help="To deepen: identity, stack, interpolate or random.")] = "identity",
    noise: Annotated[float, typer.Option(help="Of copy_noise, in standard deviations of a tensor.")] = 0.01,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn.")] = 0,
) -> None:
    """Make a trained language model wider, deeper or both."""
    from common.expansion.folders import expand_folder, parse_sizes  # with torch, which other commands do without

    done = expand_folder(model, parse_sizes(",".join(to)), out, width=how, depth=depth, noise=noise, seed=seed)
    sys.stdout.write(f"{out}: {done}\n")


@app.command()
def score(
    model: Annotated[str, typer.Argument(help="A folder, owner/name@commit on the hub, or a package in models.yaml.")],
    files: Annotated[
        list[Path], typer.Argument(help="MemoTrap, TruthfulQA, PopQA, NQ-Swap or HaluEval, as published.")
    ],
    format: Annotated[str, typer.Option(help="Of the files, see README; by default their columns decide.")] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="So many rows of each file, drawn by the seed.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the rows drawn and the intervals.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="A .json or .csv file, or a folder for both and the answers.")
    ] = None,
) -> None:
    """Score a language model on benchmarks of hallucination."""
    from common.tasks.files import read_task

    tasks = [(file, read_task(file, format or None)) for file in files]
    from common.scorecard.command import score_tasks  # with torch, of which no bad file has to wait

    score_tasks(model, tasks, limit=limit, seed=seed, out=out)


def _dvc(*arguments: str, **options: object) -> subprocess.CompletedProcess:
    # The environment need not be active: dvc and the python of its stages are those beside this interpreter.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    environment = os.environ | {STARTER: str(os.getpid()), FRESH: "1", "PATH": path}
    try:
        ended = subprocess.run(["dvc", *arguments], cwd=ROOT, env=environment, check=False, **options)
    except KeyboardInterrupt:
        raise UserError("interrupted; finished runs are kept, and the same command goes on from them") from None
    if ended.returncode:
        raise UserError(f"`dvc {' '.join(arguments)}` failed; its message is above")
    return ended


def main() -> None:
    run(app)
