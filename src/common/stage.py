"""The commands of the pipeline's stages, one function each: `python -m common.stage NAME …` (see dvc.yaml).

A command that needs a heavy library imports it itself: starting up is most of the time of the others.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import typer

from common.commands import run
from common.environment import STARTER
from common.errors import UserError
from common.files import atomic_folder, digest, write_atomic
from common.ledger import settle
from common.machine import hold_to_cpu
from common.processes import exit_with, only_one
from common.project import BUILD, CACHE, DATA, ROOT, check_own
from common.scales import lent_scale, section

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def started() -> None:
    """One command for each stage of the pipeline."""
    # jsonschema, which reads notebooks, would compile a grammar of web addresses for a second; notebooks need none.
    sys.modules.setdefault("rfc3987_syntax", None)
    # bitsandbytes has functions compiled whenever it is imported, for a second in each process; no study calls them.
    os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    if root := os.environ.get("DVC_ROOT"):
        check_own(Path(root))
        exit_with(os.getppid())
    if starter := os.environ.get(STARTER):
        exit_with(int(starter))
    elif lent := lent_scale():
        raise UserError(
            f"params.yaml names the scale {lent}, which a killed `make figures` left there: "
            "run `compendium restore`, or `make figures` again"
        )


@app.command()
def corpus() -> None:
    """Pinned packages → plain tables in build/corpus."""
    from common.corpus import build_corpus

    build_corpus(BUILD / "corpus", ROOT / "sources.yaml", CACHE / "sources")


@app.command()
def tokenizer(scale: str) -> None:
    """Training text → a tokenizer, or others' tokenizer; and every split of every text as one stream of token ids."""
    from common.texts import save_stream

    knobs = section(scale, "tokenizer")
    folder = BUILD / "tokenizer" / scale
    texts = _others_texts(scale, knobs, folder) if "texts" in knobs else _own_texts(scale, knobs, folder)
    with atomic_folder(BUILD / "tokens" / scale) as streams:
        for name, documents in texts.items():
            save_stream(streams / f"{name}.npy", _some(documents, knobs["characters"]), folder)


def _own_texts(scale: str, knobs: dict[str, object], folder: Path) -> dict[str, list[str]]:
    from pydantic import PositiveInt

    from common.tables import read_table
    from common.tokenizer import train_tokenizer

    _check(f"scales/{scale}.yaml: tokenizer", knobs, tables=list[str], vocab_size=PositiveInt, characters=PositiveInt)
    texts = {
        f"{name}-{split}": documents["text"].tolist()
        for name in knobs["tables"]
        for split, documents in read_table(name).groupby("split")
    }
    learnt = [documents for name, documents in texts.items() if name.endswith("-train")]
    train_tokenizer([text for each in learnt for text in _some(each, knobs["characters"])], knobs["vocab_size"], folder)
    return texts


def _others_texts(scale: str, knobs: dict[str, object], folder: Path) -> dict[str, Iterator[str]]:
    from pydantic import PositiveInt

    from common.texts import Text, Texts, keep_tokenizer, splits

    where, sizes = f"scales/{scale}.yaml: tokenizer", {"vocab_size": PositiveInt, "characters": PositiveInt}
    _check(where, knobs, model=str, texts=Texts, **sizes)
    # What is small first, and all data sets are opened before anything is encoded: what cannot be had is told at once.
    keep_tokenizer(knobs["model"], knobs["vocab_size"], scale, folder)
    texts = [splits(name, Text.model_validate(text), scale) for name, text in knobs["texts"].items()]
    labels = {label: documents for each in texts for label, documents in each.items()}
    # Those to train on last: where nothing is held out, that is told before the long ones are encoded.
    return dict(sorted(labels.items(), key=lambda pair: pair[0].endswith("-train")))


def _check(where: str, knobs: dict[str, object], **types: object) -> None:
    """Raise `UserError` where knobs are not of these names and types."""
    from common.signature import mistakes

    problems = [f"{name} is no knob; allowed: {', '.join(types)}" for name in knobs if name not in types]
    problems += [f"{name} is missing" for name in types if name not in knobs]
    if problems := problems + mistakes(types, knobs):
        raise UserError(f"{where}: {'; '.join(problems)}")


def _some(texts: Iterable[str], characters: int) -> Iterator[str]:
    """The first texts, up to so many characters in all; where the first is longer, its beginning."""
    left = characters
    for text in texts:
        if len(text) > left:
            if left == characters:
                yield text[:left]
            return
        left -= len(text)
        yield text


@app.command()
def texts(scale: str) -> None:
    """What others' tokenizer and texts stand for, so that other items of the section hub make none of them anew."""
    from common.hub import texts_given

    write_atomic(BUILD / "texts" / f"{scale}.json", json.dumps(texts_given(scale), indent=1) + "\n")


@app.command()
def checkpoints(scale: str) -> None:
    """Trained models as Hugging Face folders, NAME-SEED; those that studies have trained come from the runs' cache."""
    from common.devices import pinned_workers
    from common.export import base_models, merged_models
    from common.sharing import EXPORTED
    from common.sweep import folders
    from common.sweep.records import publish

    hold_to_cpu(scale)
    with pinned_workers(sorted(EXPORTED), scale):
        models = merged_models(scale) | base_models(scale)
        with atomic_folder(BUILD / "checkpoints" / scale) as folder:
            for name, kept in zip(models, folders(list(models.values())), strict=True):
                publish(kept, folder / name)


@app.command()
def runs(study: str, scale: str) -> None:
    """A study's finished runs, taken out of the cache for `compendium push`."""
    from common.sharing import pack

    pack(study, scale)


@app.command()
def notebook(study: str) -> None:
    """Notebook → its canonical source and the digest of the code it imports."""
    from common.notebooks import canonical, read_notebook
    from common.verification.fingerprint import code_of_study

    source = read_notebook(ROOT / "notebooks" / f"{study}.ipynb")
    write_atomic(BUILD / "notebooks" / f"{study}.ipynb", canonical(source))
    write_atomic(BUILD / "notebooks" / f"{study}.code.json", code_of_study(study))


@app.command()
def tables(study: str, scale: str) -> None:
    """Hashes of the data tables that a study names, so that other studies' data does not touch it, and its models."""
    from common.hub import given, texts_of
    from common.verification.fingerprint import MODELS, listing

    names = section(scale, study).get("tables")
    _check(f"scales/{scale}.yaml: {study}", {"tables": names}, tables=list[str])
    others = texts_of(scale)
    allowed = {path.stem for path in DATA.glob("*.jsonl")} | others.keys()
    if unknown := set(names) - allowed:
        known = ", ".join(sorted(allowed))
        raise UserError(f"scales/{scale}.yaml: {study}.tables names {', '.join(sorted(unknown))}; allowed: {known}")
    found = {name: digest(DATA / f"{name}.jsonl") for name in names if name not in others}
    if models := given(study, scale):
        found[MODELS] = models
    write_atomic(BUILD / "tables" / scale / f"{study}.json", listing(found))


@app.command()
def study(study: str, scale: str) -> None:
    """Run a study's notebook; its results and figures appear when all of it went well."""
    from common.devices import pinned_workers
    from common.hub import check_read

    check_read(scale, [study])
    with only_one(BUILD / "locks" / study, f"study {study}"), pinned_workers([study], scale):
        _study(study, scale)


def _study(study: str, scale: str) -> None:
    from common.notebooks import check_parameters, notebook_digest, read_notebook
    from common.runner import execute
    from common.verification.fingerprint import fingerprint

    knobs = section(scale, study)
    prepared = BUILD / "notebooks" / f"{study}.ipynb"
    source = read_notebook(prepared)
    check_parameters(source, knobs, f"scales/{scale}.yaml", study)
    before = fingerprint(study, scale)
    if notebook_digest(prepared.read_text()) != before["notebook"]:
        raise UserError(f"notebooks/{study}.ipynb changed since the pipeline read it: run `dvc repro`")
    work = BUILD / "running" / scale / study
    shutil.rmtree(work, ignore_errors=True)
    begun = time.perf_counter()
    executed = execute(study, scale, prepared, knobs, work)
    changed = [name for name, value in fingerprint(study, scale).items() if value != before[name]]
    if changed:
        raise UserError(f"{study}: {', '.join(changed)} changed while it ran; the result is not kept, run it again")
    executed.publish(before)
    minutes = (time.perf_counter() - begun) / 60
    try:
        planned = settle(study, scale, before, minutes)
    except UserError as error:  # the results are published; that the time it took isn't noted takes none of them back
        planned = f" (not noted: {error})"
    sys.stderr.write(f"{study}: done in {minutes:.1f} min{planned}\n")


def main() -> None:
    run(app)


if __name__ == "__main__":
    main()
