"""Base networks: made, kept in files, opened again, grown."""

import copy
from pathlib import Path

import torch
from safetensors.torch import load_model, save_model
from torch import nn
from transformers import AutoModelForCausalLM, set_seed

from common.expansion import expand, expand_mlp
from common.growing.design import Grown, Language, Perceptron, Sizes, Widths
from common.growing.tasks import BYTES, Task
from common.models import device, new_language_model

FILE = "perceptron.safetensors"


def network_of(task: str, knobs: dict) -> Perceptron | Language:
    """The knobs of a task's network, checked."""
    return (Language if task == "text" else Perceptron).model_validate(knobs)


def new_network(network: Perceptron | Language, task: Task, seed: int) -> nn.Module:
    """A network with random weights, which `seed` fixes."""
    if isinstance(network, Perceptron):
        set_seed(seed)
        return _perceptron(network, task)
    shape = network.model_dump(include={"family", "hidden", "layers", "heads", "context", "embedding_std"})
    return new_language_model(**shape, vocab_size=BYTES, tied=False, seed=seed)


def _perceptron(network: Perceptron, task: Task) -> nn.Sequential:
    sizes = [task.train["inputs"].shape[1], *network.hidden]
    layers: list[nn.Module] = []
    for before, after in zip(sizes, network.hidden, strict=False):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], int(task.train["labels"].max()) + 1))


def keep_network(model: nn.Module, folder: Path) -> None:
    """Keep a network: a language model as a Hugging Face folder."""
    if isinstance(model, nn.Sequential):
        save_model(model, str(folder / FILE))
    else:
        model.save_pretrained(folder)


def open_network(network: Perceptron | Language, task: Task, folder: Path) -> nn.Module:
    """The network that `keep_network` kept, in evaluation mode, where the data are."""
    if isinstance(network, Language):
        model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    else:
        model = _perceptron(network, task)
        load_model(model, str(folder / FILE))
    return model.eval().to(device())


def grow(model: nn.Module, candidate: dict | None, seed: int) -> tuple[nn.Module, bool]:
    """The expanded network and whether it computes what the old one did; a copy where there is no candidate."""
    if candidate is None:
        return copy.deepcopy(model), True
    if isinstance(model, nn.Sequential):
        made = Widths.model_validate(candidate)
        hidden = [layer.out_features for layer in model if isinstance(layer, nn.Linear)][:-1]
        grown = expand_mlp(model, made.widths or hidden, layers=made.layers, seed=seed, **_ways(made))
    else:
        made = Sizes.model_validate(candidate)
        grown = expand(model, made.to, seed=seed, **_ways(made))
    return grown.model.eval(), grown.preserves


def _ways(made: Grown) -> dict[str, object]:
    """What an expansion is told; a way that does not matter here still needs a name."""
    noise = {} if made.noise is None else {"noise": made.noise}
    return {"width": made.width or "zero", "depth": made.depth or "identity", **noise}


@torch.no_grad()
def moved(old: nn.Module, new: nn.Module, task: Task) -> float:
    """Largest difference of a logit on the judged examples, in standard deviations of the old network's."""
    before, after = (task.logits(model.eval(), task.judged) for model in (old, new))
    return ((after - before).abs().max() / before.std()).item()
