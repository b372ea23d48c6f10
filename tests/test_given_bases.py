"""Merging's and alignment's laboratories from a given model: what they make of it, and what they refuse beforehand."""

import pytest

from common.alignment.evaluation import MEASURES
from common.analysis.alignment import laboratory as alignment
from common.analysis.merging import laboratory as merging
from common.analysis.merging.grids import FAMILIES
from common.analysis.merging.scores import by_seed
from common.bases.given import start_from, take
from common.errors import UserError
from common.scales import section
from common.sweep.records import Record, check
from common.zoo import load
from given_models import FURTHER, LIMIT, READING, TEMPLATE, Direct, all_tables, give_model
from pair_files import MAKING

TUNING = {"steps": 3, "batch_size": 2, "learning_rate": 0.003}
REPLAYED = TUNING | {"replay_weight": 1.0, "replay_batch_size": 2}
LORA = {"r": 2, "lora_alpha": 4}
NO_PROMPTS = {"unsafe": 0.0, "benign": 0.0}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return all_tables(tmp_path_factory.mktemp("tables"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return give_model(tmp_path_factory.mktemp("given") / "model", tied=True, shard="20KB")


@pytest.fixture
def study(tmp_path, files):
    return Direct(tmp_path, files)


def base(folder, further=FURTHER):
    return {"model": str(folder), "context": LIMIT, "further": further}


def merging_of(study, base, vocab_size=None, unexposed_shares=NO_PROMPTS):
    recipe = {
        "repeats": {"unsafe": 1, "hard": 1, "plain": 1}, "sft": REPLAYED | {"method": "sft"},
        "dpo": REPLAYED | {"method": "dpo", "beta": 0.1}, "dialogue_share": 0.5,
    }  # fmt: skip
    expertise = section("tiny", "merging")["expertise"]
    return merging.Laboratory(
        study, merging.TABLES, vocab_size, READING, base, unexposed_shares, recipe, expertise, {}, 3, {}
    )


def alignment_of(study, base, vocab_size=None, unseen_shares=NO_PROMPTS):
    instruction = {"dialogues": {"chat": 4, "unsafe": 4, "benign": 4}, "refused": 0.5}
    recipes = {
        "sft": {"method": "sft", "steps": 3, "batch_size": 2, "lora": LORA},
        "dpo": {"method": "dpo", "beta": 0.1, "steps": 3, "batch_size": 2, "lora": LORA},
    }
    asking = {"items": 2, "written": 1, "unsafe": 3, "facts_asked": 3, "instructions": 3, "attacks": []}
    return alignment.Laboratory(
        study, alignment.TABLES, vocab_size, READING, base, unseen_shares,
        instruction | {"tuning": REPLAYED | {"method": "sft"}}, MAKING, {}, recipes, {"sft": [0.01], "dpo": [0.01]},
        asking,
    )  # fmt: skip


def test_merging_goes_from_a_model_that_is_trained_further_to_merges(study, folder):
    own = merging_of(study, base(folder))
    assert own.families == list(FAMILIES)
    parents = own.made("main", {"main": [20], "unexposed": [20]}, "test")
    kinds = [f"{start}{role}" for start in ("", "unexposed_") for role in ("expert", "generalist")]
    assert parents["arm"].value_counts().to_dict() == dict.fromkeys(["base", "unexposed", *kinds], 2)
    run, cells, inputs = study.swept["main_bases"]
    assert run is start_from
    assert inputs["model"] == folder
    assert [cell["further"]["shares"]["unsafe"] for cell in cells] == [0.2, 0.0]
    assert not any(str(folder) in repr(cell) for cell in cells)
    assert load(str(own.models["generalist_20"]))[1].chat_template == TEMPLATE
    merged = own.merged("merges", [20], {"MergeAlign": [("mergealign", {"a": 1.0, "b": 0.5})]}, "test")
    assert len(merged) == 2
    assert merged["cosine"].between(-1, 1).all()
    assert "tokenizer" not in study.swept


def test_alignment_starts_from_a_model_taken_as_it_is_the_same_for_every_seed(study, folder):
    own = alignment_of(study, base(folder, None), unseen_shares={})
    starts = own.starts("main", [25, 26], ["base", "instruct"], "test")
    assert starts["start"].tolist() == ["base"] * 2 + ["instruct"] * 2
    run, cells, inputs = study.swept["main_base"]
    assert (run, cells, inputs) == (take, [{"context": LIMIT}], {"model": folder})
    assert own.kept["base_25"] == own.kept["base_26"] != own.kept["instruct_25"] != own.kept["instruct_26"]
    arm = {"start": "instruct", "data": "hh-like", "aim": "harmless"}
    tuned = own.tuned("crossing", "crossing", [arm | {"method": name} for name in ("sft", "dpo")], [25], "test")
    for row in tuned[list(MEASURES)].to_dict("records"):
        check(Record("key", "run", {}, row))


def test_alignment_has_a_base_without_prompts_where_it_is_trained_further(study, folder, monkeypatch):
    own = alignment_of(study, base(folder))
    monkeypatch.setattr(alignment, "instruct", lambda start, keep, **models: {})
    monkeypatch.setattr(alignment, "evaluate_tuned", lambda start, **models: {})
    monkeypatch.setattr(own.bases, "_run", lambda context, further, reading, seed, *, keep, **inputs: {})
    own.starts("main", [25], ["base", "instruct", "unseen"], "test")
    (read,), (unread,) = (study.swept[f"main_{kind}"][1] for kind in ("base", "unseen"))
    assert unread == read | {"further": FURTHER | {"shares": FURTHER["shares"] | NO_PROMPTS}}


@pytest.mark.parametrize("made", [merging_of, alignment_of])
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"base": {"model": "nowhere", "context": LIMIT, "further": FURTHER}}, "nowhere is neither a folder nor"),
        ({"vocab_size": 512}, "vocab_size is 512, allowed for a given model"),
        ({"base": base("x", None)}, r"_shares: allowed with a model that is taken as it is: none \(\{\}\)"),
        ({"base": {"context": 9}}, "vocab_size is none, allowed for a base trained from scratch"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_before_anything_runs(made, changes, says, study, folder):
    with pytest.raises(UserError, match=says) as refused:
        made(study, **{"base": base(folder), **changes})
    assert "\n" not in str(refused.value)
    assert study.swept == {}


def test_from_a_model_taken_as_it_is_merging_has_one_base_and_no_family_without_prompts(study, folder, monkeypatch):
    def trained(start, seed, keep, **more):
        return {"tokens": 0}

    def examined(model, seed, **more):
        return {"accuracy": 0.5 if model.startswith("base") else seed / 100}

    for name, run in {"align": trained, "specialise": trained, "examine_model": examined}.items():
        monkeypatch.setattr(merging, name, run)
    own = merging_of(study, base(folder, None), unexposed_shares={})
    assert own.families == [name for name in FAMILIES if name != "unexposed"]
    parents = own.made("main", {"main": [20, 21]}, "test")
    assert parents["taken"].equals(parents["arm"] == "base")
    assert (by_seed(parents, "base", "accuracy") == 0.5).all()  # the same model, and no mistake
    assert own.models["base_20"] == own.models["base_21"]
