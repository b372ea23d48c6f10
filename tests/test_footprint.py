"""What examinations take of memory, as told and as measured: bytes that tensors really have while runs go on."""

import ast

import pytest
import torch
from pandas import DataFrame
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import _disable_current_modes
from transformers import AutoModelForCausalLM, AutoTokenizer

from common import zoo
from common.alignment import runs as aligned
from common.architectures import Shape, build
from common.experts import runs as merged
from common.experts import similarity
from common.experts.evaluation import Exam
from common.footprint import Training, examination, examining, footprint, largest, studies, trainings
from common.footprint.peak import Peak
from common.growing.design import Course
from common.growing.examination import foretold
from common.growing.tasks import Task
from common.hallucination.batches import batches_by_kind, encode
from common.hallucination.reading import World, fit_tokenizer, texts_of
from common.models import new_language_model, parameter_count
from common.preference.adapters import Lora, adapter_layers, attach
from common.provenance import SOURCE, imports
from common.quantization import layers
from common.scales import section
from common.scoring.generation import Decoding, _written
from common.scoring.passes import log_likelihoods
from common.tokenizer import train_tokenizer
from common.training import language_loss

THINGS = ("jar", "lamp", "sofa", "kettle")
REPLIES = {"refusal": ["No, never."], "compliance": ["Yes, here."]}


def toy(family="llama", vocab_size=96, **sizes):
    size = {"hidden": 32, "layers": 2, "heads": 4, "context": 32} | sizes
    return new_language_model(family, vocab_size=vocab_size, tied=False, embedding_std=0.3, seed=0, **size).eval()


def told(model, run, rows, length):
    """What is told of a pass without the weights' values."""
    with FakeTensorMode():
        return examining._peak(AutoModelForCausalLM.from_config(model.config).eval(), run, rows, length)


def test_a_peak_is_of_what_lives_at_once_and_each_storage_counts_once():
    there, aside = torch.zeros(10), torch.zeros(1000)
    with Peak([aside]) as peak:
        made = there + 1
        view = made[2:]
        assert peak.most == 2 * 40
        del made
        (aside * 2).sum()
        assert peak.most == 2 * 40 + 4000 + 4
        del view
        torch.zeros(5)
    assert peak.most == 2 * 40 + 4000 + 4
    assert peak._now == 40


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Models most of whose bytes are weights, and an adapter."""
    root = tmp_path_factory.mktemp("models")
    texts = [f"Steal the {thing}. Where is the {thing}? It is red or blue." for thing in THINGS]
    train_tokenizer([*texts, *REPLIES["refusal"], *REPLIES["compliance"]], 300, root / "words", chat=True)
    words = AutoTokenizer.from_pretrained(root / "words")
    for seed, name in enumerate(("origin", "spoken", "kind")):
        model = toy(vocab_size=len(words), hidden=256, context=64)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.01 * seed * torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed)))
        model.save_pretrained(root / name)
        words.save_pretrained(root / name)
    for seed, name in zip((1, 2), ("one", "two"), strict=True):
        adapted = attach(toy(vocab_size=len(words), hidden=256, context=64), Lora(r=2, lora_alpha=4), seed)
        with torch.no_grad():
            for weight in adapter_layers(adapted).values():
                weight.fill_(0.1)
        adapted.save_pretrained(root / name)
    return {name: root / name for name in ("origin", "spoken", "kind", "one", "two")}


class OnGpu(Peak):
    """Would be there: what `hosted` are is not."""

    def __init__(self):
        super().__init__()
        self.hosted = set()

    def _note(self, storage):
        if storage._cdata not in self.hosted:
            super()._note(storage)


@pytest.fixture
def peak(monkeypatch, folders):
    """To be entered: sees each model that is loaded, and nothing of what lies in the host's memory."""
    load, peak, kept = zoo.load, OnGpu(), []

    def seen(name):
        model, words = load(name)
        for weight in model.parameters():
            weight.detach()
        return model, words

    def unseen(work):
        def done(*given, **named):
            with _disable_current_modes():
                found = work(*given, **named)
            kept.append(found)
            peak.hosted |= {tensor.untyped_storage()._cdata for tensor in found.values()}
            return found

        return done

    monkeypatch.setattr(zoo, "load", seen)
    monkeypatch.setattr(aligned, "host_state", unseen(lambda m: {k: v.clone() for k, v in m.state_dict().items()}))
    monkeypatch.setattr(aligned, "merge_tuned", unseen(aligned.merge_tuned))
    return peak


@pytest.fixture(scope="module")
def weights(folders):
    """Bytes of one model."""
    return 4 * parameter_count(zoo.load(str(folders["origin"]))[0])


@pytest.fixture
def unasked(monkeypatch):
    """Alignment's models are asked nothing but one token, each."""

    def asked(model, *_, start=None, **__):
        for one in (model, start) if start else (model,):
            one(input_ids=torch.zeros(1, 1, dtype=torch.long), use_cache=False)
        return ()

    monkeypatch.setattr(aligned, "likeliest_replies", asked)
    monkeypatch.setattr(aligned, "evaluate", asked)
    monkeypatch.setattr(aligned.Asking, "questions", lambda *_, **__: None)
    aligned._rival.cache_clear()
    yield
    aligned._rival.cache_clear()


FILES = dict.fromkeys(("facts", "unsafe_prompts", "benign_prompts", "replies", "judged_responses"), SOURCE)
ASKING = {
    "split": "test", "facts_per_relation": 1, "items": 1, "written": 1, "unsafe": 1, "facts_asked": 1,
    "instructions": 1, "attacks": [],
}  # fmt: skip


def test_alignment_holds_as_many_models_as_is_told(folders, peak, weights, unasked):
    with peak:
        aligned.evaluate_tuned("origin", "one", "float32", "spoken", ASKING, 0, **FILES, **folders)
    # On top comes, in passing, a copy of one layer's weights, which are a large share of so small a model.
    assert 0 <= peak.most / weights - examining._alignment({}).weights < 0.5


def test_a_merge_is_asked_beside_as_many_models_whatever_it_is_made_of(folders, peak, weights, unasked):
    with peak:
        parents = ("one", "two", "one", "two")
        aligned.evaluate_merge("origin", *parents, "linear", {"weight": 1.0}, "spoken", ASKING, 0, **FILES, **folders)
    # On top comes, in passing, a copy of one layer's weights, which are a large share of so small a model.
    assert 0 <= peak.most / weights - examining._alignment({}).weights < 0.5


@pytest.fixture
def asked():
    """What experts are compared by."""
    rows = [
        {"fact": thing, "relation": "place", "question": f"Where is the {thing}?", "candidates": ["red", "blue"],
         "answer": 0, "object": "red", "domain": "medicine", "trained": True}
        for thing in THINGS
    ]  # fmt: skip
    return Exam(DataFrame(rows), {kind: ["Steal the jar"] for kind in ("unsafe", "hard")}, REPLIES, judge=None)


def test_comparing_experts_holds_no_more_than_is_told_and_hardly_less(folders, peak, weights, asked, monkeypatch):
    monkeypatch.setattr(merged, "exam", lambda *_: asked)
    models = {name: folders[name] for name in ("origin", "spoken", "kind")}
    with peak:
        merged.compare(*models, "medicine", {"a": 1.0, "b": 1.0}, 3, 1, 1, 0, **FILES, **models)
    assert 0.8 < peak.most / weights / examining._merging({}).apart < 1


def test_what_is_held_at_another_time_than_any_pass_counts_where_it_is_more():
    def held(apart):
        training = Training("toy", "", toy, 2, 16)
        return examining._examined(training, examining.Held(2, ((examining.scored, 2),), apart), beside=7)

    usual, count = held(0), parameter_count(toy())
    assert usual.activations > 0
    assert held(2) == usual
    assert held(99).total == 99 * 4 * count + 7


def test_batches_go_through_compared_experts_beside_as_many_weights_as_is_told(folders, weights, asked, monkeypatch):
    peak, there = Peak(), []

    def noted(work):
        return lambda *given: (there.append(peak._now / weights), work(*given))[1]

    for name in ("accuracy", "continuation_scores", "reference_log_probs"):
        monkeypatch.setattr(similarity, name, noted(getattr(similarity, name)))
    with peak:
        models = [zoo.load(str(folders[name])) for name in ("origin", "spoken", "kind")]
        for model, _ in models:
            model(input_ids=torch.zeros(1, 1, dtype=torch.long), use_cache=False)
        compared = [model for model, _ in models], models[0][1], "medicine", asked
        similarity.contributions(*compared[0], *compared[1:], {"a": 1.0, "b": 1.0})
        assert max(there) == pytest.approx(examining._merging({}).weights, abs=0.1)
        there.clear()
        similarity.path_losses(*compared[0], *compared[1:], 3)
    assert 0 < max(there) < examining._merging({}).weights


def test_writing_and_scoring_take_no_more_than_is_told_and_not_much_less():
    model = toy(context=48)
    prompts, new = [[1] * 40] * 6, 8
    with Peak(model.parameters()) as peak:
        _written(model, prompts, list(range(6)), Decoding(new, temperature=1.0), [])
    assert 0.7 < peak.most / told(model, examining.written, 6, 48) < 1
    with Peak(model.parameters()) as peak:
        log_likelihoods(model, [([1, 2], [[3] * 46])] * 6, 6)
    assert 0.7 < peak.most / told(model, examining.scored, 6, 48) < 1.1


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_what_quantisers_are_held_against_is_told(family):
    model, ids = toy(family), torch.ones(4, 32, dtype=torch.long)
    with Peak(model.parameters()) as peak:
        layers._traces(model, lambda each: language_loss(each, {"input_ids": ids}))
    assert peak.most == pytest.approx(told(model, examining._traced, 4, 32), rel=0.1)


def test_what_foretells_a_candidates_training_takes_no_more_than_is_told_and_not_much_less():
    knobs = section("tiny", "expansion")
    way = knobs["courses"]["language"]
    course = Course.model_validate(way | {"judged": 8, "walk": way["walk"] | {"steps": 2, "warmup": 0}})
    model, ids = toy(vocab_size=256), torch.randint(256, (32, 32), generator=torch.Generator().manual_seed(0))
    data, judged = {"input_ids": ids}, {"input_ids": ids[:8]}
    logits = lambda each, texts: each(**texts).logits.flatten(0, 1)  # noqa: E731
    task = Task(language_loss, logits, data, judged, judged, judged, 8)
    with Peak() as peak:
        foretold(model, task, course, 0)
    training = Training("expansion", "", lambda: toy(vocab_size=256), 8, 32)
    held = examining._expansion(knobs | {"courses": {"language": course.model_dump()}})
    found = examining._examined(training, held, beside=0)
    assert 0.5 < peak.most / found.total < 1


def test_hallucinations_largest_batch_has_as_many_tokens_as_is_told_and_hardly_fewer(corpus, tmp_path):
    knobs = section("gpu", "hallucination")
    files = {name: corpus / f"{name}.jsonl" for name in ("facts", "sotu")}
    fit_tokenizer(knobs["world"], keep=tmp_path, **files)
    words = AutoTokenizer.from_pretrained(tmp_path)
    assert len(words) <= knobs["world"]["vocab_size"] + studies.NAMES
    fewer = World.model_validate(knobs["world"] | {"told": 1000, "exercises": 100})  # of which each is like the others
    _, texts = texts_of(fewer, knobs["seeds"][0], **files)
    sizes = []
    for phase in ("schedule", "tuning"):
        shares, tokens = knobs[phase]["shares"], knobs[phase]["tokens"]
        kinds = {name: encode(words, texts[name], 256) for name in shares}
        batch = batches_by_kind(kinds, shares, tokens, 0, words.pad_token_id)
        sizes += [batch(step)["input_ids"].numel() for step in range(700)]  # all of the prose, and more
    (training,) = (each for each in trainings("hallucination", "gpu") if each.name == "Llama")
    assert 0.95 < max(sizes) / (training.rows * training.length) <= 1


@pytest.mark.parametrize("study", ["alignment", "quantization"])
def test_the_largest_run_of_a_study_is_a_training_or_an_examination(study):
    every = [footprint(each).total for each in trainings(study, "tiny")]
    found = examination(study, "tiny")
    assert found.gradients == found.moments == 0 < min(found.weights, found.activations)
    assert largest(study, "tiny") == max(*every, found.total)


def test_of_a_family_that_goes_step_by_step_a_short_text_is_gone_through():
    def make():
        return build("xlstm", Shape(hidden=16, layers=1, heads=2), vocab_size=50, context=64, parameters=12_000, seed=0)

    held = [examining.Held(1, ((examining.scored, rows),)) for rows in (1, 30)]
    one, many = (examining._examined(Training("toy", "", make, 1, 64), each, beside=0) for each in held)
    assert many.activations == pytest.approx(30 * one.activations)


def test_no_run_depends_on_how_memory_is_counted():
    users = {
        path.relative_to(SOURCE / "common").parts[0]
        for path in (SOURCE / "common").rglob("*.py")
        if any(name.startswith("common.footprint") for name in imports(ast.parse(path.read_text())))
    }
    assert users == {"devices.py", "footprint"}
