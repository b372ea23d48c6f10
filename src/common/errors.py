"""The one exception that is meant for a reader's eyes."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """Something the user can mend: one line that says what is wrong, where, and what is allowed.

    Commands print it without a traceback and exit with a non-zero status.
    """


def run_command(command: Callable[[], object]) -> None:
    """Run a command line; a `UserError` becomes one line on standard error and exit status 1."""
    try:
        command()
    except UserError as error:
        sys.exit(f"error: {error}")
