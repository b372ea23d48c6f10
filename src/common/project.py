"""Where things are in a checkout."""

from pathlib import Path

from common.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data"
BUILD = ROOT / "build"
CACHE = ROOT / ".cache"


def check_own(folder: Path) -> None:
    """Raise `UserError` where `folder` is another checkout than the one that this source is of: all is written there.

    So it is with another checkout's environment, or with a PYTHONPATH that names it.
    """
    if folder.resolve() != ROOT:
        raise UserError(f"this environment belongs to the checkout in {ROOT}; run `make setup` here for one of its own")
