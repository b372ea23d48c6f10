"""What the `compendium` command hands to DVC."""

import shutil
import subprocess

from common import cli


def test_dvc_and_python_are_those_beside_the_interpreter_where_no_environment_is_active(monkeypatch):
    given = {}
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(
        subprocess, "run", lambda command, **more: given.update(more["env"]) or subprocess.CompletedProcess(command, 0)
    )
    cli._dvc("version")
    found = {name: shutil.which(name, path=given["PATH"]) for name in ("dvc", "python")}
    assert found == {name: shutil.which(name, path=str(cli.Path(cli.sys.executable).parent)) for name in found}
    assert None not in found.values()
    assert given["PATH"].endswith("/usr/bin:/bin")
