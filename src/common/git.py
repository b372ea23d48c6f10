"""What git tells of a repository."""

import subprocess
from pathlib import Path


def told(root: Path, *arguments: str) -> str:
    """What git prints, to the byte; nothing where this is no repository, it has no such thing, or git is not there."""
    try:
        ended = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, check=True)
    except (subprocess.CalledProcessError, FileNotFoundError):
        return ""
    # Not as text: that would be the locale's, and of other ends of lines, which a field may hold, make "\n".
    return ended.stdout.decode()
