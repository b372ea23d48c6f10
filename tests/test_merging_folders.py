"""Folders merged by a mergekit file: what comes out opens as a model, and what does not fit leaves nothing behind."""

import json
import re
import resource
import shutil
import subprocess
import sys
import weakref

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from typer.testing import CliRunner

from common import zoo
from common.cli import app
from common.errors import UserError
from common.merging import folders as folders_module
from common.merging import merge_folders, merge_state_dicts
from common.merging.checkpoints import Checkpoint, write_shards
from common.project import ROOT
from parents import NAMES, edit, write_parents

UP = "model.layers.1.mlp.up_proj.weight"
TIES = {"merge_method": "ties", "parameters": {"density": 0.5, "weight": 0.6, "int8_mask": True}}
COMMIT = "0123456789abcdef" * 2 + "01234567"


@pytest.fixture(scope="module")
def parents(tmp_path_factory):
    return write_parents(tmp_path_factory.mktemp("parents"))


@pytest.fixture
def own(parents, tmp_path):
    """The same parents, to be damaged."""
    shutil.copytree(parents, tmp_path / "parents")
    return tmp_path / "parents"


def written(root, name="config.yml", **content):
    """A file that merges the parents in `root`: all three, or as `content` has it, where "@base" is a folder."""
    content = {"base_model": "@base", "models": [{"model": "@domain"}, {"model": "@aligned"}]} | content
    text = yaml.safe_dump({key: value for key, value in content.items() if value is not None}, sort_keys=False)
    path = root.parent / name
    path.write_text(re.sub(r"'@(\w+)'", lambda found: str(root / found[1]), text))
    return path


def state(folder):
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def weights(folder):
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def change(folder, name, tensor):
    held = load_file(folder / "model.safetensors")
    held = {key: value for key, value in held.items() if key != name} | ({} if tensor is None else {name: tensor})
    save_file(held, folder / "model.safetensors", metadata={"format": "pt"})


def refused(root, message, tmp_path, seed=None, **content):
    """Merging raises one line that matches, and leaves nothing: neither the folder nor a temporary one."""
    out = tmp_path / "results" / "merged"
    with pytest.raises(UserError, match=message) as caught:
        merge_folders(written(root, **content), out, seed)
    assert "\n" not in str(caught.value)
    assert not out.parent.exists() or not list(out.parent.iterdir())


def test_the_command_writes_a_model_that_opens(parents, tmp_path):
    shown = CliRunner().invoke(app, ["merge", str(written(parents, **TIES)), str(tmp_path / "out")])
    assert shown.exit_code == 0, shown.output
    base, *others = (state(parents / name) for name in NAMES)
    expected = merge_state_dicts("ties", base, others, density=0.5, weight=0.6)
    found = state(tmp_path / "out")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert (
        AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab()
        == AutoTokenizer.from_pretrained(parents / "base").get_vocab()
    )
    model, _ = zoo.load(str(tmp_path / "out"))
    assert model.config.to_dict() == AutoModelForCausalLM.from_pretrained(parents / "base").config.to_dict() | {
        "_name_or_path": str(tmp_path / "out")
    }
    card = (tmp_path / "out" / "README.md").read_text()
    assert yaml.safe_load(card.split("```yaml")[1].split("```")[0])["parameters"] == TIES["parameters"]
    assert "arXiv 2306.01708" in card
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


@pytest.mark.parametrize("tied", [False, True])
def test_shards_tied_heads_and_bfloat16_go_in_and_come_out(tmp_path, tied, monkeypatch):
    root = write_parents(tmp_path / "parents", tied=tied, dtype=torch.bfloat16, shard="30KB")
    assert len(list((root / "base").glob("model-*.safetensors"))) > 2
    monkeypatch.setattr(write_shards, "__defaults__", (30_000,))
    merge_folders(written(root, **TIES | {"merge_method": "dare_ties"}), tmp_path / "out", seed=3)
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    assert files[0].name == f"model-00001-of-{len(files):05}.safetensors"
    assert all(path.stat().st_size < 33_000 or len(load_file(path)) == 1 for path in files)
    assert len(files) > 2
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == {name: path.name for path in files for name in load_file(path)}
    expected = merge_state_dicts(
        "dare_ties",
        weights(root / "base"),
        [weights(root / name) for name in NAMES[1:]],
        density=0.5,
        weight=0.6,
        seed=3,
    )
    found = weights(tmp_path / "out")
    assert found.keys() == weights(root / "base").keys() == expected.keys()
    assert ("lm_head.weight" in found) is not tied
    assert all(torch.equal(found[name], expected[name]) for name in found)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.bfloat16
    assert (model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()) is tied
    assert torch.equal(model.lm_head.weight, found["model.embed_tokens.weight" if tied else "lm_head.weight"])
    first = (tmp_path / "out" / files[0].name).read_bytes()
    merge_folders(written(root, **TIES | {"merge_method": "dare_ties"}), tmp_path / "again", seed=3)
    assert (tmp_path / "again" / files[0].name).read_bytes() == first


def test_types_are_the_widest_or_the_one_that_is_asked_for(own, tmp_path):
    held = weights(own / "domain")
    save_file({name: t.bfloat16() for name, t in held.items()}, own / "domain" / "model.safetensors")
    names = {"merge_method": "task_arithmetic", "parameters": {"weight": 0.5}}
    for number, (extra, dtype) in enumerate(
        [
            ({}, "float32"),
            ({"dtype": "float16"}, "float16"),
            ({"dtype": "float32", "out_dtype": "bfloat16"}, "bfloat16"),
        ]
    ):
        out = tmp_path / str(number)
        merge_folders(written(own, **names, **extra), out)
        assert {str(tensor.dtype) for tensor in weights(out).values()} == {f"torch.{dtype}"}
        assert json.loads((out / "config.json").read_text())["dtype"] == dtype


def test_tensors_begin_at_multiples_of_their_elements_size(tmp_path):
    tensors = {
        "narrow": torch.ones(3, dtype=torch.bfloat16),
        "wide": torch.ones(2),
        "odd": torch.ones(5, dtype=torch.int8),
    }
    about = [{name: tuple(t.shape) for name, t in tensors.items()}, {name: t.dtype for name, t in tensors.items()}]
    write_shards(tmp_path, *about, tensors.get)
    content = (tmp_path / "model.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    assert size % 8 == 0
    starts = {
        name: place["data_offsets"][0] for name, place in json.loads(content[8 : 8 + size]).items() if name in tensors
    }
    assert all(starts[name] % tensors[name].itemsize == 0 for name in tensors)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in load_file(tmp_path / "model.safetensors").items())


def test_a_slice_of_all_layers_is_the_model(parents, tmp_path):
    t = [{"filter": "self_attn", "value": [0, 0.5, 1]}, {"filter": "mlp", "value": [1, 0]}, {"value": 0.5}]
    sources = [{"model": f"@{name}", "layer_range": [0, 3]} for name in ("domain", "base")]
    config = {"merge_method": "slerp", "models": None, "slices": [{"sources": sources}], "parameters": {"t": t}}
    merge_folders(written(parents, **config), tmp_path / "out")
    expected = merge_state_dicts("slerp", state(parents / "base"), [state(parents / "domain")], t=t)
    found = weights(tmp_path / "out")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_settings_of_a_model_come_before_those_of_all(parents, tmp_path):
    models = [{"model": "@domain", "parameters": {"weight": 0.9}}, {"model": "@aligned"}, {"model": "@base"}]
    config = {"merge_method": "task_arithmetic", "models": models, "parameters": {"weight": 0.1, "lambda": 0.5}}
    merge_folders(written(parents, **config), tmp_path / "out")
    base, *others = (state(parents / name) for name in NAMES)
    expected = merge_state_dicts("task_arithmetic", base, others, weight=[0.9, 0.1], lambda_=0.5)
    assert torch.equal(weights(tmp_path / "out")[UP], expected[UP])


def test_a_base_is_one_more_model_where_the_method_has_none(parents, tmp_path):
    merge_folders(written(parents, merge_method="linear", parameters={"weight": 1}), tmp_path / "out")
    mean = sum(state(parents / name)[UP].double() for name in NAMES) / 3
    assert torch.allclose(weights(tmp_path / "out")[UP].double(), mean, atol=1e-6)


def test_tokenizer_and_generation_come_from_the_model_that_is_named(own, tmp_path):
    GenerationConfig(eos_token_id=[0, 7], max_new_tokens=5).save_pretrained(own / "aligned")
    edit(own / "aligned" / "config.json", eos_token_id=7)
    (own / "aligned" / "chat_template.jinja").write_text("{{ messages }}")
    align = {"merge_method": "mergealign", "parameters": {"a": 0.5}}
    for number, source in enumerate([{"tokenizer_source": "@aligned"}, {"tokenizer": {"source": "@aligned"}}]):
        merge_folders(written(own, **align, **source), tmp_path / f"aligned {number}")
        model = AutoModelForCausalLM.from_pretrained(tmp_path / f"aligned {number}")
        assert (model.generation_config.eos_token_id, model.config.eos_token_id) == ([0, 7], 7)
        assert AutoTokenizer.from_pretrained(tmp_path / f"aligned {number}").chat_template == "{{ messages }}"
        assert re.findall(r"/(\w+)`, (\w+)", (tmp_path / f"aligned {number}" / "README.md").read_text()) == [
            ("domain", "domain"),
            ("aligned", "aligned"),
        ]
    for number, source in enumerate([{}, {"tokenizer_source": "base"}, {"tokenizer": {"source": "base"}}]):
        merge_folders(written(own, **align, **source), tmp_path / str(number))
        model = AutoModelForCausalLM.from_pretrained(tmp_path / str(number))
        assert (model.generation_config.eos_token_id, model.config.eos_token_id) == (0, 0)
        assert AutoTokenizer.from_pretrained(tmp_path / str(number)).chat_template is None


def test_models_without_tokenizers_are_merged_without(tmp_path):
    root = write_parents(tmp_path / "parents", tokenizer=False)
    merge_folders(written(root, **TIES), tmp_path / "out")
    assert torch.isfinite(state(tmp_path / "out")[UP]).all()
    refused(root, r"base has no tokenizer$", tmp_path, **TIES, tokenizer_source="base")


def test_a_head_stored_beside_a_tied_embedding_stays_one_with_it(tmp_path):
    root = write_parents(tmp_path / "parents", tied=True)
    for name in ("base", "domain"):
        change(root / name, "lm_head.weight", weights(root / name)["model.embed_tokens.weight"].clone())
    merge_folders(written(root, **TIES | {"merge_method": "dare_linear"}), tmp_path / "out")
    found = weights(tmp_path / "out")
    assert torch.equal(found["lm_head.weight"], found["model.embed_tokens.weight"])
    assert not torch.equal(found["lm_head.weight"], weights(root / "base")["lm_head.weight"])


def test_one_tensor_of_each_model_is_held_at_a_time(parents, tmp_path, monkeypatch):
    alive, most = [], []

    def load(self, name):
        tensor = plain(self, name)
        alive.append(weakref.ref(tensor))
        most.append(sum(each() is not None for each in alive))
        return tensor

    plain = Checkpoint.__getitem__
    monkeypatch.setattr(Checkpoint, "__getitem__", load)
    merge_folders(written(parents, **TIES), tmp_path / "out")
    assert len(alive) > 80
    assert max(most) <= 4  # the last model's, until the next one is there


def test_a_model_on_the_hub_comes_by_its_commit(parents, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        zoo,
        "snapshot_download",
        lambda name, *, revision, **_: asked.append((name, revision)) or str(parents / "domain"),
    )
    models = [{"model": f"owner/name@{COMMIT}", "parameters": {"weight": 1}}]
    merge_folders(written(parents, merge_method="task_arithmetic", models=models), tmp_path / "out")
    assert asked == [("owner/name", COMMIT)]
    assert torch.allclose(weights(tmp_path / "out")[UP], state(parents / "domain")[UP])
    gone = [{"model": "owner/name"}]
    refused(
        parents,
        "owner/name is no folder; for a model on the hub at revision None: give the 40 hex",
        tmp_path,
        merge_method="ties",
        models=gone,
    )


def part(**layers):
    return {"models": None, "slices": [{"sources": [{"model": "@domain", **layers}]}]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"merge_method": "della"}, r"config.yml: merge_method is 'della', allowed: linear, .*dare_ties$"),
        ({"merge_method": None}, "merge_method is None"),
        ({"modules": {}}, "modules is not supported; allowed in the file: merge_method"),
        ({"chat_template": "auto"}, "chat_template is not supported"),
        ({"tokenizer": {"source": "union"}}, "the source of tokenizer is union, allowed: base or a model"),
        ({"tokenizer": {"source": "base", "tokens": {}}}, "tokens is not supported; allowed in tokenizer: source"),
        ({"tokenizer": "base"}, "tokenizer is 'base', allowed: source with values"),
        ({"tokenizer": {"source": "base"}, "tokenizer_source": "base"}, "give either tokenizer or tokenizer_source"),
        ({"tokenizer_source": "union"}, "tokenizer_source is union, allowed: base or a model"),
        ({"base_model": None}, "ties needs base_model"),
        ({"models": None}, "give either models or slices"),
        ({"models": []}, r"models is \[\], allowed: a list"),
        ({"models": [{"model": "@base"}]}, "ties merges 1 or more models beside its base, not 0"),
        ({"models": [{"model": "@domain"}, {"model": "@domain"}]}, "domain is there more than once"),
        ({"models": [{"model": "@domain+lora"}]}, "domain.lora: adapters are not merged"),
        ({"models": [{"model": "@domain", "layer_range": [0, 3]}]}, "layer_range is not supported; allowed in a model"),
        ({"models": [{"model": {"path": "x"}}]}, "model is {'path': 'x'}, allowed: a folder"),
        ({"models": [{"parameters": {}}]}, "an entry names no model"),
        ({"models": [{"model": "@domain", "parameters": {"epsilon": 1}}]}, "no parameter 'epsilon' of a single"),
        ({"models": [{"model": "@domain", "parameters": {"lambda": 1}}]}, "'lambda' of a single model; allowed: we"),
        ({"models": [{"model": "@domain"}, {"model": "@base", "parameters": {"weight": 1}}]}, "base is the base"),
        ({"models": [{"model": "@elsewhere"}]}, "elsewhere.* is neither a folder nor owner/name"),
        ({"parameters": [1]}, r"parameters of the file is \[1\], allowed: names with values"),
        ({"parameters": {"weight": 1, "gamma": 0.1}}, "ties has no parameter 'gamma'; allowed: weight, density, norm"),
        ({"parameters": {"weight": 1, "density": 0}}, "weight: density is 0, allowed: above 0, at most 1"),
        ({"parameters": {"weight": 1, "density": [0.5, 1.5]}}, "layers.1.*: density is 1.5|layers.2.*: density is 1.5"),
        ({"parameters": {"density": 0.5}}, "ties needs weight, which has no value for"),
        ({"parameters": {"weight": "much"}}, "weight is 'much', allowed: finite numbers"),
        ({"dtype": "int8"}, "dtype is 'int8', allowed: float32, float16, bfloat16"),
        ({"out_dtype": "float8"}, "out_dtype is 'float8'"),
        (part(layer_range=[0, 2]), "layer_range ends at 2, .* has 3 layers: models are merged whole"),
        (part(layer_range=[1, 3]), r"layer_range is \[\[1, 3\]\], allowed: the whole model"),
        (part(), r"layer_range is \[None\], allowed: the whole model"),
        ({"models": None, "slices": [{}, {}]}, "slices has more than one entry"),
        ({"models": None, "slices": [{"sources": [], "residual_weight": 1}]}, "residual_weight is not supported"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_understood_is_refused(parents, tmp_path, content, message):
    refused(parents, message, tmp_path, **{"merge_method": "ties", "parameters": {"weight": 1}} | content)


def test_a_parameter_of_the_last_layer_is_refused_before_the_first_is_merged(parents, tmp_path, monkeypatch):
    monkeypatch.setattr(folders_module, "write_shards", lambda *_: pytest.fail("began"))
    gradient = {"merge_method": "ties", "parameters": {"weight": 1, "density": [0.5, 1, 1.5]}}
    refused(parents, r"layers.2.*: density is 1.5, allowed: above 0, at most 1", tmp_path, **gradient)


def test_a_file_that_cannot_be_read_is_one_line(parents, tmp_path):
    with pytest.raises(UserError, match=r"none.yml cannot be read: No such file"):
        merge_folders(tmp_path / "none.yml", tmp_path / "out")
    for content, message in ((b"a: [", "is no YAML"), (b"\xff", "cannot be read"), (b"- 1", "allowed: merge_method")):
        (tmp_path / "bad.yml").write_bytes(content)
        with pytest.raises(UserError, match=message) as caught:
            merge_folders(tmp_path / "bad.yml", tmp_path / "out")
        assert "\n" not in str(caught.value)
    refused(parents, "ties draws nothing at random: it takes no seed", tmp_path, seed=1, **TIES)


def test_what_is_there_is_not_overwritten(parents, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="out is there already: name a new folder"):
        merge_folders(written(parents, **TIES), tmp_path / "out")
    with pytest.raises(UserError, match="base is there already"):
        merge_folders(written(parents, **TIES), parents / "base")


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (None, rf"{UP} is in .*base and not in .*domain"),
        (torch.zeros(3, 5), rf"{UP} is \(48, 32\) in .*base and \(3, 5\) in .*domain"),
        (torch.full((48, 32), torch.nan), rf"{UP}: 1536 of its values in .*domain are infinite or not a number"),
        (torch.zeros(48, 32, dtype=torch.float8_e4m3fn), rf"{UP} in .*model.safetensors is F8_E4M3, allowed: F64"),
        (torch.zeros(48, 32, dtype=torch.int8), rf"{UP}: of type torch.float32|{UP}: of type torch.int8"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(own, tmp_path, tensor, message):
    change(own / "domain", UP, tensor)
    refused(own, message, tmp_path, **TIES)


def test_a_tensor_too_many_is_named(own, tmp_path):
    change(own / "domain", "model.extra.weight", torch.zeros(2))
    refused(own, r"model.extra.weight is in .*domain and not in .*base", tmp_path, **TIES)


def test_a_lost_head_is_named(own, tmp_path):
    for name in NAMES:
        change(own / name, "lm_head.weight", None)
    refused(own, "lm_head.weight is not in .*, whose configuration does not tie it", tmp_path, **TIES)


def test_another_vocabulary_is_refused(own, tmp_path):
    text = (own / "aligned" / "tokenizer.json").read_text()
    edit(own / "domain" / "tokenizer.json", padding=None, version="1.0")  # other bytes, the same vocabulary
    merge_folders(written(own, **TIES), tmp_path / "same")
    vocabulary = json.loads(text)
    first, second = list(vocabulary["model"]["vocab"])[40:42]
    swapped = {first: second, second: first}
    ids = vocabulary["model"]["vocab"]
    vocabulary["model"]["vocab"] = {word: ids[swapped.get(word, word)] for word in ids}
    vocabulary["model"]["merges"] = []
    (own / "aligned" / "tokenizer.json").write_text(json.dumps(vocabulary))
    refused(own, r"aligned has another vocabulary than .*base: '.*' has the id \d+ in .* and \d+ in", tmp_path, **TIES)
    (own / "aligned" / "tokenizer.json").write_text("{")
    refused(own, "tokenizer.json cannot be read", tmp_path, **TIES)
    (own / "aligned" / "tokenizer.json").rename(own / "aligned" / "vocab.json")
    refused(own, "vocabularies in different files, which cannot be compared", tmp_path, **TIES)
    (own / "base" / "tokenizer.json").unlink()
    refused(own, "base has no tokenizer; tokenizer_source may be .*domain, .*aligned", tmp_path, **TIES)


@pytest.mark.parametrize(
    ("key", "value"), [("num_attention_heads", 4), ("model_type", "mistral"), ("hidden_act", "gelu")]
)
def test_weights_that_mean_something_else_are_not_mixed(own, tmp_path, key, value):
    edit(own / "domain" / "config.json", **{key: value})
    refused(own, f"{key} is .* in .*base and '?{value}'? in .*domain", tmp_path, **TIES)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.safetensors", b"\x10", r"domain/model.safetensors cannot be read"),
        ("model.safetensors", None, r"domain holds no model.safetensors$"),
        ("model.safetensors.index.json", b"{}", r"index.json cannot be read"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "../base/model.safetensors"}}', "a file outside"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "model.safetensors"}}', "a is not in .*, though model"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": "none.safetensors"}}', "none.safetensors cannot be"),
        ("config.json", None, r"domain/config.json cannot be read: No such file"),
        ("config.json", b"[]", r"domain/config.json holds no configuration"),
    ],
)  # fmt: skip
def test_a_broken_folder_is_named(own, tmp_path, file, content, message):
    (own / "domain" / file).unlink(missing_ok=True)
    if content is not None:
        (own / "domain" / file).write_bytes(content)
    refused(own, message, tmp_path, **TIES)


def test_pickles_and_adapters_are_not_opened(own, tmp_path):
    (own / "domain" / "model.safetensors").rename(own / "domain" / "pytorch_model.bin")
    refused(own, "domain holds no model.safetensors, only pytorch_model.bin", tmp_path, **TIES)
    (own / "domain" / "adapter_config.json").write_text("{}")
    refused(own, "domain holds an adapter: merge it into its model first", tmp_path, **TIES)


def test_a_full_disk_names_the_tensor_and_leaves_nothing(parents, tmp_path):
    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    command = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); from common.cli import main; main()"
    arguments = [
        sys.executable,
        "-c",
        command,
        "merge",
        str(written(parents, **TIES)),
        str(tmp_path / "out" / "merged"),
    ]
    ended = subprocess.run(arguments, preexec_fn=small_files, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert re.fullmatch(r"error: cannot write [\w.]+\.weight: File too large\n", ended.stderr)
    assert not list((tmp_path / "out").iterdir())


def test_a_merge_that_is_stopped_leaves_nothing(parents, tmp_path, monkeypatch):
    def stop(recipe, name, *rest):
        if name == UP and rest[1][next(iter(rest[1]))].numel():
            raise KeyboardInterrupt
        return plain(recipe, name, *rest)

    plain = folders_module.merge_named
    monkeypatch.setattr(folders_module, "merge_named", stop)
    with pytest.raises(KeyboardInterrupt):
        merge_folders(written(parents, **TIES), tmp_path / "out" / "merged")
    assert not list((tmp_path / "out").iterdir())


def test_the_readmes_example_runs(parents, tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text().split("## Merge your own models")[1].split("\n## ")[0]
    example = text.split("```yaml\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        (tmp_path / name).symlink_to(parents / name)
    (tmp_path / "config.yml").write_text(example)
    command = text.split("```sh\n")[1].split("\n")[0].partition("#")[0].split()
    assert command[0] == "compendium"
    shown = CliRunner().invoke(app, command[1:])
    assert shown.exit_code == 0, shown.output
    assert state(tmp_path / command[-1])
    python = text.split("```python\n")[1].split("```")[0]
    names = {"base": state("base"), "domain": state("domain"), "aligned": state("aligned")}
    exec(python, names)
    assert names["merged"].keys() == names["base"].keys()
