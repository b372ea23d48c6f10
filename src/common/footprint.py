"""What training takes of a GPU's memory, told without a GPU: models on the meta device, steps of tensors without data.

Parameters are float32, as are gradients and AdamW's two moments. Activations are what autograd saves of a forward pass,
autocast's copies of weights among them; the gradient of the logits, the largest of what comes and goes, is counted on
top. Of a large model that is fine-tuned (see common.preference.recomputing) these are its layers' inputs and all of the
largest layer's. A run needs a little more: the kernels' workspace, and what PyTorch's allocator cannot fill. Of an LSTM
it does not see what the fused kernel keeps.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoModelForCausalLM, PreTrainedModel

from common.architectures import Shape, build
from common.architectures.recurrence import with_parallel_scan
from common.bases.given import Given
from common.bases.locating import config_of
from common.bases.start import given_model
from common.errors import UserError
from common.expansion.sizes import grown_sizes, resized
from common.models import new_language_model, parameter_count
from common.preference.recomputing import recomputing
from common.scales import section

WORD = 4  # bytes of a float32
GIB = 2**30
PAIR = 2  # completions of a preference pair
STEPWISE = ("lstm", "mamba2", "xlstm")
"""Families whose layers go through a text step by step, in Python: a short one is measured and counts by its tokens."""
SHORT = 32  # tokens of that

Knobs = Mapping[str, Any]


@dataclass(frozen=True)
class Training:
    """A model that a study trains, and how much it sees at once."""

    study: str
    name: str
    make: Callable[[], nn.Module]
    rows: int
    length: int  # tokens
    precision: str = "no"
    rank: int = 0  # of an adapter on all linear layers, which alone is trained; 0 where all weights are
    tuned: bool = False  # by common.preference.finetuning


@dataclass(frozen=True)
class Footprint:
    """Parameters, those of an adapter among them, and bytes of one training step by what they are for."""

    parameters: int
    weights: int
    gradients: int
    moments: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.moments + self.activations + self.logits


def footprint(training: Training) -> Footprint:
    """Memory of one step of a training."""
    config = on_meta(training).config
    with FakeTensorMode():
        model = with_parallel_scan(AutoModelForCausalLM.from_config(config))
        count = parameter_count(model)
        adapter = _adapter(model, training.rank)
        stepwise = model.config.model_type in STEPWISE
        rows, length = (1, min(SHORT, training.length)) if stepwise else (training.rows, training.length)
        saved, logits = (_tuning_saved if training.tuned else _saved)(model, rows, length, training.precision)
    share = training.rows * training.length / (rows * length)
    trained = adapter or count
    bytes_of = (count + adapter, trained, 2 * trained)
    return Footprint(count + adapter, *(WORD * each for each in bytes_of), round(saved * share), round(logits * share))


def on_meta(training: Training) -> nn.Module:
    """The model with shapes and no data."""
    with torch.device("meta"):
        return training.make()


def _adapter(model: nn.Module, rank: int) -> int:
    head = model.get_output_embeddings()
    layers = [module for module in model.modules() if isinstance(module, nn.Linear) and module is not head]
    return sum(rank * (layer.in_features + layer.out_features) for layer in layers)


def _saved(model: nn.Module, rows: int, length: int, precision: str) -> tuple[int, int]:
    """Bytes that autograd saves of a forward pass, each storage once and parameters left out, and of the logits."""
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no storage takes another's place

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    ids = torch.zeros(rows, length, dtype=torch.long)
    half = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    with saved_tensors_hooks(pack, lambda tensor: tensor), half:
        logits = model.train()(input_ids=ids, use_cache=False).logits.float()
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten())
    own = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    saved = sum(storage.nbytes() for key, storage in kept.items() if key not in own)
    del loss  # the graph, which holds what was saved, had to live until now
    return saved, logits.nbytes


def _tuning_saved(model: PreTrainedModel, *seen: Any) -> tuple[int, int]:
    """As `_saved`, but where layers are computed again, with that one of them beside which keeps most."""
    with recomputing(model) as layers:
        found = [_saved(model, *seen)]
        for layer in {(type(layer), parameter_count(layer)): layer for layer in layers}.values():
            layer.gradient_checkpointing = False
            found.append(_saved(model, *seen))
            layer.gradient_checkpointing = True
    return max(found)


def trainings(study: str, scale: str) -> list[Training]:
    """The language models that a study trains at a scale, each at its largest batch; `UserError` for another study."""
    if study not in OF_STUDY:
        raise UserError(f"of {study} it is not known what it trains, known: {', '.join(OF_STUDY)}")
    return [Training(study, *each) for each in OF_STUDY[study](section(scale, study), scale)]


def _plain(shape: Knobs, vocab_size: int) -> Callable[[], nn.Module]:
    size = {name: shape[name] for name in ("family", "hidden", "layers", "heads", "context", "embedding_std")}
    return lambda: new_language_model(**size, tied=shape.get("tied", False), vocab_size=vocab_size, seed=0)


def _start(knobs: Knobs, scale: str) -> tuple[Callable[[], nn.Module], list[tuple]]:
    """A study's base model, and its training: none of a given model that is taken as it is."""
    base = knobs["base"]
    given = given_model(base, knobs["vocab_size"])
    if given is None:
        make = _plain(base, knobs["vocab_size"])
        return make, [("base", make, base["batch_size"], base["context"])]
    make, further = _given(given, scale), given.further
    return make, [("base", make, further.batch_size, given.context, further.precision)] if further else []


def _given(given: Given, scale: str) -> Callable[[], nn.Module]:
    config = config_of(given, scale)
    return lambda: AutoModelForCausalLM.from_config(config)


def _tuned(name: str, make: Callable[[], nn.Module], tuning: Knobs, context: int) -> tuple:
    rows = tuning["batch_size"] * (1 if tuning["method"] == "sft" else PAIR) + tuning.get("replay_batch_size", 0)
    return name, make, rows, context, tuning.get("precision", "no"), (tuning.get("lora") or {}).get("r", 0), True


def _bases(knobs: Knobs, scale: str) -> list[tuple]:
    return [
        (name, _plain(base, knobs["vocab_size"]), base["batch_size"], base["context"])
        for name, base in knobs["bases"].items()
    ]


def _merging(knobs: Knobs, scale: str) -> list[tuple]:
    alignment, expertise, context = knobs["alignment"], knobs["expertise"], knobs["base"]["context"]
    make, base = _start(knobs, scale)
    rival = {**knobs["rivalry"], "method": "dpo"}
    return [
        *base,
        *(_tuned(f"generalist, {name}", make, alignment[name], context) for name in ("sft", "dpo")),
        ("expert", make, expertise["batch_size"], context),
        _tuned("rival, LoRA", make, rival, context),
        _tuned("rival", make, {**rival, "lora": {}}, context),
    ]


def _alignment(knobs: Knobs, scale: str) -> list[tuple]:
    make, found = _start(knobs, scale)
    instruction, reviews, context = knobs["instruction"], knobs["reviews"], knobs["base"]["context"]
    tunings = {} if "model" in instruction else {"instruct": instruction["tuning"]}
    if knobs["losses"]:
        tunings |= {"reader": reviews["tuning"], "pairs of reviews": reviews["recipe"]}
    tunings |= knobs["recipes"]
    found += [_tuned(name, make, tuning, context) for name, tuning in tunings.items()]
    if "model" in instruction:  # of other sizes than the base, it may be
        given = Given.model_validate(instruction)
        other, recipes = _given(given, scale), knobs["recipes"].items()
        found += [_tuned(f"instruct, {name}", other, tuning, given.context) for name, tuning in recipes]
    return found


def _expansion(knobs: Knobs, scale: str) -> list[tuple]:
    network = knobs["language"]
    base = _plain(network, 256)  # bytes

    def grown(to: Knobs) -> Callable[[], nn.Module]:
        def make() -> nn.Module:
            config = base().config
            return AutoModelForCausalLM.from_config(resized(config, grown_sizes(config, to)))

        return make

    made = {"base": base, **{name: grown(each["to"]) for name, each in knobs["languages"].items()}}
    return [(name, make, network["batch"], network["context"]) for name, make in made.items()]


def _quantization(knobs: Knobs, scale: str) -> list[tuple]:
    shape, schedule = knobs["shape"], knobs["schedule"]
    vocab_size = section(scale, "tokenizer")["vocab_size"]
    families = dict.fromkeys((shape["family"], "llama"))
    return [
        (name, _plain({**shape, "family": name}, vocab_size), schedule["batch_size"], shape["context"],
         schedule["precision"])
        for name in families
    ]  # fmt: skip


NAMES = 512  # tokens of names on top of the words of hallucination's world, about


def _hallucination(knobs: Knobs, scale: str) -> list[tuple]:
    vocab_size, found = knobs["world"]["vocab_size"] + NAMES, []

    def make(arm: Knobs) -> Callable[[], nn.Module]:
        size = {name: arm[name] for name in ("context", "parameters")}
        shape = Shape.model_validate(arm["shape"])
        return lambda: build(arm["family"], shape, vocab_size=vocab_size, seed=0, **size)

    for size, arms in {"": knobs["arms"], **knobs["smaller"]}.items():
        for name, arm in arms.items():
            rows = -(-knobs["schedule"]["tokens"] // arm["context"])
            found.append((f"{name}, {size}" if size else name, make(arm), rows, arm["context"]))
    return found


OF_STUDY: dict[str, Callable[[Knobs, str], list[tuple]]] = {
    "alignment": _alignment,
    "bases": _bases,
    "expansion": _expansion,
    "hallucination": _hallucination,
    "merging": _merging,
    "quantization": _quantization,
}
