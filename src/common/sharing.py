"""Finished runs from machine to machine: a study's share of the runs' cache as a folder that DVC pushes and pulls."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from common.errors import UserError
from common.files import atomic_folder, write_atomic
from common.project import BUILD, CACHE, ROOT
from common.sweep.records import Cache, from_csv, read_record

Dvc = Callable[..., None]  # runs a command of DVC's, raises `UserError` where it fails
EXPORTED = {"bases", "merging"}  # studies whose trained models are exported; `make figures` of all ends with it


def push(names: list[str], scale: str, dvc: Dvc) -> None:
    """Bring what the studies read, their finished runs and the exported models to the default remote."""
    if missing := [name for name in names if not _rows(name, scale).exists()]:
        raise UserError(f"{', '.join(missing)} at {scale}: there are no results, and so no runs to push")
    runs = [_stage(name, scale) for name in names]
    dvc("repro", "--force", "--single-item", *runs)
    dvc("push", "--with-deps", *(f"study@{name}-{scale}" for name in names))
    there = (BUILD / "checkpoints" / scale).is_dir()
    dvc("push", *runs, *(_models(scale) if there and EXPORTED & set(names) else []))


def pull(names: list[str], scale: str, dvc: Dvc) -> int:
    """Fetch what the studies read and their finished runs, and put these into the cache; how many were new."""
    dvc("pull", "--with-deps", *(f"study@{name}-{scale}" for name in names))
    dvc("pull", *(_stage(name, scale) for name in names))
    if EXPORTED & set(names):
        dvc("pull", "--allow-missing", *_models(scale))
    return sum(unpack(packed(name, scale), Cache(CACHE / "runs")) for name in names)


def _stage(name: str, scale: str) -> str:
    return f"sharing/dvc.yaml:runs@{name}-{scale}"


def _models(scale: str) -> list[str]:
    return [f"checkpoints/dvc.yaml:checkpoints@{scale}"]


def _rows(name: str, scale: str) -> Path:
    return ROOT / "results" / scale / name / "runs.csv"


def packed(name: str, scale: str) -> Path:
    """Folder of a study's finished runs, outside of the cache."""
    return BUILD / "runs" / scale / name


def pack(name: str, scale: str) -> None:
    """Copy the records and files of a study's runs out of the cache; `UserError` where it has none of them."""
    keys = [str(row["key"]) for row in from_csv(_rows(name, scale).read_text())]
    found = copy_out(keys, Cache(CACHE / "runs"), packed(name, scale))
    sys.stderr.write(f"{name}: {found} of {len(keys)} runs are in the cache\n")
    if not found:
        raise UserError(f"{name} at {scale}: none of its runs is in this machine's cache; git has their rows")


def copy_out(keys: list[str], cache: Cache, place: Path) -> int:
    """Make the folder `place` of those of the runs that the cache has whole; how many these are."""
    found = 0
    with atomic_folder(place) as folder:
        for key in keys:
            if cache.read(key, lambda line: sys.stderr.write(f"{line}\n")) is None:
                continue
            found += 1
            shutil.copy2(cache.path(key), folder / f"{key}.json")
            if cache.files(key).is_dir():
                shutil.copytree(cache.files(key), folder / key)
    return found


def unpack(place: Path, cache: Cache) -> int:
    """Put those runs of a folder into the cache that it lacks; how many. A record follows the files it vouches for."""
    new = 0
    for path in sorted(place.glob("*.json")):
        try:
            record = read_record(path)
        except (ValueError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error}): remove {place} and pull again") from error
        if cache.path(record.key).exists():
            continue
        if record.kept:
            if not (place / record.key).is_dir():
                raise UserError(f"{place / record.key} is not there, which run {record.key} kept: pull again")
            with atomic_folder(cache.files(record.key)) as folder:
                shutil.copytree(place / record.key, folder, dirs_exist_ok=True)
        write_atomic(cache.path(record.key), path.read_text())
        new += 1
    return new
