"""Others' tokenizer and texts: read from folders in the hub's formats, divided by content, encoded in blocks."""

import gzip
import json
from itertools import chain, pairwise

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from common import hub, stage, texts
from common.cells import checked_cells
from common.errors import UserError
from common.hub import check_read, named
from common.hub import given as models_of
from common.quantization.pretraining import pretrain
from common.scales import has_section, section
from common.study import Study
from common.texts import Text, is_held_out, save_stream, splits
from common.tokenizer import encode_documents, train_tokenizer

VOCABULARY = 300
WEB = [f"Page {number} says so in {number * 7 % 31} words." for number in range(400)]
LINES = ["\n", " = Title = \n", "One line.\n", "", "Another, longer line.\n"]
CONFIGS = """---
configs:
- config_name: wiki-2
  data_files: [{split: test, path: wiki-2/test-*}]
- config_name: wiki-103
  data_files: [{split: test, path: wiki-103/test-*}]
---
"""


def parquet(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tokenizer; pages in two compressed files of JSON lines; lines in two parts of one data set, as Parquet."""
    root = tmp_path_factory.mktemp("others")
    train_tokenizer(WEB, VOCABULARY, root / "words")
    (root / "web").mkdir()
    for number, rows in enumerate((WEB[:250], WEB[250:])):
        with gzip.open(root / f"web/train-{number}.jsonl.gz", "wt") as file:
            file.writelines(json.dumps({"text": text, "number": 1}) + "\n" for text in rows)
    parquet(root / "wiki/wiki-103/test-00000-of-00001.parquet", [{"text": line} for line in LINES])
    parquet(root / "wiki/wiki-2/test-00000-of-00001.parquet", [{"text": "other\n"}])
    (root / "wiki/README.md").write_text(CONFIGS)
    parquet(root / "torn/train.parquet", [{"text": "One."}, {"text": None}])
    return root


@pytest.fixture
def scale(folders, tmp_path, monkeypatch):
    """A scale in a file whose quantization reads others' texts; what changes its section `tokenizer`, or its hub."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    monkeypatch.setattr(stage, "BUILD", tmp_path / "build")
    kinds = {"words": "model", "web": "dataset", "wiki": "dataset", "torn": "dataset"}
    items = {
        name: {"id": f"owner/{name}", "kind": kind, "revision": None, "folder": str(folders / name)}
        for name, kind in kinds.items()
    }
    knobs = {
        "model": "words", "vocab_size": VOCABULARY, "characters": 10**6, "texts": {
            "web": {"place": "web", "held_out": 0.25},
            "wiki": {"place": "wiki", "part": "wiki-103", "split": "test", "held_out": 1.0, "joined": True},
        },
    }  # fmt: skip

    def write(changed=(), tables=("web", "wiki"), **changes):
        sections = {"hub": {name: each | dict(changed).get(name, {}) for name, each in items.items()}}
        sections |= {"tokenizer": knobs | changes, "quantization": {"tables": [*tables]}, "other": {"tables": []}}
        (tmp_path / "scales").mkdir(exist_ok=True)
        (tmp_path / "scales/x.yaml").write_text(yaml.safe_dump(sections))

    for module in (hub, stage):
        monkeypatch.setattr(module, "section", lambda scale, name, root=tmp_path: section(scale, name, tmp_path))
    monkeypatch.setattr(hub, "has_section", lambda scale, name, root=tmp_path: has_section(scale, name, tmp_path))
    write()
    return write


def read(stream, folder):
    """Documents of a stream, by the tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    whole = tokenizer.decode(np.load(stream).tolist())
    assert whole.endswith(tokenizer.eos_token)
    return whole.removesuffix(tokenizer.eos_token).split(tokenizer.eos_token)


def test_every_document_is_in_one_stream_in_its_order_and_a_joined_text_is_one(scale, folders, tmp_path):
    stage.tokenizer("x")
    streams, tokenizer = tmp_path / "build/tokens/x", tmp_path / "build/tokenizer/x"
    assert {path.name for path in streams.iterdir()} == {"web-train.npy", "web-validation.npy", "wiki-validation.npy"}
    train, validation = (read(streams / f"web-{split}.npy", tokenizer) for split in ("train", "validation"))
    assert sorted(train + validation) == sorted(WEB)
    assert [train, validation] == [[text for text in WEB if text in some] for some in (train, validation)]
    assert 70 < len(validation) < 130  # a quarter of 400 is 100, give or take three and a half deviations
    assert read(streams / "wiki-validation.npy", tokenizer) == ["".join(LINES)]
    assert (
        AutoTokenizer.from_pretrained(tokenizer).get_vocab()
        == AutoTokenizer.from_pretrained(folders / "words").get_vocab()
    )


def test_characters_are_counted_of_each_split(scale, tmp_path):
    scale(characters=200)
    stage.tokenizer("x")
    for split in ("train", "validation"):
        found = read(tmp_path / f"build/tokens/x/web-{split}.npy", tmp_path / "build/tokenizer/x")
        assert 200 - max(map(len, WEB)) < sum(map(len, found)) <= 200


def test_of_a_joined_text_as_many_characters_are_taken(scale, tmp_path):
    scale(characters=20)
    stage.tokenizer("x")
    assert read(tmp_path / "build/tokens/x/wiki-validation.npy", tmp_path / "build/tokenizer/x") == [
        "".join(LINES)[:20]
    ]


def test_what_is_held_out_is_encoded_first(scale, tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(texts, "save_stream", lambda path, *_: written.append(path.stem))
    stage.tokenizer("x")
    assert written == ["web-validation", "wiki-validation", "web-train"]


def test_other_items_of_the_hub_make_no_text_anew(scale, tmp_path):
    def noted():
        stage.texts("x")
        return (tmp_path / "build/texts/x.json").read_text()

    before = noted()
    scale(changed={"torn": {"folder": None}})
    assert noted() == before
    scale(changed={"words": {"folder": None, "revision": "a" * 40}})
    assert json.loads(noted()) == json.loads(before) | {"words": f"owner/words@{'a' * 40}"}


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        (["web", "sotu"], "x.yaml: quantization.tables names sotu, allowed beside others' texts: web, wiki$"),
        (["wiki", "web"], "quantization.tables begins with wiki, which is held out whole: the first is trained on$"),
    ],
)
def test_tables_that_give_no_tokens_are_refused_before_any_are_made(scale, tables, says):
    scale(tables=tables)
    with pytest.raises(UserError, match=says):
        check_read("x", ["quantization"])
    scale()
    assert check_read("x", ["quantization"]) == ["web", "wiki", "words"]


def test_a_stream_that_is_not_there_is_named_with_those_that_are(scale, tmp_path, monkeypatch):
    stage.tokenizer("x")
    monkeypatch.setattr("common.study.BUILD", tmp_path / "build")
    monkeypatch.setenv("COMPENDIUM_WORK", str(tmp_path / "work"))
    monkeypatch.setenv("COMPENDIUM_SCALE", "x")
    monkeypatch.setattr("common.study.hold_to_cpu", lambda scale: None)
    own = Study("quantization")
    assert own.tokens("web", "train").is_file()
    says = "^quantization: of wiki there are no tokens to train; there are web-train, web-validation, wiki-validation$"
    with pytest.raises(UserError, match=says):
        own.tokens("wiki", "train")


def test_a_model_is_trained_on_them(scale, tmp_path):
    stage.tokenizer("x")
    shape = {"family": "gpt2", "hidden": 16, "layers": 1, "heads": 2, "context": 16, "tied": False}
    schedule = {"steps": 6, "batch_size": 4, "warmup": 1, "weight_decay": 0.1, "log_every": 3, "precision": "no",
                "curve_windows": 2, "validation_windows": 2}  # fmt: skip
    streams = {f"validation_{name}": tmp_path / f"build/tokens/x/{name}-validation.npy" for name in ("web", "wiki")}
    streams |= {"train": tmp_path / "build/tokens/x/web-train.npy", "tokenizer": tmp_path / "build/tokenizer/x"}
    found = pretrain("W8 channel", shape | {"embedding_std": 0.3}, schedule, 0.01, 0, scratch=tmp_path, **streams)
    assert found["uniform_loss"] == pytest.approx(np.log(VOCABULARY))
    assert 0 < found["loss_wiki"] < 2 * np.log(VOCABULARY)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), min_size=1, max_size=7))
def test_a_stream_has_the_bytes_that_numpy_would_save(folders, tmp_path_factory, documents):
    folder = tmp_path_factory.mktemp("streams")
    np.save(folder / "whole.npy", encode_documents(documents, folders / "words"))
    for block in (1, 3, 100):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(texts, "BLOCK", block)
            save_stream(folder / "blocks.npy", iter(documents), folders / "words")
        assert (folder / "blocks.npy").read_bytes() == (folder / "whole.npy").read_bytes()


def test_a_stream_of_no_document_is_refused(folders, tmp_path):
    with pytest.raises(UserError, match=r"^web-train: there is no document, allowed: one at least$"):
        save_stream(tmp_path / "web-train.npy", [], folders / "words")


def test_what_is_held_out_depends_on_content_and_grows_with_the_share():
    documents = [f"{number}" for number in range(2000)]
    shares = [0.0005, 0.1, 0.5, 1.0]
    chosen = [{each for each in documents if is_held_out(each, share)} for share in shares]
    assert all(few <= more for few, more in pairwise(chosen))
    for share, found in zip(shares, chosen, strict=True):
        assert abs(len(found) - share * 2000) <= 4 * (2000 * share * (1 - share)) ** 0.5


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"vocab_size": 299}, "scales/x.yaml: tokenizer.vocab_size is 299, allowed for that of words: 300"),
        ({"model": "web"}, "scales/x.yaml: hub.web is a dataset, needed: a model"),
        ({"size": 1}, "tokenizer: size is no knob; allowed: model, texts, vocab_size, characters"),
        ({"texts": {}}, "tokenizer: texts is {}"),
        ({"texts": {"a/b": {"place": "web", "held_out": 0.5}}}, "tokenizer: texts.a/b"),
        ({"texts": {"web": {"place": "web"}}}, "tokenizer: texts.web.held_out"),
        ({"texts": {"web": {"place": "web", "held_out": 0.0}}}, "held_out is 0.0: Input should be greater than 0"),
        ({"texts": {"web": {"place": "web", "held_out": 0.5, "joined": True}}}, "allowed for a text that is joined: 1"),
        (
            {"texts": {"web": {"place": "none", "held_out": 0.5}}},
            "'none' is no dataset of the section hub; there: torn, web, wiki",
        ),
        ({"texts": {"web": {"place": "web", "held_out": 1.0, "split": "test"}}}, "texts.web: .*web cannot be had"),
        ({"texts": {"web": {"place": "web", "held_out": 1.0, "part": "no"}}}, "texts.web: .*web cannot be had"),
        (
            {"texts": {"web": {"place": "web", "held_out": 1.0, "column": "said"}}},
            "column is 'said', allowed: text, nu",
        ),
        (
            {"texts": {"web": {"place": "web", "held_out": 1.0, "column": "number"}}},
            "number holds int64, allowed: texts",
        ),
        ({"texts": {"torn": {"place": "torn", "held_out": 1.0}}}, "torn-validation: row 1 has no text"),
        ({"changed": {"web": {"folder": None}}}, "hub.web: owner/web has no revision: write the commit to use"),
        ({"changed": {"words": {"folder": "no/such"}}}, "hub.words: there is no folder no/such"),
        ({"changed": {"words": {"folder": "docs"}}}, "the tokenizer of words cannot be had: "),
    ],
)
def test_what_cannot_be_read_is_one_line_and_leaves_no_streams(scale, tmp_path, changes, says):
    scale(**changes)
    with pytest.raises(UserError, match=says) as refused:
        stage.tokenizer("x")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "build/tokens/x").exists()


def test_a_data_set_that_is_a_script_is_refused_and_not_run(scale, tmp_path):
    (tmp_path / "script").mkdir()
    (tmp_path / "script/script.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    scale(changed={"web": {"folder": str(tmp_path / "script")}})
    with pytest.raises(UserError, match=r"texts\.web: .*script cannot be had"):
        stage.tokenizer("x")
    assert not (tmp_path / "ran").exists()


def test_a_data_set_is_asked_for_at_its_commit(scale, folders, monkeypatch):
    asked = []

    def load(place, data_dir, split, revision):
        asked.append((place, data_dir, split, revision))
        return datasets.Dataset.from_dict({"text": WEB})

    monkeypatch.setattr(texts, "load_dataset", load)
    scale(changed={"wiki": {"folder": None, "revision": "a" * 40}})
    text = Text(place="wiki", part="wiki-103", split="test", held_out=0.5)
    documents = chain(*splits("wiki", text, "x").values())
    assert sorted(documents) == sorted(WEB)
    assert asked == [("owner/wiki", "wiki-103", "test", "a" * 40)]


def test_a_study_starts_from_the_texts_it_reads_and_their_tokenizer(scale, tmp_path, monkeypatch):
    assert named("quantization", "x") == {"words", "web", "wiki"}
    assert named("other", "x") == set()
    assert models_of("quantization", "x").keys() == {"words", "web", "wiki"}
    before = models_of("quantization", "x")
    scale(changed={"web": {"folder": None, "revision": "b" * 40}})
    changed = models_of("quantization", "x")
    assert [name for name in changed if changed[name] != before[name]] == ["web"]
    stage.tables("quantization", "x")
    noted = json.loads((tmp_path / "build/tables/x/quantization.json").read_text())
    assert noted == {"models": changed}  # what the streams hold is told by their own digest


def test_tables_are_those_of_data_and_others_texts(scale, tmp_path, monkeypatch):
    (tmp_path / "sotu.jsonl").touch()
    monkeypatch.setattr(stage, "DATA", tmp_path)
    monkeypatch.setattr(stage, "section", lambda scale, name: {"tables": ["web", "sotu", "nosuch"]})
    with pytest.raises(UserError, match=r"quantization\.tables names nosuch; allowed: sotu, web, wiki$"):
        stage.tables("quantization", "x")


def test_the_notebook_takes_the_papers_text():
    *_, parameters = checked_cells("quantization", "openwebtext")
    assert parameters["tables"] == ["openwebtext", "wikitext"] == [*section("openwebtext", "tokenizer")["texts"]]
    with pytest.raises(UserError, match=r"of which bases starts? from none|no section 'bases'"):
        check_read("openwebtext", ["bases"])
    assert check_read("openwebtext", ["quantization"]) == ["gpt2", "openwebtext", "wikitext"]
