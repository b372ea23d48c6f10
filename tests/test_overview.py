"""The README's gallery and claims are those of the results, whatever these are."""

import json
import re
import shutil

import pytest

from common.errors import UserError
from common.overview import find_block, rendered, write_readme
from common.project import ROOT
from common.scales import studies

README = "# A\n\n<!-- results of tiny: written by `compendium readme` -->\nstale\n<!-- end of results -->\n\n## B\n"
CLAIM = {
    "paper": None,
    "statement": "a | b",
    "ours": "loss",
    "test": "greater",
    "margin": 0.1,
    "n_seeds": 7,
    "estimate": 0.123456,
    "ci": [0.1, 0.2],
    "p": 0.001,
    "p_holm": 0.003,
    "p_against": 0.5,
    "verdict": "reproduced",
    "figure": "arms",
}


@pytest.fixture
def project(tmp_path):
    (tmp_path / "params.yaml").write_text("scale: tiny\nstudies: [one, two]\n")
    (tmp_path / "README.md").write_text(README)
    folder = tmp_path / "results/tiny/one"
    folder.mkdir(parents=True)
    claims = {"a": CLAIM, "b": CLAIM | {"paper": "it helps", "figure": "curves"}, "c": CLAIM}
    (folder / "claims.json").write_text(json.dumps(claims))
    return tmp_path


def test_the_readme_shows_what_the_results_of_this_checkout_say():
    text = (ROOT / "README.md").read_text()
    block = find_block(text)
    assert block[0] == rendered(block[1], studies()), "run `compendium readme`"
    for study in studies():
        path = ROOT / f"results/{block[1]}/{study}/claims.json"
        if not path.exists():  # forked and not run yet
            assert f"| {study} | not run yet |" in block[0]
            continue
        claims = json.loads(path.read_text())
        shown = block[0].split(f"<summary>Claims of {study}</summary>")[1].split("</details>")[0]
        verdicts = [row.split(" | ")[-2].split("<br>")[0] for row in shown.splitlines() if "](figures/" in row]
        assert verdicts == [record["verdict"] for record in claims.values()]
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / target).exists(), target


def test_the_block_alone_is_written_and_again_is_the_same(project):
    assert write_readme(project) == "tiny"
    text = (project / "README.md").read_text()
    assert text.startswith("# A\n\n<!-- results")
    assert text.endswith("<!-- end of results -->\n\n## B\n")
    assert "stale" not in text
    assert "![one: curves](figures/tiny/one/curves.png)" in text  # the one claim of the paper's rests on it
    place = "[curves](figures/tiny/one/curves.png)"
    row = f"a \\| b<br><sub>loss</sub> | greater, 0.1 | 0.123 | [0.1, 0.2] | 7 | 0.003 | reproduced | {place} |"
    assert f"| it helps | {row}" in text
    assert "one: [curves](figures/tiny/one/curves.csv), 1 of 3 claims" in text
    assert "| one | 1 | 0 | 0 | 2 | 0 | 0 |" in text  # the paper's, ours
    assert "| two | not run yet |  |  |  |  |  |" in text
    write_readme(project)
    assert (project / "README.md").read_text() == text


def test_another_outcome_is_another_readme(project):
    before = rendered("tiny", ["one", "two"], project)
    path = project / "results/tiny/one/claims.json"
    path.write_text(path.read_text().replace('"reproduced"', '"inconclusive"', 1))
    assert rendered("tiny", ["one", "two"], project) != before


@pytest.mark.parametrize("text", ["# no block\n", README + README])
def test_a_readme_without_one_block_is_refused(project, text):
    (project / "README.md").write_text(text)
    with pytest.raises(UserError, match="allowed: one"):
        write_readme(project)
    assert (project / "README.md").read_text() == text


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": {}}', '{"a": 1}', pytest.param("[" * 100_000, id="deep")])
def test_torn_claims_are_named_in_one_line(project, text):
    (project / "results/tiny/one/claims.json").write_text(text)
    with pytest.raises(UserError, match=r"results/tiny/one/claims.json is damaged \(.*\): run") as refusal:
        write_readme(project)
    assert "\n" not in str(refusal.value)
    assert (project / "README.md").read_text() == README


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("margin", "0.1"), ("estimate", None), ("ci", 0.1), ("ci", [0.1]), ("n_seeds", 7.5), ("p_holm", []),
        ("statement", 3), ("test", None), ("verdict", ["reproduced"]), ("figure", {}), ("paper", 1), ("p", "a\nb"),
    ],
)  # fmt: skip
def test_a_field_of_a_wrong_type_is_named_with_its_claim_in_one_line(project, field, value):
    path = project / "results/tiny/one/claims.json"
    path.write_text(json.dumps({"a": CLAIM, "b": CLAIM | {field: value}}))
    says = rf"^results/tiny/one/claims.json is damaged \(claim b: {field}[\w.]* is .*\): run `make figures STUDY=one`$"
    with pytest.raises(UserError, match=says):
        write_readme(project)
    assert (project / "README.md").read_text() == README


def test_a_scale_without_results_is_refused(project):
    shutil.rmtree(project / "results")
    with pytest.raises(UserError, match="results/tiny holds no claims of one, two"):
        write_readme(project)
