"""Models from folders and from the hub: what opens, and one line for each way in which it may not."""

import json
import shutil

import pytest
import torch
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file

from common import zoo
from common.errors import UserError
from tiny import CONTEXT, VOCABULARY, random_model, tiny_tokenizer, token_logs

COMMIT = "0123456789abcdef" * 2 + "01234567"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "small"
    tiny_tokenizer(folder)
    random_model("llama").save_pretrained(folder)
    return folder


@pytest.fixture
def damaged(checkpoint, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(checkpoint, folder)
    return folder


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def refused(message, *arguments, **settings):
    with pytest.raises(UserError, match=message) as caught:
        zoo.load(*arguments, **settings)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_opens_by_its_short_name_and_by_its_folder(checkpoint):
    expected = token_logs(random_model("llama"), [3, 7, 11])
    for model, tokenizer in (zoo.load("small", root=checkpoint.parent), zoo.load(str(checkpoint))):
        assert torch.equal(token_logs(model, [3, 7, 11]), expected)
        assert not model.training
        assert len(tokenizer) == VOCABULARY
        assert tokenizer.model_max_length == CONTEXT
    model, _ = zoo.load("small", root=checkpoint.parent, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_an_unknown_name_is_refused_with_those_that_are_known(checkpoint):
    refused(r"large is neither a folder nor owner/name on the hub, .* has: small", "large", root=checkpoint.parent)
    refused(r"large is neither a folder nor owner/name on the hub, .* has: no model", "large", root=checkpoint / "none")
    refused("a revision belongs to models on the hub", str(checkpoint), revision=COMMIT)


@pytest.mark.parametrize("revision", [None, "main", COMMIT[:7], COMMIT.upper(), COMMIT + "0"])
def test_a_model_on_the_hub_needs_a_commit(revision):
    refused(
        "owner/name is no folder; .* at revision .*: give the 40 hexadecimal digits", "owner/name", revision=revision
    )


def test_from_the_hub_come_neither_pickles_nor_code_nor_second_copies(checkpoint, tmp_path, monkeypatch):
    remote = {path.name: path for path in checkpoint.iterdir()}
    extra = ("pytorch_model.bin", "modeling.py", "consolidated.safetensors", "onnx/config.json", "vocab.pkl")
    remote |= dict.fromkeys(extra, checkpoint / "config.json")

    def download(name, *, revision, allow_patterns, ignore_patterns):
        assert (name, revision) == ("owner/name", COMMIT)
        for file in filter_repo_objects(remote, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns):
            (tmp_path / file).parent.mkdir(exist_ok=True)
            shutil.copy(remote[file], tmp_path / file)
        return str(tmp_path)

    monkeypatch.setattr(zoo, "snapshot_download", download)
    model, tokenizer = zoo.load("owner/name", revision=COMMIT)
    assert torch.equal(token_logs(model, [3, 7]), token_logs(random_model("llama"), [3, 7]))
    assert len(tokenizer) == VOCABULARY
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in checkpoint.iterdir()}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (GatedRepoError, "owner/name is gated: accept its terms"),
        (RepositoryNotFoundError, "owner/name is not on the hub, or private"),
        (LocalEntryNotFoundError, "owner/name is not in the hub's cache, and the hub cannot be reached"),
        (OSError, "owner/name at revision 0123.* cannot be had: OSError"),
    ],
)
def test_what_the_hub_does_not_give_is_named(monkeypatch, kind, message):
    def download(*_, **__):
        raise kind.__new__(kind)

    monkeypatch.setattr(zoo, "snapshot_download", download)
    refused(message, "owner/name", revision=COMMIT)


def test_pickles_are_not_opened(damaged):
    (damaged / "model.safetensors").rename(damaged / "pytorch_model.bin")
    refused("holds no safetensors, only pytorch_model.bin: a pickle could run code", str(damaged))


def test_code_is_not_run(damaged):
    edit(damaged / "config.json", model_type="own", auto_map={"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"})
    (damaged / "own.py").write_text("raise SystemExit('ran')\n")
    refused("cannot be loaded: .*custom code", str(damaged))


def test_an_adapter_is_not_taken_for_a_model(damaged):
    (damaged / "adapter_config.json").write_text("{}")
    refused("holds an adapter", str(damaged))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", "{", "cannot be loaded: .*not a valid JSON file"),
        ("config.json", '{"model_type": "nonesuch"}', "cannot be loaded: .*nonesuch"),
        ("tokenizer.json", "{", "cannot be loaded: "),
        ("model.safetensors", "no tensors", "cannot be loaded: "),
        ("config.json", None, "holds weights and no config.json"),
        ("model.safetensors", None, "holds no safetensors$"),
    ],
)
def test_a_broken_or_missing_file_is_one_line(damaged, file, content, message):
    (damaged / file).unlink()
    if content is not None:
        (damaged / file).write_text(content)
    refused(message, str(damaged))


def test_a_model_without_a_tokenizer_is_refused(damaged):
    for file in damaged.glob("tokenizer*"):
        file.unlink()
    refused("holds no tokenizer", str(damaged))


def test_missing_weights_are_not_replaced_by_random_ones(damaged):
    name = "model.layers.1.mlp.up_proj.weight"
    weights = load_file(damaged / "model.safetensors")
    save_file(weights | {name: torch.zeros(3, 5)}, damaged / "model.safetensors", metadata={"format": "pt"})
    refused(rf"1 weights have the wrong shape, the first is {name}: .*3, 5.*, not .*48, 32", str(damaged))
    del weights[name]
    save_file(weights, damaged / "model.safetensors", metadata={"format": "pt"})
    refused(f"lacks 1 of its weights, the first is {name}", str(damaged))


def test_a_tokenizer_of_more_words_than_the_model_is_refused(damaged):
    weights = load_file(damaged / "model.safetensors")
    cut = {name: tensor[:300] if tensor.shape[0] == VOCABULARY else tensor for name, tensor in weights.items()}
    save_file(cut, damaged / "model.safetensors", metadata={"format": "pt"})
    edit(damaged / "config.json", vocab_size=300)
    refused("its tokenizer has ids up to 319, its model has embeddings for 300 only", str(damaged))


def test_texts_longer_than_the_model_takes_must_be_settled(damaged):
    edit(damaged / "tokenizer_config.json", model_max_length=512)
    refused("its tokenizer allows 512 tokens, the model 48; give context=48", str(damaged))
    refused("context is 49, allowed for .*: 1 to 48", str(damaged), context=49)
    refused("context is 0, allowed for .*: 1 to 48", str(damaged), context=0)
    assert zoo.load(str(damaged), context=40)[1].model_max_length == 40


def test_of_gguf_files_exactly_one_is_opened_and_by_its_package(tmp_path, monkeypatch):
    (tmp_path / "a.gguf").write_bytes(b"")
    monkeypatch.setattr(zoo.importlib.util, "find_spec", lambda _: None)
    refused("a.gguf needs the package `gguf`, which is not installed", str(tmp_path))
    (tmp_path / "b.gguf").write_bytes(b"")
    refused("holds 2 GGUF files, allowed: one; found a.gguf, b.gguf", str(tmp_path))
