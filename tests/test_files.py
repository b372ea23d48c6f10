"""Files that are whole or not there, locks, processes that end with their parent."""

import signal
import subprocess
import sys
import time

import psutil
import pytest

from common.errors import UserError
from common.files import atomic_folder, digest, write_atomic
from common.processes import only_one


def run_python(program, **options):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, **options)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, "old")
    # The system refuses what goes beyond 1,000 bytes, as a full disk does.
    program = (
        "import resource; from pathlib import Path; from common.files import write_atomic\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        f"write_atomic(Path({str(path)!r}), 'new' * 1000)\n"
    )
    ended = run_python(program)
    assert "UserError: cannot write" in ended.stderr
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_an_error_while_a_folder_is_made_leaves_the_old_one(tmp_path):
    target = tmp_path / "folder"
    with atomic_folder(target) as folder:
        (folder / "a").write_text("1")
    with pytest.raises(ZeroDivisionError), atomic_folder(target) as folder:
        (folder / "a").write_text("2")
        raise ZeroDivisionError
    assert (target / "a").read_text() == "1"
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    target = tmp_path / "folder"
    program = (
        "import os, signal; from pathlib import Path; from common.files import atomic_folder\n"
        f"with atomic_folder(Path({str(target)!r})) as folder:\n"
        "    (folder / 'half').write_text('1'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert run_python(program).returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    assert not target.exists()
    with atomic_folder(target) as folder:
        (folder / "whole").write_text("2")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
    assert [p.name for p in target.iterdir()] == ["whole"]


def test_a_kill_while_the_old_folder_is_removed_leaves_the_new_one_whole(tmp_path):
    target = tmp_path / "folder"
    program = (
        "import os, shutil, signal; from pathlib import Path; from common.files import atomic_folder\n"
        f"target = Path({str(target)!r})\n"
        "def write(text):\n"
        "    with atomic_folder(target) as folder:\n"
        "        for name in 'abc': (folder / name).write_text(text)\n"
        "write('1')\n"
        "def killed(folder, **options):\n"
        "    if Path(folder).exists(): next(Path(folder).iterdir()).unlink(); os.kill(os.getpid(), signal.SIGKILL)\n"
        "shutil.rmtree = killed\n"
        "write('2')\n"
    )
    assert run_python(program).returncode == -signal.SIGKILL
    assert {path.name: path.read_text() for path in target.iterdir()} == dict.fromkeys("abc", "2")
    with atomic_folder(target) as folder:
        (folder / "a").write_text("3")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
    assert [p.name for p in target.iterdir()] == ["a"]


def test_a_digest_sees_names_and_bytes_and_not_the_place(tmp_path):
    for place in ("one", "two"):
        (tmp_path / place / "sub").mkdir(parents=True)
        (tmp_path / place / "sub" / "a").write_text("1")
        (tmp_path / place / "b").write_text("2")
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    (tmp_path / "two" / "b").write_text("3")
    changed = digest(tmp_path / "two")
    (tmp_path / "two" / "b").rename(tmp_path / "two" / "c")
    assert len({digest(tmp_path / "one"), changed, digest(tmp_path / "two")}) == 3


def test_only_one_holder_and_a_killed_one_lets_go(tmp_path):
    lock = tmp_path / "lock"
    program = (
        "import time; from pathlib import Path; from common.processes import only_one\n"
        f"with only_one(Path({str(lock)!r}), 'x'):\n    print('held', flush=True); time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with (
        pytest.raises(UserError, match=rf"the study is already running \(process {holder.pid}\)"),
        only_one(lock, "the study"),
    ):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with only_one(lock, "the study"):
        pass


def test_a_busy_process_ends_with_its_killed_parent(tmp_path):
    child = "import os; from common.processes import exit_with; exit_with(os.getppid())\nwhile True: sum(range(1000))"
    parent = (
        f"import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', {child!r}]); "
        "print(p.pid, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    busy = psutil.Process(int(process.stdout.readline()))
    deadline = time.monotonic() + 20
    while busy.num_threads() < 2 and time.monotonic() < deadline:  # the second thread is the one that watches
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    busy.wait(timeout=5)  # raises where it goes on
