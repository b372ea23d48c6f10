"""The scales: one YAML file each, a section for each study, every knob with a comment; and which one is current."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml

from common.errors import UserError
from common.files import write_atomic
from common.project import BUILD, ROOT

NOTE = BUILD / "locks" / "scale"
SPARE = NOTE.with_name("params.yaml")


def studies(root: Path = ROOT) -> list[str]:
    """Names of the studies, from `params.yaml`."""
    names = _parameter("studies", list, root)
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise UserError(f"params.yaml: studies is {names!r}, allowed: names of notebooks, one at least, each once")
    return names


def current_scale(root: Path = ROOT) -> str:
    """The scale that `params.yaml` names."""
    return _parameter("scale", str, root)


def _parameter(name: str, kind: type, root: Path) -> object:
    value = read_sections(root / "params.yaml").get(name)
    if not isinstance(value, kind):
        raise UserError(f"params.yaml: {name} is {value!r}, allowed: a {kind.__name__}")
    return value


@contextmanager
def lend_scale(scale: str) -> Iterator[None]:
    """Let params.yaml name `scale` for a while: DVC takes the value from nowhere else.

    A note in build/ says what it was, and a spare is params.yaml as it was; where a run was killed before it could put
    that back, `restore_scale` does.
    """
    if scale == current_scale():
        yield
        return
    write_atomic(NOTE, f"{current_scale()} {scale}")
    try:
        write_atomic(SPARE, (ROOT / "params.yaml").read_bytes())
        _name_scale(scale)
        yield
    finally:
        restore_scale()


def lent_scale() -> str | None:
    """The scale that params.yaml names only because it was lent, by a command that runs or was killed."""
    _, lent = _noted()
    return lent if lent == current_scale() else None


def own_scale() -> str:
    """The scale that the user chose: what params.yaml names, or named before it was lent another."""
    return _noted()[0] if lent_scale() else current_scale()


def _noted() -> tuple[str | None, str | None]:
    """The user's scale and the lent one, if any is; `UserError` where the note is damaged."""
    if not NOTE.exists():
        return None, None
    words = _words()
    if len(words) != 2:
        raise UserError(f"{NOTE} is damaged, which notes the scale lent to params.yaml: run `compendium restore`")
    return words[0], words[1]


def _words() -> list[str]:
    return NOTE.read_text(errors="replace").split()


def restore_scale() -> None:
    """Let params.yaml name again what it named before a scale was lent, unless someone has chosen another since.

    A damaged note tells neither: it is removed, and a line on standard error says so.
    """
    if NOTE.exists() and len(_words()) != 2:
        sys.stderr.write(f"{NOTE} was damaged and is removed: see that params.yaml names the scale that you want\n")
    elif lent_scale():
        _name_scale(own_scale())
    NOTE.unlink(missing_ok=True)
    SPARE.unlink(missing_ok=True)


def _name_scale(scale: str) -> None:
    path = ROOT / "params.yaml"
    text = re.sub(r"(?m)^scale: *\S+", f"scale: {scale}", path.read_text())
    with suppress(OSError):  # no spare, or build/ on another disk
        if SPARE.read_text() == text:
            SPARE.replace(path)  # which takes no room: the disk may be full by now
            return
    write_atomic(path, text)


def scale_names(root: Path = ROOT) -> list[str]:
    return sorted(path.stem for path in (root / "scales").glob("*.yaml"))


def has_section(scale: str, name: str, root: Path = ROOT) -> bool:
    """Whether a scale, if there is such a one, has a section `name`."""
    path = root / "scales" / f"{scale}.yaml"
    return path.is_file() and name in read_sections(path)


def section(scale: str, name: str, root: Path = ROOT) -> dict[str, object]:
    """Section `name` of a scale; `UserError` where there is no such scale or section, or it holds no knobs."""
    if scale not in scale_names(root):
        raise UserError(f"there is no scale {scale!r}; allowed: {', '.join(scale_names(root))}")
    sections = read_sections(root / "scales" / f"{scale}.yaml")
    if name not in sections:
        raise UserError(f"scales/{scale}.yaml has no section {name!r}; it has {', '.join(map(str, sections))}")
    if not isinstance(sections[name], dict):
        raise UserError(f"scales/{scale}.yaml: {name} is {sections[name]!r}, allowed: indented lines, `knob: value`")
    return sections[name]


def read_sections(path: Path) -> dict[str, object]:
    """A YAML file of sections; `UserError`, one line, where it can't be read or holds something else."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8: {error.reason} at byte {error.start}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold sections, `name:` and indented lines")
    return content
