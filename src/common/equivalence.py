"""Code that counts as other code, as both were shown to give the same numbers: then runs need not be done again.

`equivalent.yaml` holds, by the function that a sweep calls, the digest of its code and that of the code whose runs
stand for its own. Once anything that the function imports changes, its digest is another, and nothing stands for them.
Rows in git keep the keys that they were made with; `make figures` takes none on trust and computes all.

`python -m common.equivalence COMMIT MODULE:FUNCTION…` prints the lines for functions that are otherwise in a commit.
"""

import re
import subprocess
import sys
import tarfile
import tempfile
from functools import cache
from io import BytesIO
from pathlib import Path

import yaml

from common.errors import UserError
from common.project import ROOT
from common.provenance import SOURCE, code_digest, module_file

LISTED = ROOT / "equivalent.yaml"
DIGEST = re.compile(r"[0-9a-f]{64}")


@cache
def equivalents(path: Path = LISTED) -> dict[str, str]:
    """By the digest of code that of the code which it counts as; `UserError`, one line, where the file is broken."""
    try:
        listed = [each for entry in yaml.safe_load(path.read_text()) for each in entry["functions"].values()]
        found = {str(each["code"]): str(each["as"]) for each in listed}
    except (OSError, yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path.name} is broken: {' '.join(str(error).split())[:100]}") from error
    if wrong := [each for pair in found.items() for each in pair if not DIGEST.fullmatch(each)]:
        raise UserError(f"{path.name}: {wrong[0]!r} is no digest, allowed: 64 hexadecimal digits")
    return found


def counted(digest: str) -> str:
    """The digest that code with this one counts as in keys of runs."""
    return equivalents().get(digest, digest)


def digest_of(function: str, source: Path = SOURCE) -> str:
    """Digest of the code of `module:function` under `source`; `UserError` where there is no such module."""
    module, _, name = function.partition(":")
    file = module_file(module, source)
    if file is None:
        raise UserError(f"there is no module {module}; name functions as module:function")
    return code_digest(name, file.read_text(), source)


def main(commit: str, *functions: str) -> None:
    command = ["git", "-C", str(ROOT), "archive", "--format=tar", commit, "src/common"]
    archived = subprocess.run(command, capture_output=True, check=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=BytesIO(archived)) as archive:
            archive.extractall(folder, filter="data")
        for function in functions:
            now, before = digest_of(function), digest_of(function, Path(folder) / "src")
            if now != before:
                # What the keys of its runs hold: code that counted as other code then is no third now.
                print(f"    {function}: {{code: {now}, as: {counted(before)}}}")


if __name__ == "__main__":
    main(*sys.argv[1:])
