"""The one exception that is meant for a reader's eyes."""


class UserError(Exception):
    """Something the user can mend: one line that says what is wrong, where, and what is allowed.

    Commands print it without a traceback and exit with a non-zero status.
    """
