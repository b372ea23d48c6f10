"""Digests of code: what they follow, what they ignore."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.notebooks import code_cells, read_notebook
from common.project import ROOT
from common.provenance import import_closure, source_digest, versions

CODE = '''
def half(x):
    """Half of x."""
    # by division
    return x / 2
'''


@pytest.mark.parametrize(
    "same",
    [
        CODE.replace("Half of x.", "x, halved."),
        CODE.replace('    """Half of x."""\n', ""),
        CODE.replace("# by division", "# not by shifting"),
        CODE.replace("x / 2", "(x /\n        2)"),
        CODE.replace('"""Half of x."""', "'Half of x.'"),
    ],
)
def test_comments_docstrings_and_layout_are_no_code(same):
    assert same != CODE
    assert source_digest(same) == source_digest(CODE)


@pytest.mark.parametrize(
    "other",
    [
        CODE.replace("/ 2", "/ 2.0"),
        CODE.replace("/", "//"),
        CODE.replace("half", "halve"),
        CODE.replace("def", "async def"),
        CODE + "half = None\n",
        CODE.replace("return x / 2", "return x / 2, ''"),
    ],
)
def test_any_change_of_the_code_changes_its_digest(other):
    assert source_digest(other) != source_digest(CODE)


@given(
    st.integers() | st.floats(allow_nan=False) | st.text() | st.booleans(), st.integers() | st.text() | st.booleans()
)
def test_constants_are_told_apart(one, two):
    equal = repr(one) == repr(two)
    assert (source_digest(f"x = {one!r}") == source_digest(f"x = {two!r}")) == equal


@pytest.fixture
def package(tmp_path):
    files = {
        "common/__init__.py": "",
        "common/a.py": "from common.b import f\n",
        "common/b.py": "import os\ndef f():\n    from common.deep import leaf\n",
        "common/deep/__init__.py": "from . import leaf\n",
        "common/deep/leaf.py": "from ..c import g\n",
        "common/c.py": "g = 1\n",
        "common/unused.py": "h = 1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_closure_follows_every_kind_of_import_and_nothing_else(package):
    expected = ["common", "common.a", "common.b", "common.c", "common.deep", "common.deep.leaf"]
    assert list(import_closure(["from common import a\nimport numpy"], package)) == expected
    assert list(import_closure(["import common.c as c"], package)) == ["common", "common.c"]


def test_a_change_in_a_module_changes_the_digests_of_what_uses_it_only(package):
    def both():
        return import_closure(["import common.a"], package), import_closure(["import common.c"], package)

    before = both()
    (package / "common/b.py").write_text("def f():\n    return 2\n    from common.deep import leaf\n")
    after = both()
    assert {name for name in before[0] if before[0][name] != after[0][name]} == {"common.b"}
    assert before[1] == after[1]


def test_the_closure_holds_every_module_that_importing_really_loads_and_that_says_nothing():
    source = code_cells(read_notebook(ROOT / "notebooks" / "alignment.ipynb"))
    claimed = set(import_closure(source))
    imported = "\n".join(line for cell in source for line in cell.splitlines() if line.startswith(("from ", "import ")))
    program = (
        f"import common.preference.finetuning\n{imported}\n"
        "import sys, json\nprint(json.dumps([m for m in sys.modules if m.split('.')[0] == 'common']))"
    )
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    assert ended.stderr == ""
    (shown,) = ended.stdout.splitlines()
    assert set(json.loads(shown)) <= claimed
    assert "common.cli" not in claimed


def test_versions_carry_no_build_tag():
    assert versions()["torch"].count("+") == 0
    assert {"python", "torch", "transformers", "numpy"} <= versions().keys()
