"""Models, data sets and judges that a scale names on the hub, checked before anything is computed."""

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from common.errors import UserError
from common.project import ROOT
from common.scales import has_section, section, studies
from common.sources import load_sources

COMMIT = re.compile(r"[0-9a-f]{40}")
READ = {
    "allow_patterns": ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"],
    "ignore_patterns": ["*/*", "cons*"],
}
"""Files of a model that are downloaded, as `common.zoo` has them."""
NAMING = ("model", "place")  # knobs that hold the name of an item
TOKENIZER = "tokenizer"  # section of a scale
Kind = Literal["model", "dataset"]
Lacking = Literal["chat_template", "pad_token"]


class Item(BaseModel):
    """Something on the hub at a commit, or in a folder of the same content, which needs no commit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    kind: Kind
    revision: str | None
    folder: str | None = None  # from the project's root, where it is not absolute
    adds: tuple[Lacking, ...] = ()  # what its tokenizer lacks and gets, see common.bases.dressing

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        if self.revision is not None and not COMMIT.fullmatch(self.revision):
            raise ValueError(f"revision is {self.revision!r}, allowed: the 40 hexadecimal digits of a commit")
        return self

    @property
    def place(self) -> Path | None:
        """Its folder, where it has one."""
        return None if self.folder is None else ROOT / self.folder

    @property
    def content(self) -> str:
        """What it stands for: a folder, or an id at a commit; and what its tokenizer gets."""
        return " + ".join([self.folder or f"{self.id}@{self.revision}", *self.adds])


def items(scale: str) -> dict[str, Item]:
    """The section `hub` of a scale by name; none where there is no such section, `UserError` where it is wrong."""
    return _parsed(scale, section(scale, "hub")) if has_section(scale, "hub") else {}


def _parsed(scale: str, listed: Mapping[str, object]) -> dict[str, Item]:
    found = {}
    for name, knobs in listed.items():
        try:
            found[name] = Item.model_validate(knobs)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(["hub", name, *map(str, first["loc"])])
            raise UserError(f"scales/{scale}.yaml: {place}: {first['msg']}") from error
    return found


def item(scale: str, name: str, kind: Kind) -> Item:
    """One of a scale's items, in a folder that is there or at a commit; `UserError`, one line, where it is neither."""
    named = items(scale)
    if name not in named:
        known = ", ".join(other for other, each in named.items() if each.kind == kind) or "none"
        raise UserError(f"scales/{scale}.yaml: {name!r} is no {kind} of the section hub; there: {known}")
    found = named[name]
    if found.kind != kind:
        raise UserError(f"scales/{scale}.yaml: hub.{name} is a {found.kind}, needed: a {kind}")
    check_place(scale, name, found)
    return found


def given(study: str, scale: str, root: Path = ROOT) -> dict[str, str]:
    """Models and data of others that a study's knobs name, by name, each as what it stands for now.

    A name stands for an item of the scale's section `hub`, else for a package of models.yaml. Not told are folders and
    ids that the knobs hold themselves.
    """
    return _contents(named(study, scale, root), scale, root)


def texts_given(scale: str, root: Path = ROOT) -> dict[str, str]:
    """As `given`, of others' texts and their tokenizer that a scale names, whoever reads them."""
    return _contents(_named(section(scale, TOKENIZER, root)), scale, root)


def _contents(names: set[str], scale: str, root: Path) -> dict[str, str]:
    if not names:
        return {}
    packages = load_sources(root / "models.yaml").values()
    found = {each.package: f"{each.package} {each.version} {each.sha256}" for each in packages}
    if has_section(scale, "hub", root):
        found |= {name: each.content for name, each in _parsed(scale, section(scale, "hub", root)).items()}
    return {name: found[name] for name in sorted(names & found.keys())}


def check_read(scale: str, chosen: Collection[str]) -> list[str]:
    """Names of the items that studies of a scale start from; none where the scale names none.

    Raises `UserError` where it does and a study starts from none of them: one whose models were ignored would draw
    figures of others.
    """
    found = items(scale)
    if not found:
        return []
    for study in chosen:
        _check_texts(study, scale)
    read = {study: named(study, scale) & found.keys() for study in chosen}
    if strangers := [study for study, names in read.items() if not names]:
        others = [study for study in studies() if study not in read and has_section(scale, study)]
        read |= {study: named(study, scale) & found.keys() for study in others}
        readers = ", ".join(study for study, names in read.items() if names) or "none"
        raise UserError(
            f"scales/{scale}.yaml names {len(found)} models and data sets of the hub, of which {', '.join(strangers)} "
            f"start{'s' * (len(strangers) == 1)} from none; studies that start from some: {readers}"
        )
    return [name for name in found if any(name in names for names in read.values())]


def check_hub(scale: str, names: Collection[str] | None = None) -> None:
    """Ask the hub for items of a scale, all or those of these names, without downloading them.

    Not asked for are folders, and models of which all files are in the hub's cache: a machine that computes has often
    no network. Of data sets their cache does not tell of which commit it is.

    Raises `UserError`, one line, for the first that lacks a revision, cannot be reached, is not there, is gated or has
    no such commit, and for a folder that is not there.
    """
    for name, each in items(scale).items():
        if names is None or name in names:
            check_place(scale, name, each)
            if each.folder is None and not (each.kind == "model" and is_cached(each.id, each.revision)):
                _ask(f"scales/{scale}.yaml: hub.{name}: ", each)


def texts_of(scale: str, root: Path = ROOT) -> dict[str, object]:
    """Others' texts by name that stand in the places of tables at a scale; none where its tokenizer is our own."""
    knobs = section(scale, TOKENIZER, root) if has_section(scale, TOKENIZER, root) else {}
    return knobs.get("texts") or {}


def named(study: str, scale: str, root: Path = ROOT) -> set[str]:
    """What a study's knobs name; of a study that reads others' texts also what these and their tokenizer do."""
    knobs = section(scale, study, root)
    tables = knobs.get("tables")
    reads_texts = isinstance(tables, list) and any(name in texts_of(scale, root) for name in tables)
    return _named(knobs) | (_named(section(scale, TOKENIZER, root)) if reads_texts else set())


def _check_texts(study: str, scale: str) -> None:
    """Raise `UserError` where a study's tables are others' texts in part, or the first, to train on, is held out."""
    texts, tables = texts_of(scale), section(scale, study).get("tables")
    if not isinstance(tables, list) or not any(name in texts for name in tables):
        return
    where, known = f"scales/{scale}.yaml: {study}.tables", ", ".join(texts)
    if strange := [str(name) for name in tables if name not in texts]:
        raise UserError(f"{where} names {', '.join(strange)}, allowed beside others' texts: {known}")
    if isinstance(texts[tables[0]], dict) and texts[tables[0]].get("held_out") == 1:
        raise UserError(f"{where} begins with {tables[0]}, which is held out whole: the first is trained on")


def _named(knobs: object) -> set[str]:
    """What stands under the knobs `NAMING`, at any depth."""
    several = knobs.values() if isinstance(knobs, dict) else knobs if isinstance(knobs, list) else []
    found = {name for value in several for name in _named(value)}
    if isinstance(knobs, dict):
        found |= {knobs[knob] for knob in NAMING if isinstance(knobs.get(knob), str)}
    return found


def check_place(scale: str, name: str, item: Item) -> None:
    """Raise `UserError` for an item that has neither a folder that is there nor a commit."""
    place = f"scales/{scale}.yaml: hub.{name}"
    if item.place is not None:
        if not item.place.is_dir():
            raise UserError(f"{place}: there is no folder {item.folder}")
    elif item.revision is None:
        raise UserError(f"{place}: {item.id} has no revision: write the commit to use, {_look_up(item)} tells it")


def check_model(name: str, revision: str) -> None:
    """Ask the hub once for a model at a commit that the hub's cache here lacks, before it is downloaded.

    Where the hub cannot be reached, the client would ask for a model's files six times, for half a minute and longer.
    Raises `UserError`, one line, as `check_hub` does.
    """
    from huggingface_hub import try_to_load_from_cache

    if not isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str):
        _ask("", Item(id=name, kind="model", revision=revision))


def is_cached(name: str, revision: str) -> bool:
    """Whether the hub's cache here has all files of a model at a commit: sizes, tokenizer, every part of weights."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True, **READ))
    except LocalEntryNotFoundError:
        return False
    # A folder of which the cache has no list may hold but the configuration.
    index = folder / "model.safetensors.index.json"
    parts = set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else {"model.safetensors"}
    there = all((folder / name).is_file() for name in {"config.json", *parts})
    return there and any(path for kind in ("tokenizer*", "vocab*", "*.model") for path in folder.glob(kind))


def _look_up(item: Item) -> str:
    return f"`python -c \"from huggingface_hub import HfApi; print(HfApi().{item.kind}_info('{item.id}').sha)\"`"


def _ask(place: str, item: Item) -> None:
    """Raise `UserError`, a line that `place` begins, for what the hub does not give."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    api = HfApi()
    try:
        api.repo_info(item.id, repo_type=item.kind, revision=item.revision, timeout=20)
        api.auth_check(item.id, repo_type=item.kind)  # what a gated repository is may be read by all, its files not
    except GatedRepoError as error:
        told = "accept its terms on its page, then log in with `hf auth login`"
        raise UserError(f"{place}{item.id} is gated: {told}") from error
    except RevisionNotFoundError as error:
        raise UserError(f"{place}{item.id} has no commit {item.revision}") from error
    except RepositoryNotFoundError as error:
        told = "not on the hub, or private: where it is yours, log in with `hf auth login`"
        raise UserError(f"{place}{item.id} is {told}") from error
    except Exception as error:  # whatever the library beneath the hub's client raises: another one since its version 1
        line = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{place}the hub cannot be reached to ask for {item.id}: {line}") from error
