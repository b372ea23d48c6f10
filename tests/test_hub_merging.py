"""The study of merging from a model of others, with their judges: a scale that names folders in the hub's formats."""

import json
from collections import Counter
from inspect import signature

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, Qwen2Config, RobertaConfig

from common.alignment.runs import Asking
from common.analysis import judging
from common.analysis.merging.laboratory import ASKED, TABLES, Laboratory
from common.analysis.merging.scores import MEASURES
from common.bases import locating
from common.bases.given import take
from common.errors import UserError
from common.experts.runs import examine_model
from common.footprint import GIB, examination, examining, footprint, largest, on_meta, studies, trainings
from common.gpu_workers import packed
from common.judges.hub import GuardJudge, load_classifier
from common.judges.others import Judges, opened
from common.machine import Gpu, needs
from common.models import parameter_count
from common.notebooks import read_notebook
from common.planning import rehearsal
from common.plots import merging as plots
from common.project import ROOT
from common.scales import section
from common.signature import mistakes, parameter_types, parameters_cell
from common.sweep import Sweep
from common.sweep.records import Record
from given_models import FURTHER, LIMIT, READING, Direct, all_tables, give_model
from others_files import at_papers_scale, scale_writer
from others_judges import guard, steady
from parents import edit

REPLAYED = {"steps": 3, "batch_size": 2, "learning_rate": 0.003, "replay_weight": 1.0, "replay_batch_size": 2}
RIVALRY = {"steps": 3, "batch_size": 2, "warmup": 0, "beta": 0.1, "lora": {"r": 2, "lora_alpha": 4}}
NAMED = {
    "safe": {"model": "guard", "opening": "\n\n"},
    "refuses": {"model": "refusals", "label": "LABEL_1", "means": "safe"},
}
KNOBS = ("vocab_size", "reading", "base", "unexposed_shares", "alignment", "expertise", "helpful", "prompts", "judges")
SURE = 4.0  # log-odds of what judges find: a probability of .98


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return give_model(tmp_path_factory.mktemp("models") / "qwen", tied=True, shard="20KB")


@pytest.fixture
def scale(model, tmp_path, monkeypatch):
    """A scale in a file, and what changes one of its items."""
    folders = {"qwen": model}
    folders |= {"guard": guard(model, tmp_path / "guard", SURE)}
    folders |= {"refusals": steady(model, tmp_path / "refusals", 2, SURE)}
    items = {
        name: {"id": f"owner/{name}", "kind": "model", "revision": None, "folder": str(folder)}
        for name, folder in folders.items()
    }
    stages = {"sft": REPLAYED | {"method": "sft"}, "dpo": REPLAYED | {"method": "dpo", "beta": 0.1}}
    knobs = {
        "tables": list(TABLES), "vocab_size": None, "reading": READING,
        "base": {"model": "qwen", "context": LIMIT, "further": FURTHER},
        "unexposed_shares": {"unsafe": 0.0, "benign": 0.0},
        "alignment": {"repeats": {"unsafe": 1, "hard": 1, "plain": 1}, **stages, "dialogue_share": 0.5},
        "expertise": section("tiny", "merging")["expertise"], "helpful": {}, "prompts": 3, "judges": NAMED,
    }  # fmt: skip
    return scale_writer(tmp_path, monkeypatch, "merging", items, knobs)


@pytest.fixture
def study(scale, tmp_path):
    (tmp_path / "runs").mkdir()
    made = Direct(tmp_path / "runs", all_tables(tmp_path / "tables"))
    made.scale = "x"
    return made


def laboratory(study, knobs, **changes):
    return Laboratory(study, TABLES, **{name: knobs[name] for name in KNOBS} | changes)


def test_the_notebook_takes_the_scale_and_refuses_judges_that_are_none(scale):
    types = parameter_types(parameters_cell(read_notebook(ROOT / "notebooks/merging.ipynb"), "merging"), "merging")
    assert mistakes(types, scale()) == []
    assert mistakes(types, {"judges": {}}) == []
    for wrong in ({"refuses": NAMED["safe"]}, {"kind": NAMED["safe"]}, {"safe": {"model": "guard"}}):
        (first, *_) = mistakes(types, {"judges": wrong})
        assert first.startswith(f"judges.{next(iter(wrong))}")


def test_a_model_of_the_hub_is_trained_further_merged_and_judged_by_others(scale, study, model):
    own = laboratory(study, scale())
    parents = own.made("main", {"main": [20], "unexposed": [20]}, "test")
    ways = {"MergeAlign": [("mergealign", {"a": 1.0, "b": 0.5})]}
    merged = own.merged("merges", [20], ways, "test")
    trained = own.trained("rivals", [20], ["medicine"], {"SFT": [0.001]}, RIVALRY, "test")
    own.compared([20], {"a": 1.0, "b": 0.5}, 3)
    assert study.swept["main_bases"][2]["model"] == model
    assert "tokenizer" not in study.swept
    ran = Counter(run.__name__ for run, cells, _ in study.swept.values() for _ in cells)
    assert ran == {
        "start_from": 2, "align": 2, "specialise": 4, "examine_model": 13, "examine_merge": 2, "harden": 1,
        "compare": 2,
    }  # fmt: skip
    # Every reply is as safe as the guard says, and every one declines as the classifier says.
    for runs in (parents, merged, trained):
        told = runs[["safety", "complied", "greedy", "attacked", "refused_hard", "refused_plain"]].to_numpy(float)
        assert (told == [1, 0, 1, 0, 1, 1]).all()
    for run, cells, inputs in study.swept.values():
        judged = run.__name__.startswith("examine")
        assert all((cell.get("judges") == NAMED) == judged for cell in cells)
        assert ({"guard", "refusals"} <= inputs.keys()) == judged


@pytest.mark.parametrize(
    ("safe", "refuses", "chosen", "found"),
    [
        (SURE, -SURE, ("safe", "refuses"), (1, 0, 0, 0)),
        (-SURE, SURE, ("safe", "refuses"), (0, 1, 1, 1)),
        (0.0, SURE, ("safe", "refuses"), (0, 0, 0, 1)),  # in doubt
        (-SURE, SURE, ("refuses",), (1, 0, 0, 1)),
        (-SURE, -SURE, ("refuses",), (0, 1, 1, 0)),
    ],
)
def test_each_judge_has_its_own_prompts_and_refusals_stand_for_safety_where_nobody_judges_it(
    model, tmp_path, safe, refuses, chosen, found
):
    (tmp_path / "base").mkdir()
    take(LIMIT, model=model, keep=tmp_path / "base")
    models = {"base_20": tmp_path / "base", "guard": guard(model, tmp_path / "guard", safe)}
    models |= {"refusals": steady(model, tmp_path / "refusals", 2, refuses)}
    files = {name: path for name, path in all_tables(tmp_path / "tables").items() if name in ASKED}
    judges = {name: NAMED[name] for name in chosen}
    told = examine_model("base_20", "finance", "test", True, 6, 3, 0, judges, **files, **models)
    assert tuple(told[name] for name in ("safety", "complied", "attacked", "refused_hard")) == found


def test_a_judge_of_refusals_is_shown_the_reply_alone_and_a_judge_of_safety_the_prompt_too(model, tmp_path):
    folder = steady(model, tmp_path / "judge", 2, 0.0)
    torch.manual_seed(0)
    BertForSequenceClassification(BertConfig.from_pretrained(folder, initializer_range=0.5)).save_pretrained(folder)
    named = Judges.model_validate(dict.fromkeys(("safe", "refuses"), NAMED["refuses"]))
    judges = opened(named.found({"refusals": folder}))
    alone = load_classifier(str(folder), None, "LABEL_1", "safe")
    prompts, replies = ["Steal the jar?", "Wash the lid?"], ["No, never.", "Yes, here."]
    shown = {name: judge.judge(prompts, replies).tolist() for name, judge in judges.items()}
    assert shown == {
        "safe": alone.judge(prompts, replies).tolist(),
        "refuses": alone.judge(["", ""], replies).tolist(),
    }
    assert shown["safe"] != shown["refuses"]


def test_runs_that_our_own_judge_judges_are_what_they_were(scale, study):
    own = laboratory(study, scale(), judges={})
    plans = [own._exam("test"), own._exam("validation", attacks=False)]
    assert plans == [
        {"split": split, "attacks": attacks, "facts_per_relation": 6, "prompts": 3}
        for split, attacks in (("test", True), ("validation", False))
    ]
    assert own.judges == {}
    for name in ("laptop", "tiny", "gpu", "smollm2"):
        assert section(name, "merging")["judges"] == {}


def test_alignments_exam_may_have_a_guard_too(model, tmp_path):
    numbers = dict.fromkeys(("items", "written", "unsafe", "facts_asked", "instructions"), 1)
    knobs = {**numbers, "attacks": [], "judges": {"safe": NAMED["safe"]}, "split": "test", "facts_per_relation": 6}
    files = {name: path for name, path in all_tables(tmp_path / "tables").items() if name in ASKED}
    asked = Asking.model_validate(knobs).questions({"guard": guard(model, tmp_path / "guard", SURE)}, **files)
    assert isinstance(asked.safe, GuardJudge)
    assert asked.safe.judge(["Why?"], ["So."]) == pytest.approx([1 / (1 + np.exp(-SURE))], abs=1e-5)


@pytest.mark.parametrize(
    ("item", "change", "says"),
    [
        ("qwen", {"folder": "no/such"}, "scales/x.yaml: hub.qwen: there is no folder no/such"),
        ("qwen", {"folder": None}, "scales/x.yaml: hub.qwen: owner/qwen has no revision: write the commit to use"),
        ("guard", {"folder": "no/such"}, "scales/x.yaml: hub.guard: there is no folder no/such"),
        ("guard", {"folder": None}, "scales/x.yaml: hub.guard: owner/guard has no revision: write the commit to use"),
        ("guard", {"folder": "docs"}, "docs holds no safetensors"),
        ("guard", {"kind": "dataset"}, "scales/x.yaml: hub.guard is a dataset, needed: a model"),
        ("refusals", {"folder": None}, "scales/x.yaml: hub.refusals: owner/refusals has no revision: write the"),
    ],
)
def test_what_cannot_be_had_is_one_line_before_anything_runs(scale, study, item, change, says):
    with pytest.raises(UserError, match=says) as refused:
        laboratory(study, scale(**{item: change}))
    assert "\n" not in str(refused.value)
    assert study.swept == {}


ALIKE = "{% for message in messages %}{{ message['role'] }} {% endfor %}Safe or not?"


def spoilt(folder, what):
    """Take from a judge's folder what it needs."""
    if what == "policy":
        (folder / "chat_template.jinja").unlink()
    elif what == "turns":
        (folder / "chat_template.jinja").write_text("{{ raise_exception('no such role') }}")
    elif what == "said":
        (folder / "chat_template.jinja").write_text(ALIKE)
    elif what == "context":
        edit(folder / "config.json", max_position_embeddings=8)
        edit(folder / "tokenizer_config.json", model_max_length=8)
    elif what == "length":
        edit(folder / "tokenizer_config.json", model_max_length=10**6)
    elif what == "shard":
        (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-2.safetensors"}}')
    elif what == "end":
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1])
    else:
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("judge", "what", "says"),
    [
        ("guard", "policy", "guard has no chat template: a guard's policy"),
        ("guard", "turns", "guard can't judge .*: no such role"),
        ("guard", "said", "guard can't judge a conversation: its chat template leaves out what is said"),
        ("guard", "context", "guard can't judge a conversation: .* tokens and more, its context is 8"),
        *(
            (judge, what, says)
            for judge in ("guard", "refusals")
            for what, says in (
                ("format", f"{judge} holds no safetensors"),
                ("shard", f"{judge} lacks model-2.safetensors, which model.safetensors.index.json names"),
                ("end", "model.safetensors cannot be read"),
                ("length", f"{judge}: its tokenizer allows 1000000 tokens, the model .*: write that as model_max_len"),
            )
        ),
    ],
)
def test_a_judge_that_cannot_judge_is_refused_before_anything_runs(
    scale, study, tmp_path, monkeypatch, judge, what, says
):
    def unwanted(*asked, **options):
        raise AssertionError("its weights were opened")

    monkeypatch.setattr("common.zoo.load", unwanted)
    spoilt(tmp_path / judge, what)
    with pytest.raises(UserError, match=says) as refused:
        laboratory(study, scale())
    assert "\n" not in str(refused.value)
    assert study.swept == {}


def test_a_judge_has_no_tables_name(scale, study, monkeypatch, tmp_path):
    monkeypatch.setattr(judging, "DATA", tmp_path)
    (tmp_path / "guard.jsonl").touch()
    with pytest.raises(UserError, match=r"^a judge is named guard, as a table is: give it another name"):
        laboratory(study, scale())


def test_a_classifier_is_no_guard(scale, study, tmp_path):
    with pytest.raises(UserError, match=r"guard is no causal language model, as guards are: it is .*BertForSeq"):
        laboratory(study, scale(guard={"folder": str(tmp_path / "refusals")}))


def test_a_plan_fetches_no_judge_and_does_not_open_the_one_that_stands_in(scale, study, tmp_path, monkeypatch):
    for place, name in ((locating, "located"), (judging, "folder_of"), (judging, "check")):
        monkeypatch.setattr(place, name, getattr(place, name))  # to be put back
    knobs = scale(guard={"folder": None, "revision": "0" * 40})
    absent = rehearsal._without_fetching(tmp_path / "absent")
    own = laboratory(study, knobs)
    assert absent == {"guard"}
    assert own.judges == {"guard": tmp_path / "absent/guard", "refusals": tmp_path / "refusals"}


# The paper's scale


QWEN = {
    "0.5B": {"hidden_size": 896, "num_hidden_layers": 24, "intermediate_size": 4864, "num_attention_heads": 14},
    "1.5B": {"hidden_size": 1536, "num_hidden_layers": 28, "intermediate_size": 8960, "num_attention_heads": 12},
}
GUARD = LlamaConfig(
    vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
    num_key_value_heads=8, dtype="bfloat16",
)  # fmt: skip


@pytest.fixture
def qwen(monkeypatch):
    """What has merging at the paper's scale start from a Qwen of that size."""
    judges = {"llama_guard": GUARD, "refusals": RobertaConfig(num_hidden_layers=6)}
    monkeypatch.setattr(examining, "named_config", lambda name, scale: judges[name])

    def of(size):
        config = Qwen2Config(
            **QWEN[size], num_key_value_heads=2, vocab_size=151936, tie_word_embeddings=True,
            max_position_embeddings=256, dtype="float32",
        )  # fmt: skip
        monkeypatch.setattr(studies, "config_of", lambda given, scale: config)

    return of


def test_merging_fits_the_stated_memory_with_both_judges_beside_whatever_runs(qwen):
    qwen("0.5B")
    guarding = examining.judges_weights("merging", "paper")
    assert guarding == pytest.approx(4 * (8.03e9 + 82e6), rel=0.01)  # float32; the sizes of their makers
    held = examination("merging", "paper")
    assert held.parameters == pytest.approx(0.494e9, rel=0.01)
    trained = max(footprint(each).total for each in trainings("merging", "paper"))
    assert largest("merging", "paper") == max(trained + guarding, held.total)
    stated = Gpu("0", "toy", int(needs("paper").memory_gb * GIB))
    assert packed(stated, largest("merging", "paper"), cores=9) == 1


def test_the_next_larger_model_would_not_be_compared_in_the_stated_memory_even_without_judges(qwen):
    qwen("1.5B")
    (first, *_) = trainings("merging", "paper")
    compared = 20 * 4 * parameter_count(on_meta(first))
    assert compared / GIB == pytest.approx(115, abs=1)  # as the scale says
    assert compared > needs("paper").memory_gb * GIB


PARTS = ("embedding", "layer 1 attention", "layer 1 feed-forward", "head", "all")
PATHS = ("base to expert", "base to generalist", "expert to generalist")


class Told:
    """Stands where `common.sweep.sweep` does: does no run, and gives each numbers by chance."""

    def __init__(self):
        self.rng, self.runs, self.inputs = np.random.default_rng(0), [], []

    def __call__(self, run, cells, *, name, inputs, **options):
        own = [self._record(run.__name__, cell) for cell in cells]
        self.runs += own
        self.inputs += [inputs] * len(own)
        return Sweep(own, len(own), [record.key for record in own if "keep" in signature(run).parameters])

    def _record(self, run, cell):
        drawn = lambda *names: dict(zip(names, self.rng.random(len(names)), strict=True))  # noqa: E731
        metrics, tables = drawn("tokens", "cosine", "equal_signs", *MEASURES), {}
        if run == "compare":
            rows = {
                "alikeness": [{"part": part, **drawn(*plots.SIMILARITY)} for part in PARTS],
                "contribution": [
                    {"vector": vector, "part": part, **drawn(*plots.LOST)}
                    for vector in ("expert", "generalist") for part in PARTS[:-1]
                ],
                "path": [
                    {"path": path, "place": place, "loss_of": of, **drawn("loss")}
                    for path in PATHS for place in (0.0, 0.5, 1.0) for of in ("answers", "refusals")
                ],
            }  # fmt: skip
            tables = {name: pd.DataFrame(several).to_dict("list") for name, several in rows.items()}
        return Record(f"{run} {len(self.runs)} {json.dumps(cell)}", run, cell, metrics, tables)


def test_the_notebook_goes_through_the_papers_scale_to_its_claims(monkeypatch, tmp_path):
    monkeypatch.setattr(judging, "folder_of", lambda name, scale: tmp_path / name)
    monkeypatch.setattr(judging, "check", lambda judge, folder: None)
    told, knobs = Told(), section("paper", "merging")
    figures = at_papers_scale("merging", told, plots, tmp_path, monkeypatch)
    ran = Counter(record.run for record in told.runs)
    # Every seed has its base, and the first few one more that met no prompts of ours.
    assert ran["start_from"] == len(knobs["pilot_seeds"]) + len(knobs["seeds"]) + knobs["ablated"]
    assert not {"fit_tokenizer", "pretrain_base", "take"} & ran.keys()
    bases = [record.cell["further"] for record in told.runs if record.run == "start_from"]
    assert knobs["base"]["further"] in bases
    for record, inputs in zip(told.runs, told.inputs, strict=True):
        judged = record.run.startswith("examine")
        assert record.cell.get("judges") == (knobs["judges"] if judged else None)
        assert ({"llama_guard", "refusals"} <= inputs.keys()) == judged
    claims = json.loads((tmp_path / "results/claims.json").read_text())
    assert len(claims) == 10 + len(knobs["rivals"])
    assert {claim["figure"] for claim in claims.values()} <= {*figures}
    rates = {record.cell["tuning"]["learning_rate"] for record in told.runs if record.run == "harden"}
    assert rates == {rate for several in knobs["rivals"].values() for rate in several}


def test_full_fine_tunings_of_the_papers_scale_have_half_the_rates_of_the_smaller_model():
    paper, smaller = (section(name, "merging") for name in ("paper", "smollm2"))
    for rival, rates in paper["rivals"].items():
        halved = 1 if "LoRA" in rival else 2
        assert [halved * rate for rate in rates] == pytest.approx(smaller["rivals"][rival])
    for name in ("sft", "dpo"):
        own, other = ({**each["alignment"][name]} for each in (paper, smaller))
        assert 2 * own.pop("learning_rate") == pytest.approx(other.pop("learning_rate"))
        assert own == other
