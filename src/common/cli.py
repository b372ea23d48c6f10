"""The `compendium` command."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from common.errors import UserError, run_command
from common.files import write_atomic
from common.processes import only_one
from common.project import BUILD, ROOT
from common.scales import current_scale, section, studies

NOTE = BUILD / "locks" / "scale"

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def compendium() -> None:
    """Five studies of language models, each a notebook that one command regenerates."""


@app.command()
def figures(
    scale: Annotated[str, typer.Option(help="A file in scales/; by default the one that params.yaml names.")] = "",
    study: Annotated[str, typer.Option(help="One study; by default all of them.")] = "",
) -> None:
    """Regenerate every figure: run the studies again, taking only runs that this machine did itself.

    `dvc repro` in its place does only what changed, and takes runs that git holds.
    """
    with only_one(BUILD / "locks" / "figures", "compendium figures"):
        _put_back()
        scale = scale or current_scale()
        chosen = [study] if study else studies()
        if study and study not in studies():
            raise UserError(f"there is no study {study!r}; allowed: {', '.join(studies())}")
        for name in chosen:
            section(scale, name)  # refuses an unknown scale before anything starts
        with _scale(scale):
            # What the studies rest on is made where it changed or is missing; only the studies themselves are forced.
            prepared = [stage for name in chosen for stage in (f"tables@{name}-{scale}", f"notebook@{name}")]
            _dvc("repro", f"tokenizer@{scale}", *prepared)
            for name in chosen:
                _dvc("repro", "--force", "--single-item", f"study@{name}-{scale}", COMPENDIUM_FRESH="1")
    sys.stdout.write(f"figures/{scale}: {', '.join(chosen)}\n")


def _dvc(*arguments: str, **environment: str) -> None:
    ended = subprocess.run(["dvc", *arguments], cwd=ROOT, env=os.environ | environment, check=False)
    if ended.returncode:
        raise UserError(f"`dvc {' '.join(arguments)}` failed; its message is above")


@contextmanager
def _scale(scale: str) -> Iterator[None]:
    """Let params.yaml name `scale` for a while: DVC takes the value from nowhere else.

    A note in build/ says what it was; where a run was killed before it could put that back, the next one does.
    """
    if scale == current_scale():
        yield
        return
    write_atomic(NOTE, f"{current_scale()} {scale}")
    try:
        _name_scale(scale)
        yield
    finally:
        _put_back()


def _put_back() -> None:
    if NOTE.exists():
        before, lent = NOTE.read_text().split()
        if current_scale() == lent:
            _name_scale(before)
        NOTE.unlink()


def _name_scale(scale: str) -> None:
    path = ROOT / "params.yaml"
    write_atomic(path, re.sub(r"(?m)^scale: *\S+", f"scale: {scale}", path.read_text()))


def main() -> None:
    run_command(app)
