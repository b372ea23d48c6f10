"""How a command ends that can't go on: one line for whatever its user can mend."""

from collections.abc import Callable

from common.errors import UserError, run_command


def run(command: Callable[[], object]) -> None:
    """Run a command line. What the system refuses, a full disk or a folder that can't be written, is one line too."""
    run_command(lambda: _plainly(command))


def _plainly(command: Callable[[], object]) -> None:
    try:
        command()
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise UserError(f"{where}{error.strerror or error}; what was finished is kept") from error
