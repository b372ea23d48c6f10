"""How alike what two fine-tunings did to one base is: task vectors by part, activations, and the way between models.

A task vector is a fine-tuned model's weights minus its base's (Ilharco et al. 2023, arXiv 2212.04089).
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.experts.evaluation import Exam, accuracy
from common.judges.likelihood import LikelihoodJudge
from common.preference.examples import encode_examples
from common.preference.references import reference_log_probs
from common.scoring.likelihood import continuation_scores

DIRECTIONS = 8  # leading singular directions whose subspaces are compared
EVERY = 4  # of prompts and questions one in so many is asked: these measures are of whole distributions
LAYER = re.compile(r"\.(?:layers|h)\.(\d+)\.(\w+)\.")
ATTENTION = ("self_attn", "input_layernorm", "attn", "ln_1")
EMBEDDINGS = ("embed_tokens", "wte", "wpe")

State = Mapping[str, Tensor]


def part_of(name: str) -> str:
    """The part of a model that a tensor belongs to, by the names of Llama's kin, or GPT-2's.

    A norm goes with what it feeds, the last with the head.
    """
    if found := LAYER.search(name):
        return f"layer {int(found[1]) + 1} {'attention' if found[2] in ATTENTION else 'feed-forward'}"
    return "embedding" if any(word in name.split(".") for word in EMBEDDINGS) else "head"


def parts(state: State) -> list[str]:
    """The parts in the order in which a token passes them."""
    return sorted({part_of(name) for name in state}, key=lambda part: (part != "embedding", part == "head", part))


def task_vector(tuned: PreTrainedModel, base: PreTrainedModel) -> dict[str, Tensor]:
    """Float64 differences by name; a head tied to the embedding counts once."""
    before, after = dict(base.named_parameters()), dict(tuned.named_parameters())
    return {name: (after[name].detach().double() - before[name].detach().double()) for name in before}


def alikeness(
    base: PreTrainedModel,
    expert: PreTrainedModel,
    generalist: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    asked: Exam,
) -> pd.DataFrame:
    """One row a part, and `all`: how alike the task vectors of expert and generalist are there.

    `cosine`; `expert_norm` and `generalist_norm`, relative to the base's weights; `equal_signs`, share of the entries
    that both changed in which they agree (one half by chance); `angle`, mean angle in degrees between the subspaces of
    the leading left singular directions of the part's matrices (90 where they share nothing); `cka`, linear CKA
    (Kornblith et al. 2019, arXiv 1905.00414) of the two models' activations after the part's layer (of the last, after
    the last norm), at the last token of prompts and questions. The last two are missing where a part has no such thing.
    """
    vectors = task_vector(expert, base), task_vector(generalist, base)
    weights = dict(base.named_parameters())
    activations = [_activations(model, tokenizer, asked) for model in (expert, generalist)]
    rows = []
    for part in [*parts(weights), "all"]:
        names = [name for name in weights if part in (part_of(name), "all")]
        first, second = (torch.cat([vector[name].flatten() for name in names]) for vector in vectors)
        size = torch.cat([weights[name].detach().double().flatten() for name in names]).norm()
        both = (first != 0) & (second != 0)
        matrices = [name for name in names if weights[name].dim() == 2 and part != "all"]
        angles = [principal_angle(vectors[0][name], vectors[1][name]) for name in matrices]
        layer = activations[0].keys() & {part}
        rows.append(
            {
                "part": part,
                "cosine": torch.nn.functional.cosine_similarity(first, second, dim=0).item(),
                "expert_norm": (first.norm() / size).item(),
                "generalist_norm": (second.norm() / size).item(),
                "equal_signs": (first[both].sign() == second[both].sign()).double().mean().item(),
                "angle": float(np.mean(angles)) if angles else None,
                "cka": linear_cka(activations[0][part], activations[1][part]) if layer else None,
            }
        )
    return pd.DataFrame(rows)


def principal_angle(first: Tensor, second: Tensor, directions: int = DIRECTIONS) -> float:
    """Mean principal angle in degrees between the spans of the leading left singular vectors of `(rows, columns)`.

    By the singular values of the product of the two orthonormal bases (Björck and Golub 1973).
    """
    count = min(directions, *first.shape)
    spans = [torch.linalg.svd(matrix, full_matrices=False).U[:, :count] for matrix in (first, second)]
    cosines = torch.linalg.svdvals(spans[0].T @ spans[1]).clamp(max=1)
    return torch.rad2deg(cosines.arccos()).mean().item()


def linear_cka(first: Tensor, second: Tensor) -> float:
    """Linear centred kernel alignment of activations `(examples, features)` of the same examples, from 0 to 1."""
    first, second = (each - each.mean(0) for each in (first.double(), second.double()))
    shared = (first.T @ second).norm() ** 2
    return (shared / ((first.T @ first).norm() * (second.T @ second).norm())).item()


@torch.no_grad()
def _activations(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, asked: Exam) -> dict[str, Tensor]:
    """Hidden states `(examples, hidden)` at the last token, after each layer, by the part that ends there."""
    texts = [*asked.prompts["unsafe"][::EVERY], *asked.prompts["hard"][::EVERY], *asked.items["question"][:: EVERY * 4]]
    found: list[list[Tensor]] = []
    for text in texts:
        ids = torch.tensor([tokenizer(text)["input_ids"]], device=model.device)
        states = model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
        found.append([state[0, -1].clone() for state in states[1:]])  # a view would keep all of a text's states
    return {
        f"layer {number} feed-forward": torch.stack(states)
        for number, states in enumerate(zip(*found, strict=True), start=1)
    }


def combined(base: State, vectors: Sequence[tuple[float, State]], without: str | None = None) -> dict[str, Tensor]:
    """base + the weighted task vectors; the first of them left out of the part `without`."""
    total = {}
    for name, start in base.items():
        kept = [(w, v) for place, (w, v) in enumerate(vectors) if place or part_of(name) != without]
        total[name] = start.double() + sum(weight * vector[name] for weight, vector in kept)
    return total


def contributions(
    base: PreTrainedModel,
    expert: PreTrainedModel,
    generalist: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    domain: str,
    asked: Exam,
    settings: Mapping[str, float],
) -> pd.DataFrame:
    """What the merge loses when one task vector is left out of one part: `vector`, `part`, and the rest.

    `accuracy_lost`: share of the domain's questions that the whole merge answers and this one does not; `margin_lost`:
    nats of the log-odds of refusing unsafe prompts. `settings` are MergeAlign's a and b.
    """
    start = {name: tensor.detach() for name, tensor in base.named_parameters()}
    vectors = {"expert": task_vector(expert, base), "generalist": task_vector(generalist, base)}
    weights = {"expert": settings["a"], "generalist": settings["b"]}
    items, prompts = _some(asked, domain)

    def measured(state: dict[str, Tensor]) -> tuple[float, float]:
        base.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=False)
        judge = LikelihoodJudge(base, tokenizer, asked.replies["refusal"], asked.replies["compliance"])
        return accuracy(base, tokenizer, items), float(judge.margins(prompts).mean())

    start = {name: tensor.clone() for name, tensor in start.items()}
    whole = measured(combined(start, [(weights[name], vectors[name]) for name in vectors]))
    rows = []
    for left_out, other in (("expert", "generalist"), ("generalist", "expert")):
        for part in parts(start):
            ordered = [(weights[name], vectors[name]) for name in (left_out, other)]
            found = measured(combined(start, ordered, without=part))
            lost = {"accuracy_lost": whole[0] - found[0], "margin_lost": whole[1] - found[1]}
            rows.append({"vector": left_out, "part": part} | lost)
    base.load_state_dict(start, strict=False)
    return pd.DataFrame(rows)


def _some(asked: Exam, domain: str) -> tuple[pd.DataFrame, list[str]]:
    """Some questions about the domain's facts that experts are trained on, and some unsafe prompts."""
    items = asked.items[(asked.items["domain"] == domain) & asked.items["trained"]]
    return items.iloc[::EVERY], asked.prompts["unsafe"][::EVERY]


def path_losses(
    base: PreTrainedModel,
    expert: PreTrainedModel,
    generalist: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    domain: str,
    asked: Exam,
    places: int,
) -> pd.DataFrame:
    """Losses on the straight lines between the three models: `path`, `place` from 0 to 1, `loss_of`, `loss`.

    Nats a token: of the right answers to the domain's questions, and of the refusals that bases read after unsafe
    prompts.
    """
    items, prompts = _some(asked, domain)
    refusals = asked.replies["refusal"]
    said = [(refusals[number % len(refusals)],) for number in range(len(prompts))]
    declined = encode_examples(tokenizer, prompts, said, base.config.max_position_embeddings)

    def answer_loss() -> float:
        answers = [[f" {text}"] for text in items["object"]]
        scores = continuation_scores(base, tokenizer, items["question"].tolist(), answers)
        return -float(scores["log_likelihood"].sum() / scores["tokens"].sum())

    def refusal_loss() -> float:
        tokens = sum(len(example.completions[0]) for example in declined)
        return -float(reference_log_probs(base, declined).sum()) / tokens

    ends = {"base": base, "expert": expert, "generalist": generalist}
    states = {name: {k: v.detach().clone() for k, v in model.named_parameters()} for name, model in ends.items()}
    rows = []
    for first, second in (("base", "expert"), ("base", "generalist"), ("expert", "generalist")):
        for place in np.linspace(0, 1, places):
            mixed = {
                name: torch.lerp(states[first][name], states[second][name], float(place)) for name in states[first]
            }
            base.load_state_dict(mixed, strict=False)
            for of, loss in (("answers", answer_loss), ("refusals", refusal_loss)):
                rows.append({"path": f"{first} to {second}", "place": float(place), "loss_of": of, "loss": loss()})
    base.load_state_dict(states["base"], strict=False)
    return pd.DataFrame(rows)
