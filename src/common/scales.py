"""The scales: one YAML file each, a section for each study, every knob with a comment."""

from pathlib import Path

import yaml

from common.errors import UserError
from common.project import ROOT


def studies(root: Path = ROOT) -> list[str]:
    """Names of the studies, from `params.yaml`."""
    return _read(root / "params.yaml")["studies"]


def current_scale(root: Path = ROOT) -> str:
    """The scale that `params.yaml` names."""
    return _read(root / "params.yaml")["scale"]


def scale_names(root: Path = ROOT) -> list[str]:
    return sorted(path.stem for path in (root / "scales").glob("*.yaml"))


def section(scale: str, name: str, root: Path = ROOT) -> dict[str, object]:
    """Section `name` of a scale; `UserError` where there is no such scale or section."""
    if scale not in scale_names(root):
        raise UserError(f"there is no scale {scale!r}; allowed: {', '.join(scale_names(root))}")
    sections = _read(root / "scales" / f"{scale}.yaml")
    if name not in sections:
        raise UserError(f"scales/{scale}.yaml has no section {name!r}; it has {', '.join(sections)}")
    return sections[name]


def _read(path: Path) -> dict[str, object]:
    try:
        content = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"there is no {path.name} in {path.parent}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold sections, `name:` and indented lines")
    return content
