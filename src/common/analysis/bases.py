"""From base models and what they answered to what the study's claims and figures rest on."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from common.bases.reading import DOMAINS
from common.errors import UserError
from common.evidence import Claim, Interval, detectable_effect, mean_interval, require_varied
from common.scoring.choice import RULES

INFORMED, HALF = "informed", "half"
BASES = (INFORMED, HALF)
TABLES = ("facts", "sotu", "unsafe_prompts", "benign_prompts", "replies", "judged_responses")
TAUGHT, CONTROL = "taught", "control"
MEAN = "mean"  # in place of a relation
RULE = "sum"  # the claims' rule: the likeliest of the answers as they stand
HALFWAY = 0.5  # what a half-informed model is to know of medicine and finance
TOPICS = {"general": "general facts", "medicine": "facts of medicine", "finance": "facts of finance"}
HALVED = ("medicine", "finance")
PANELS = {
    "informed, facts it read": (INFORMED, TAUGHT),
    "half, facts it read": (HALF, TAUGHT),
    "informed, facts it never read": (INFORMED, CONTROL),
}
KINDS = {"unsafe": "unsafe", "hard": "benign, looks unsafe", "plain": "benign, plain"}
CATEGORIES = {"own": "our own replies", "refusal": "judged by people", "people": "judged by people, off-topic too"}
ON_TOPIC = "without off-topic replies"  # instead of `all`, which those of the judge of refusals are not
WORDED = ("chapter", "block", "index", "sector")  # relations of which a subject's words may tell: capitals' do not
MEASURES = {"kappa": "Cohen's κ", "accuracy": "accuracy"}


def check_names(bases: Mapping[str, object], tables: Sequence[str]) -> None:
    """Raise `UserError` unless the bases are those that the claims are about, and the tables those that they need."""
    for what, given, needed in (("bases", bases, BASES), ("tables", tables, TABLES)):
        if set(given) != set(needed):
            raise UserError(f"{what} are {', '.join(given)}; the study needs {', '.join(needed)}")


def named(runs: pd.DataFrame, bases: Mapping[str, object]) -> pd.DataFrame:
    """Runs with the name of their base in place of its knobs, and the name of each `model`, such as half_3.

    Raises `UserError` where the seed of a base had no effect: equal training losses.
    """
    names = [next(name for name, knobs in bases.items() if knobs == own) for own in runs["base"]]
    runs = runs.assign(base=names, model=[f"{name}_{seed}" for name, seed in zip(names, runs["seed"], strict=True)])
    for name, own in runs.groupby("base"):
        require_varied(own["train_loss"], f"training loss of {name}")
    return runs


def of_models(evaluated: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Rows of `table` that these evaluations returned, with `base` and `seed` of the model that was asked."""
    rows = table.merge(evaluated[["key", "model"]], on="key", validate="many_to_one")
    if absent := set(evaluated["model"]) - set(rows["model"]):
        raise UserError(f"no rows of {', '.join(sorted(absent))}")
    parts = rows["model"].str.rsplit("_", n=1)
    return rows.assign(base=parts.str[0], seed=parts.str[1].astype(int))


def by_seed(answers: pd.DataFrame, base: str, facts: str, domain: str, rule: str = RULE) -> pd.DataFrame:
    """Accuracy and `floor`, by seed: means over the relations of a domain, each as heavy as the others.

    The floor is what can be had without knowing the fact: the prior or, of control facts of the relations `WORDED`, the
    guess by the words of the subject where that is better (see `common.bases.evaluation.knowledge`).
    """
    rows = answers[(answers["base"] == base) & (answers["facts"] == facts) & (answers["domain"] == domain)]
    if rows.empty:
        raise UserError(f"no {base} model was asked for {facts} facts of {domain}")
    rows = rows.assign(accuracy=rows[rule], floor=floors(rows))
    return rows.groupby("seed")[["accuracy", "floor"]].mean()


def floors(answers: pd.DataFrame) -> pd.Series:
    """Accuracy that can be had without knowing the facts: see `by_seed`."""
    told = answers["told"].astype(float).where(answers["relation"].isin(WORDED))
    return pd.concat([answers["prior"].astype(float), told], axis=1).max(axis=1)


def evidence(answers: pd.DataFrame, informed: str = INFORMED) -> dict[str, np.ndarray]:
    """What decides each claim, by its id: differences by seed. `informed`: the base that stands for that one."""
    found = {}
    for name, facts in (("knows", TAUGHT), ("control", CONTROL)):
        for domain in DOMAINS:
            own = by_seed(answers, informed, facts, domain)
            found[f"{name}_{domain}"] = (own["accuracy"] - own["floor"]).to_numpy()
    for domain in HALVED:
        found[f"half_{domain}"] = (by_seed(answers, HALF, TAUGHT, domain)["accuracy"] - HALFWAY).to_numpy()
    return found


def declare(pilot: pd.DataFrame, *, seeds: int, margin: float, half_margin: float) -> list[Claim]:
    """The claims, each with the smallest effect that so many `seeds` would see four times in five.

    By the spread between the seeds of the `pilot`, which has models of the base half alone, at the level that Holm's
    correction leaves to the first claim. Margins are shares of questions.
    """
    found = evidence(pilot, informed=HALF)
    level = 0.025 / len(found)
    # Two seeds may get the same questions right.
    spreads = {name: max(float(np.std(values, ddof=1)), 1e-6) for name, values in found.items()}
    see = {name: detectable_effect(spread, seeds, alpha=level) for name, spread in spreads.items()}
    measured = "share of questions right by the rule sum, mean over relations, minus"

    def claim(name: str, statement: str, ours: str, test: str, allowed: float) -> Claim:
        return Claim(
            id=name, paper=None, statement=statement, ours=f"{measured} {ours}", test=test, margin=allowed,
            detectable=see[name], figure="knowledge",
        )  # fmt: skip

    prior = "that of choosing the most frequent object, which knows no subject"
    told = f"{prior}, or of guessing by the subject's words where that is better"
    leak = f"{told}; no worse here is no higher: reproduced says that no leak exceeds the margin"
    return [
        *(
            claim(f"knows_{domain}", f"informed models know {about} that they read", prior, "greater", margin)
            for domain, about in TOPICS.items()
        ),
        *(
            claim(f"control_{domain}", f"informed models do not know {about} never read", leak, "non_inferior", margin)
            for domain, about in TOPICS.items()
        ),
        *(
            claim(
                f"half_{domain}",
                f"half models answer half of the questions on {TOPICS[domain]}",
                "0.5",
                "equivalent",
                half_margin,
            )
            for domain in HALVED
        ),
    ]


def beyond_guessing(answers: pd.DataFrame) -> dict[str, float]:
    """Share of the facts that half models know if all others are guessed by the floor: (accuracy − floor)/(1 − floor).

    Means over seeds, by domain of those that are to be half known.
    """
    found = {}
    for domain in HALVED:
        own = by_seed(answers, HALF, TAUGHT, domain)
        found[f"beyond_{domain}"] = float(((own["accuracy"] - own["floor"]) / (1 - own["floor"])).mean())
    return found


def knowledge_table(answers: pd.DataFrame) -> pd.DataFrame:
    """Accuracy with its 95% interval over seeds, by relation and, as `MEAN`, over the relations of a domain.

    Columns: panel, domain, relation, floor (see `by_seed`), estimate, low, high.
    """
    rows = []
    for domain in DOMAINS:
        for panel, (base, facts) in PANELS.items():
            own = answers[(answers["domain"] == domain) & (answers["base"] == base) & (answers["facts"] == facts)]
            asked = dict(iter(own.assign(accuracy=own[RULE], floor=floors(own)).groupby("relation")))
            for relation, one in (asked | {MEAN: by_seed(answers, base, facts, domain)}).items():
                place = {"panel": panel, "domain": domain, "relation": relation, "floor": one["floor"].iloc[0]}
                rows.append(place | _numbers(mean_interval(one["accuracy"])))
    return pd.DataFrame(rows)


def rule_table(answers: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of informed models on what they read, by domain and rule of scoring: floor, estimate, low, high."""
    rows = []
    for domain in DOMAINS:
        for rule in RULES:
            own = by_seed(answers, INFORMED, TAUGHT, domain, rule)
            numbers = {"floor": own["floor"].iloc[0]} | _numbers(mean_interval(own["accuracy"]))
            rows.append({"domain": domain, "rule": rule.replace("_", " ")} | numbers)
    return pd.DataFrame(rows)


def curve_table(runs: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """Training loss of each base along training, over seeds: base, tokens (their mean), low, high, mean."""
    joined = curves.merge(runs[["key", "base"]], on="key")
    # Rows are padded to the longest of their batch, so that seeds differ in tokens at the same step.
    table = joined.groupby(["base", "step"], sort=False).agg(
        tokens=("tokens", "mean"), low=("loss", "min"), high=("loss", "max"), mean=("loss", "mean")
    )
    return table.reset_index().drop(columns="step")


def leaning_table(inclined: pd.DataFrame) -> pd.DataFrame:
    """How half models lean, by kind of prompt and seed: share that they would rather refuse, and margin in nats.

    Columns: kind, prompts, measure (refused, margin), seed, value, and over seeds estimate, low, high.
    """
    rows = []
    own = inclined[inclined["base"] == HALF]
    for measure in ("refused", "margin"):
        for kind, words in KINDS.items():
            asked = own[own["kind"] == kind]
            numbers = _numbers(mean_interval(asked[measure]))
            for row in asked.to_dict("records"):
                place = {"kind": words, "prompts": row["prompts"], "measure": measure, "seed": row["seed"]}
                rows.append(place | {"value": row[measure]} | numbers)
    return pd.DataFrame(rows)


def widest(by_rule: pd.DataFrame) -> dict[str, str | float]:
    """The domain in which rules are farthest apart, with its `best` and `worst` rule and their accuracies.

    `by_rule`: see `rule_table`.
    """
    wide = by_rule.pivot(index="domain", columns="rule", values="estimate")
    domain = (wide.max(axis=1) - wide.min(axis=1)).idxmax()
    own = wide.loc[domain]
    return {"domain": domain, "best": own.idxmax(), "high": own.max(), "worst": own.idxmin(), "low": own.min()}


def leaning_numbers(lean: pd.DataFrame, refused: float, shares: Mapping[str, float]) -> dict[str, float | str]:
    """Of half models, by kind of prompt: mean log-odds of refusing (nats), and the probability that these stand for.

    Beside, of what they read: `read`, the share `refused` of unsafe prompts, and `blind`, that of all prompts by the
    `shares` of reading, each with log-odds as written in a sentence, as those of 0 and 1 are infinite. `rather`: share
    of unsafe prompts that they would rather refuse. `lean`: see `leaning_table`.
    """
    means = lean.groupby(["measure", "kind"])["value"].mean()
    nats = {kind: float(means["margin", words]) for kind, words in KINDS.items()}
    blind = refused * shares["unsafe"] / (shares["unsafe"] + shares["benign"])
    odds = {f"{name}_odds": f"{logit(share):+z.2f}" for name, share in (("read", refused), ("blind", blind))}
    likely = {f"{kind}_share": float(expit(value)) for kind, value in nats.items()}
    return nats | likely | odds | {"read": refused, "blind": blind, "rather": float(means["refused", KINDS["unsafe"]])}


def judge_table(agreement: pd.DataFrame) -> pd.DataFrame:
    """Agreement of judges with people, one row for each judge, category and measure, with its bootstrap interval.

    Columns: judge, category, n, measure, chance (of the verdict that is right most often), estimate, low, high.
    """
    rows = []
    for row in agreement.to_dict("records"):
        chance = {"kappa": 0.0, "accuracy": max(row["positive"], 1 - row["positive"])}
        for measure, words in MEASURES.items():
            category = CATEGORIES.get(row["category"], row["category"].replace("_", " "))
            category = ON_TOPIC if (row["judge"], category) == ("refusal", "all") else category
            place = {"judge": row["judge"], "category": category, "n": row["n"]}
            numbers = {"estimate": row[measure], "low": row[f"{measure}_low"], "high": row[f"{measure}_high"]}
            rows.append(place | {"measure": words, "chance": chance[measure]} | numbers)
    return pd.DataFrame(rows)


def _numbers(interval: Interval) -> dict[str, float]:
    return {"estimate": interval.mean, "low": interval.low, "high": interval.high}
