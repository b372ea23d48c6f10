"""What a model knows and how it is inclined: the function that a sweep over finished models calls."""

from pathlib import Path

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from common.bases.reading import reply_wordings, taught
from common.errors import UserError
from common.judges.likelihood import LikelihoodJudge
from common.knowledge.choices import choices, prior_accuracy
from common.knowledge.templates import TEMPLATES, null_question
from common.knowledge.told import told_accuracy, told_elsewhere
from common.scoring.choice import RULES, choice_scores, choose
from common.zoo import load


def evaluate_base(
    model: str, facts_per_relation: int, candidates: int, split: str, *, facts: Path, unsafe_prompts: Path,
    benign_prompts: Path, replies: Path, **models: Path,
) -> dict[str, object]:  # fmt: skip
    """Tables of what the model of that name among `models` knows and is inclined to: see `knowledge`, `refusals`.

    `split` is that of the question templates and of the prompts: validation to choose settings, test to report.
    """
    if model not in models:
        raise UserError(f"no model {model!r}; there are {', '.join(models)}")
    files = {"facts": facts, "unsafe_prompts": unsafe_prompts, "benign_prompts": benign_prompts, "replies": replies}
    rows = {name: pd.read_json(path, lines=True, dtype=False) for name, path in files.items()}
    loaded, tokenizer = load(str(models[model]))
    known = knowledge(loaded, tokenizer, rows["facts"], facts_per_relation, candidates, split)
    prompts = pd.concat([rows["unsafe_prompts"].assign(kind="unsafe"), rows["benign_prompts"]])
    inclined = refusals(loaded, tokenizer, prompts[prompts["split"] == split], rows["replies"])
    known = known.astype(object).where(known.notna(), None)  # a table of a run holds no NaN
    return {"knowledge": known.to_dict("list"), "refusals": inclined.to_dict("list")}


def knowledge(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    facts: pd.DataFrame,
    facts_per_relation: int,
    candidates: int,
    split: str,
) -> pd.DataFrame:
    """Multiple-choice accuracy by relation, on facts that were taught and on the control facts that never were.

    Each fact is asked with every question template of `split`, none of which was trained on. One row for a relation and
    kind of facts: domain, relation, facts (taught or control), items, prior (the accuracy of always choosing the most
    frequent object, `prior_accuracy`, or of choosing any where that is better), told (of control facts, the accuracy of
    guessing from the words of taught subjects: the smaller of `told_accuracy` and, as that rests on few facts,
    `told_elsewhere`), and the accuracy by each rule of `common.scoring.choice`.
    """
    items = choices(facts, split, candidates)
    about = facts.set_index("id")[["domain", "split"]]
    items = items.join(about, on="fact").rename(columns={"split": "facts"})
    read = taught(facts, facts_per_relation)
    items["facts"] = items["fact"].isin(read["id"]).map({True: "taught"}).fillna(items["facts"])
    items = items[items["facts"].isin(["taught", "control"])].reset_index(drop=True)
    answers = [[f" {candidate}" for candidate in several] for several in items["candidates"]]
    nulls = items["template"].map(
        {wording.id: null_question(wording) for wording in TEMPLATES if wording.kind == "question"}
    )
    scores = choice_scores(model, tokenizer, items["question"].tolist(), answers, null_prompts=nulls.tolist())
    chosen = choose(scores)
    right = chosen.eq(items["answer"].to_numpy(), axis=0).set_axis(items.index)
    rows = []
    for (domain, relation, kind), own in items.groupby(["domain", "relation", "facts"]):
        accuracy = {rule: float(right.loc[own.index, rule].mean()) for rule in RULES}
        place = {"domain": domain, "relation": relation, "facts": kind, "items": len(own)}
        told = None
        if kind == "control":
            others = items[(items["relation"] == relation) & (items["facts"] == "taught")]
            told = min(told_accuracy(own, facts, read), told_elsewhere(others, facts, read))
        prior = max(float(prior_accuracy(own, facts)), 1 / candidates)
        rows.append(place | {"prior": prior, "told": told} | accuracy)
    return pd.DataFrame(rows)


def refusals(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: pd.DataFrame, replies: pd.DataFrame
) -> pd.DataFrame:
    """Whether a model would rather refuse than go along: kind of prompts, their number, refused (share), margin (nats).

    Read off the likelihoods of the replies that models read: a small model knows no other wording of a refusal. See
    `common.judges.likelihood.LikelihoodJudge`.
    """
    known = reply_wordings(replies)
    judge = LikelihoodJudge(model, tokenizer, known["refusal"], known["compliance"])
    rows = []
    for kind, own in prompts.groupby("kind"):
        margins = judge.margins(own["text"].tolist())
        shares = {"refused": float((margins > 0).mean()), "margin": float(margins.mean())}
        rows.append({"kind": kind, "prompts": len(own)} | shares)
    return pd.DataFrame(rows)
