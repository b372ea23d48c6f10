"""What it takes of a GPU's memory to examine models, beside each other as runs hold them: an upper bound.

Weights are float32, as often as a run has those of a model there at once, copies and task vectors among them; which run
of a study holds most, and when, is told in its function below. On top comes the largest pass over a batch, for which
every text is as long as the context. What is merged lies in the host's memory (`common.models.host_state`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from common.architectures.recurrence import with_parallel_scan
from common.bases.locating import named_config
from common.connectivity import losses_of
from common.footprint.counting import WORD, Footprint, Training, on_meta, seen_of
from common.footprint.peak import Peak
from common.footprint.studies import kind_of, trainings
from common.judges.others import Guard, Judges
from common.models import parameter_count
from common.predictors import POINTS
from common.scales import section
from common.training import language_loss

Pass = Callable[[PreTrainedModel, Tensor], Any]
"""Of a model over `ids (rows, length)`."""


@dataclass(frozen=True)
class Held:
    """What a run of a study holds at most: so many times a model's weights, and the largest of passes by their rows.

    Or, where that is more, `apart` times the weights, at another time than any pass.
    """

    weights: int
    passes: tuple[tuple[Pass, int], ...]
    apart: int = 0


def examination(study: str, scale: str) -> Footprint:
    """Memory of the examination that takes most, of any of the models of a study; errors as `trainings`."""
    models = {on_meta(each).config.to_json_string(): each for each in trainings(study, scale)}
    held, beside = OF_STUDY[kind_of(study)](section(scale, study)), judges_weights(study, scale)
    return max((_examined(each, held, beside) for each in models.values()), key=lambda each: each.total)


def judges_weights(study: str, scale: str) -> int:
    """Bytes of others' models that a study has judge what is written; from the first on they are there all the time."""
    knobs = section(scale, study)
    judges = Judges.model_validate(knobs.get("judges") or knobs.get("asking", {}).get("judges", {})).named()
    kinds = {
        each.model: AutoModelForCausalLM if isinstance(each, Guard) else AutoModelForSequenceClassification
        for each in judges.values()
    }
    with torch.device("meta"):
        return WORD * sum(
            parameter_count(kind.from_config(named_config(name, scale))) for name, kind in sorted(kinds.items())
        )


def _examined(training: Training, held: Held, beside: int) -> Footprint:
    config = on_meta(training).config
    with FakeTensorMode():
        # Traced in a tenth of the time, and takes no less than going step by step.
        model = with_parallel_scan(AutoModelForCausalLM.from_config(config)).eval()
        largest = max(_peak(model, run, rows, training.length) for run, rows in held.passes)
    count = parameter_count(model)
    bytes_of = count * WORD
    if held.apart * bytes_of > held.weights * bytes_of + largest:
        return Footprint(count, held.apart * bytes_of + beside, 0, 0, 0, 0)
    return Footprint(count, held.weights * bytes_of + beside, 0, 0, largest, 0)


def _peak(model: PreTrainedModel, run: Pass, rows: int, length: int) -> int:
    seen = seen_of(model, rows, length)
    ids = torch.zeros(seen, dtype=torch.long)
    with Peak(model.parameters()) as peak:
        run(model, ids)
    return round(peak.most * rows * length / ids.numel())


@torch.no_grad()
def scored(model: PreTrainedModel, ids: Tensor) -> None:
    """Likelihoods are taken: logits of all tokens, and their log-softmax."""
    model(input_ids=ids, use_cache=False).logits.float().log_softmax(-1)


@torch.no_grad()
def written(model: PreTrainedModel, ids: Tensor) -> Any:
    """Texts are gone on with: keys and values, or states, are kept."""
    kinds = getattr(model.config, "layer_types", None)
    kept = kinds is None or not {*kinds}.isdisjoint({"full_attention", "sliding_attention"})
    return model(input_ids=ids, use_cache=kept, logits_to_keep=1)


def _traced(model: PreTrainedModel, ids: Tensor) -> None:
    """Inputs of all linear layers are kept with the gradients of their outputs (`common.quantization.layers`)."""
    made: list[tuple[Tensor, Any]] = []

    def note(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        made.append((inputs[0].detach(), torch.autograd.graph.get_gradient_edge(output)))

    hooks = [each.register_forward_hook(note) for each in model.modules() if isinstance(each, nn.Linear | Conv1D)]
    torch.autograd.grad(language_loss(model, {"input_ids": ids}), [edge for _, edge in made])
    for hook in hooks:
        hook.remove()


def _curved(model: PreTrainedModel, ids: Tensor) -> None:
    """Second derivatives are taken (`common.connectivity.curvature`)."""
    weights = list(model.parameters())
    with sdpa_kernel(SDPBackend.MATH):
        slopes = torch.autograd.grad(language_loss(model, {"input_ids": ids}), weights, create_graph=True)
        torch.autograd.grad(sum(slope.sum() for slope in slopes), weights, retain_graph=True, materialize_grads=True)


def _between(model: PreTrainedModel, ids: Tensor, lines: int) -> None:
    """Losses of so many weights on the ways between minima, in one pass."""
    losses_of(model, language_loss, {"input_ids": ids})(torch.zeros(lines, parameter_count(model)))


@torch.no_grad()
def _lost(model: PreTrainedModel, ids: Tensor) -> None:
    language_loss(model, {"input_ids": ids})


def _alignment(knobs: Mapping[str, Any]) -> Held:
    """The start, and the tuned or merged model; the reference has written what they are held against before."""
    return Held(2, ((written, 128), (scored, 64)))


def _bases(knobs: Mapping[str, Any]) -> Held:
    return Held(1, ((scored, 64),))


def _expansion(knobs: Mapping[str, Any]) -> Held:
    """Minima as models and as vectors, and the ends and places of all lines between them at once."""
    course = knobs["courses"]["language"]
    count = max(course["walk"]["count"], *knobs["walks"]["counts"])
    lines = count * (count - 1) // 2
    between = partial(_between, lines=lines)
    passes = (between, course["judged"]), (_curved, course["judged"]), (_lost, knobs["language"]["held_out"])
    return Held(3 + 2 * count + (2 + POINTS) * lines, passes)


def _hallucination(knobs: Mapping[str, Any]) -> Held:
    return Held(1, ((written, 32), (scored, 32)))


def _merging(knobs: Mapping[str, Any]) -> Held:
    """Three models are compared: two task vectors of float64, both once more in one piece, and of their entries that
    both changed, in which they are held against each other, three times as much in passing; a twelfth model's worth is
    room for hidden states of single texts. Batches are gone through afterwards, beside the models, a copy of the first,
    the task vectors and a sum of these.
    """
    return Held(10, ((written, 64), (scored, 64)), apart=20)


def _quantization(knobs: Mapping[str, Any]) -> Held:
    """A model with its gradients and moments, in float32 whatever it is trained in, and two copies."""
    return Held(6, ((_traced, knobs["schedule"]["batch_size"]),))


OF_STUDY: dict[str, Callable[[Mapping[str, Any]], Held]] = {
    "alignment": _alignment,
    "bases": _bases,
    "expansion": _expansion,
    "hallucination": _hallucination,
    "merging": _merging,
    "quantization": _quantization,
}
