"""Folders expanded by the command: what comes out opens as a model, and what does not fit leaves nothing behind."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, MistralForCausalLM
from typer.testing import CliRunner

from common import cli, zoo
from common.cli import app
from common.errors import UserError
from common.expansion import DEPTHS, WIDTHS, folders
from common.expansion.folders import expand_folder, parse_sizes
from common.models import parameter_count
from expanding import gpt2, ids, llama
from parents import edit, write_parents
from tiny import CONFIGS


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_parents(tmp_path_factory.mktemp("parents")) / "base"


def logits(folder):
    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder).eval()(input_ids=ids()).logits


def grow(folder, out, to=None, **more):
    settings = {"width": "net2wider", "depth": "identity", "noise": 0.01, "seed": 0} | more
    return expand_folder(folder, to or {"hidden": 64}, out, **settings)


def test_the_command_writes_a_model_that_opens_and_computes_the_same(base, tmp_path):
    out = tmp_path / "out"
    command = ["expand", str(base), "--to", "hidden=64", "--to", "layers=5", "--how", "net2wider", str(out)]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0, shown.output
    assert "the function is preserved" in shown.output
    model, tokenizer = zoo.load(str(out))
    config = model.config
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (64, 5, 4)
    assert tokenizer.get_vocab() == AutoTokenizer.from_pretrained(base).get_vocab()
    assert (logits(base) - logits(out)).abs().max() < 1e-5
    old, new = (parameter_count(AutoModelForCausalLM.from_pretrained(each)) for each in (base, out))
    assert f"{old} parameters became {new}" in (out / "README.md").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_every_way_is_offered_by_the_command(base, tmp_path):
    for how in ("copy_noise", "fpi", "aki", "zero", "random"):
        assert "parameters became" in grow(base, tmp_path / how, {"ff": 60, "layers": 4}, width=how, depth="stack")
        assert ("--noise 0.01" in (tmp_path / how / "README.md").read_text()) == (how == "copy_noise")
    shown = CliRunner().invoke(app, ["expand", "--help"])
    for how in (*WIDTHS, *DEPTHS):
        assert how in re.sub(r"\s+", " ", shown.output)


@pytest.mark.parametrize("tied", [False, True])
def test_a_gpt2_in_half_precision_without_a_tokenizer_stays_one(tmp_path, tied):
    gpt2(tied=tied, dtype=torch.bfloat16).save_pretrained(tmp_path / "base")
    done = grow(tmp_path / "base", tmp_path / "out", {"hidden": 24, "layers": 3})
    assert "the function is preserved" in done
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert ("lm_head.weight" in tensors) is not tied
    assert (logits(tmp_path / "base") - logits(tmp_path / "out")).abs().max() < 0.1 * logits(tmp_path / "base").std()


def test_a_grouped_and_biased_llama_goes_through_a_folder(tmp_path):
    llama(tied=True, dtype=torch.float32).save_pretrained(tmp_path / "base")
    grow(tmp_path / "base", tmp_path / "out", {"hidden": 40, "ff": 17, "heads": 8})
    assert (logits(tmp_path / "base") - logits(tmp_path / "out")).abs().max() < 1e-5


def test_sizes_are_written_with_commas():
    assert parse_sizes("hidden=256,layers=8") == {"hidden": 256, "layers": 8}
    for text in ("", "hidden", "hidden=", "hidden=a", "hidden=-1", "hidden=1.5", "=4", "hidden=1,,ff=2"):
        with pytest.raises(UserError, match="is no size, allowed: name=whole number"):
            parse_sizes(text)
    with pytest.raises(UserError, match="hidden is there twice"):
        parse_sizes("hidden=4,hidden=5")


def lacking(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def misshapen(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = torch.ones(3)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def infinite(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def torn(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("damage", "to", "said"),
    [
        (lambda folder: None, {"hidden": 8}, "hidden is 8, allowed: 32"),
        (lambda folder: None, {"vocab": 8}, "no size 'vocab'"),
        (lambda folder: (folder / "config.json").unlink(), None, "config.json cannot be read: No such file"),
        (lambda folder: (folder / "config.json").write_text("{"), None, "config.json cannot be read"),
        (lambda folder: (folder / "model.safetensors").unlink(), None, "cannot be loaded"),
        (lambda folder: edit(folder / "config.json", model_type="bert"), None, "type 'bert', allowed: gpt2, llama"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), None, "holds an adapter"),
        (lacking, None, "1 weights have missing keys, the first is model.layers.1.mlp.up_proj.weight"),
        (misshapen, None, "1 weights have mismatched keys"),
        (infinite, None, "model.layers.1.mlp.up_proj.weight is not finite"),
        (torn, None, "cannot be loaded"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused_and_nothing_is_left(tmp_path, damage, to, said):
    folder = write_parents(tmp_path / "parents") / "base"
    damage(folder)
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        grow(folder, tmp_path / "results" / "out", to)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "results").exists()


def test_no_folder_and_a_folder_that_is_there_are_refused(base, tmp_path):
    with pytest.raises(UserError, match="is no folder"):
        grow(tmp_path / "none", tmp_path / "out")
    with pytest.raises(UserError, match="is there already"):
        grow(base, tmp_path)
    MistralForCausalLM(CONFIGS["mistral, window 12"]).save_pretrained(tmp_path / "mistral")
    with pytest.raises(UserError, match="type 'mistral', allowed: gpt2, llama"):
        grow(tmp_path / "mistral", tmp_path / "out")


def test_a_failure_while_writing_leaves_nothing(base, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders, "copy_tokenizer", full)
    with pytest.raises(UserError, match="No space left"):
        grow(base, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_function_that_is_not_what_it_should_be_is_noticed(base, tmp_path, monkeypatch):
    grown = folders.expand

    def wrong(*arguments, **more):
        expanded = grown(*arguments, **more)
        with torch.no_grad():
            expanded.model.model.norm.weight.mul_(1.01)
        return expanded

    monkeypatch.setattr(folders, "expand", wrong)
    with pytest.raises(RuntimeError, match="should have stayed"):
        grow(base, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_command_prints_one_line_where_it_fails(base, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["compendium", "expand", str(base), str(tmp_path / "out"), "--to", "hidden=4"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert str(ended.value) == "error: hidden is 4, allowed: 32, which the model has, or more"
    assert json.loads((base / "config.json").read_text())["hidden_size"] == 32
