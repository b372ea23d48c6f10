"""The study's sweeps, one after another: who is made, of whom, trained on what, and asked what."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from common.alignment import design
from common.alignment.design import Arm
from common.alignment.reviews import evaluate_reviews
from common.alignment.runs import evaluate_merge, evaluate_tuned
from common.alignment.starting import instruct, read_reviews
from common.alignment.training import refer, tune
from common.analysis import judging
from common.analysis.alignment import data
from common.analysis.alignment.claims import MERGED
from common.analysis.alignment.parameters import taken_model
from common.analysis.alignment.runs import MEASURED, scored
from common.analysis.base_models import READ, BaseModels, Knobs, Sweeper
from common.bases import locating
from common.bases.given import take
from common.errors import UserError
from common.pairs.reviews import sample_pairs
from common.pairs.sentiment import fit_sentiment
from common.pairs.table import AIMS
from common.preference.tuning import Tuning

ASKED = (*data.TRAINED_ON, "judged_responses")
TABLES = (*READ, "judged_responses", "movie_reviews")


class Laboratory:
    """Makes starts, data, fine-tunings and merges and evaluates them, and knows where each is by its name.

    `reading`, `base`, …: the study's parameters of these names. Each method that evaluates gives a table of runs as
    `common.analysis.alignment.runs` has it; `data` says what the data sets are (see `data.counted`). Without
    `unseen_shares` there is no base that never met a prompt. Raises `UserError`, before anything runs, where `tables`
    are not `TABLES`, or models or data of others cannot be had (see `BaseModels`).
    """

    def __init__(
        self, study: Sweeper, tables: Sequence[str], vocab_size: int | None, reading: Knobs, base: Knobs,
        unseen_shares: Knobs, instruction: Knobs, making: Knobs, reviews: Knobs, recipes: Mapping[str, Knobs],
        rates: Mapping[str, Sequence[float]], asking: Knobs,
    ):  # fmt: skip
        if set(tables) != set(TABLES):
            raise UserError(f"tables are {', '.join(tables)}; the study needs {', '.join(TABLES)}")
        self.study, self.instruction, self.reviews = study, instruction, reviews
        self.rates = rates
        self.recipes = {
            name: Tuning.model_validate(recipe | {"learning_rate": rates[name][0]}) for name, recipe in recipes.items()
        }
        self.facts = {"facts_per_relation": reading["facts_per_relation"]}
        self.asking = {**asking, **self.facts}
        self.judges = judging.located(asking.get("judges", {}), study.scale)
        pairs = data.data_sets(study.scale, making)
        self.taken = taken_model(instruction)
        self.instruct = None if self.taken is None else locating.located(self.taken, study.scale)
        self.bases = BaseModels(study, base, vocab_size, reading, {"unseen": unseen_shares})
        self.files = study.tables(list(TABLES))
        self.kept: dict[str, Any] = {}
        made = self._made("data", pairs.run, pairs.cells, list(pairs.origins), pairs.tables, **pairs.folders)
        self.data = data.counted(made, pairs.origins)

    def starts(self, name: str, seeds: Sequence[int], kinds: Sequence[str], split: str) -> pd.DataFrame:
        """Models to start from (base, instruct, unseen), evaluated untuned. Every base has its instruct model, or all
        have the same one.
        """
        for kind in self.bases.kinds:
            if kind == "base" or kind in kinds:
                self.kept |= self.bases.made(f"{name}_{kind}", [(kind, seed) for seed in seeds])
        self._instructed(f"{name}_instruct", seeds)
        cells = [self._asked(f"{kind}_{seed}", None, "float32", seed, split) for kind in kinds for seed in seeds]
        same = {"base": self.bases.taken, "instruct": self.taken is not None}
        labels = [_labels("starts", start=kind, taken=same.get(kind, False)) for kind in kinds for _ in seeds]
        return self._runs(f"{name}_starts", evaluate_tuned, cells, labels, ASKED, **self.judges)

    def rated(self, name: str, arms: Sequence[Knobs], seed: int, split: str) -> pd.DataFrame:
        """Fine-tunings of arms at each learning rate of their method, evaluated; from then on recipes have the best.

        By the mean score over a method's arms. A row a method and rate: `method`, `learning_rate`, `score`, `chosen`,
        and `edge` where the best is the lowest or highest of several that were tried: beyond, a better one may be.
        """
        rows = []
        for method, several in self.rates.items():
            own = [arm for arm in arms if arm["method"] == method]
            for rate in several:
                recipe = {method: self.recipes[method].model_copy(update={"learning_rate": rate})}
                runs = self.tuned(f"{name} {method} {rate}", name, own, [seed], split, recipe)
                rows.append({"method": method, "learning_rate": rate, "score": float(scored(runs)["score"].mean())})
        table = pd.DataFrame(rows)
        best = table.loc[table.groupby("method")["score"].idxmax()].set_index("method")["learning_rate"]
        for method, rate in best.items():
            self.recipes[method] = self.recipes[method].model_copy(update={"learning_rate": float(rate)})
        chosen = table["learning_rate"] == table["method"].map(best)
        ends = table.groupby("method")["learning_rate"].agg(["min", "max"])
        edge = [
            ok and rate in set(ends.loc[method]) and len(self.rates[method]) > 1
            for method, rate, ok in zip(table["method"], table["learning_rate"], chosen, strict=True)
        ]
        return table.assign(chosen=chosen, edge=edge)

    def tuned(
        self, name: str, part: str, arms: Sequence[Knobs], seeds: Sequence[int], split: str,
        recipes: Mapping[str, Tuning] | None = None,
    ) -> pd.DataFrame:  # fmt: skip
        """Fine-tunings of a part, evaluated; `recipes` in place of the laboratory's."""
        made, labels = self._trained(name, part, [Arm.model_validate(arm) for arm in arms], seeds, recipes)
        cells = [
            self._asked(run["start"], run["name"], run["base_dtype"], run["seed"], split)
            for run in made.to_dict("records")
        ]
        return self._runs(f"{name}_asked", evaluate_tuned, cells, labels, ASKED, **self.judges)

    def merged(
        self, name: str, ways: Mapping[str, Knobs], across: Mapping[str, Knobs], starts: Sequence[str],
        seeds: Sequence[int], split: str,
    ) -> pd.DataFrame:  # fmt: skip
        """Merges of the harmless and the helpful model of each start and method; call it after the crossing's `tuned`.

        `ways`: method and settings of `common.merging`, by the merge's name; those of `across` merge the four models
        of both methods, and their rows' method is sft+dpo.
        """
        cells, labels = [], []
        kinds = [(method, merge, way) for method in ("sft", "dpo") for merge, way in ways.items()]
        kinds += [("sft+dpo", merge, way) for merge, way in across.items()]
        for start, (method, merge, way), seed in product(starts, kinds, seeds):
            parents = [_adapter("crossing", start, MERGED, aim, one, seed) for one in method.split("+") for aim in AIMS]
            named = dict(zip(("first", "second", "third", "fourth"), [*parents, None, None], strict=False))
            cells.append({"start": f"{start}_{seed}", **named, **way, **self._exam(seed, split)})
            labels.append(_labels("merges", start=start, method=method, merge=merge, dataset=MERGED, aim="mix"))
        return self._runs(name, evaluate_merge, cells, labels, ASKED, **self.judges)

    def losses(self, name: str, arms: Sequence[Knobs], seeds: Sequence[int], prompts: int, split: str) -> pd.DataFrame:
        """Fine-tunings on `reviews`, and the readers that they start from, by reward and KL.

        The fitted classifier, whose log-odds are the reward, is the one row of `sentiment` from then on.
        """
        knobs, sampling = self.reviews, self.reviews["sampling"]
        self.sentiment = self._made(f"{name}_sentiment", fit_sentiment, [{}], ["sentiment"], ["movie_reviews"])
        cells = [
            {"start": f"base_{seed}", "count": knobs["passages"], "tuning": knobs["tuning"], "seed": seed}
            for seed in seeds
        ]
        self._made(f"{name}_readers", read_reviews, cells, [f"reader_{seed}" for seed in seeds], ["movie_reviews"])
        cells = [{"start": f"reader_{seed}", "sampling": sampling, "seed": seed} for seed in seeds]
        names, sentiment = [f"reviews_{seed}" for seed in seeds], {"sentiment": self.kept["sentiment"]}
        self._made(f"{name}_pairs", sample_pairs, cells, names, ["movie_reviews"], **sentiment)
        recipe = {"dpo": Tuning.model_validate(knobs["recipe"])}
        made, labels = self._trained(name, "losses", [Arm.model_validate(arm) for arm in arms], seeds, recipe)
        asked = {"split": split, "prompts": prompts, "wanted": sampling["wanted"]}
        asked |= {"max_new_tokens": sampling["max_new_tokens"]}
        models = [(run["start"], run["name"], run["seed"]) for run in made.to_dict("records")]
        models += [(f"reader_{seed}", None, seed) for seed in seeds]
        labels += [_labels("losses", dataset="reviews", start="reader", loss_type="untuned") for _ in seeds]
        cells = [{"start": start, "adapter": adapter, "seed": seed, **asked} for start, adapter, seed in models]
        return self._runs(f"{name}_asked", evaluate_reviews, cells, labels, ["movie_reviews"], **sentiment)

    def _instructed(self, name: str, seeds: Sequence[int]) -> None:
        names = [f"instruct_{seed}" for seed in seeds]
        if self.taken is None:
            cells = [
                {"start": f"base_{seed}", "instruction": self.instruction, "seed": seed, **self.facts} for seed in seeds
            ]
            self._made(name, instruct, cells, names, data.TRAINED_ON)
        else:
            made = self.study.sweep(name, take, [{"context": self.taken.context}], {"model": self.instruct})
            self.kept |= dict.fromkeys(names, made["kept"].iloc[0])

    def _trained(
        self, name: str, part: str, arms: Sequence[Arm], seeds: Sequence[int], recipes: Mapping | None = None
    ) -> tuple[pd.DataFrame, list[dict[str, object]]]:
        recipes = recipes or self.recipes
        references = design.reference_cells(arms, seeds)
        references = {key: cell for key, cell in references.items() if key not in self.kept}
        if references:
            self._made(f"{name}_references", refer, list(references.values()), list(references), [])
        each = [(arm, seed) for arm in arms for seed in seeds]
        names = [
            _adapter(part, arm.start, arm.data, arm.aim, arm.method, seed)
            if part == "crossing"
            else f"{name} {arms.index(arm)} {seed}"
            for arm, seed in each
        ]
        made = self._made(name, tune, design.tuning_cells(arms, recipes, seeds), names, [])
        labels = [
            _labels(
                part, dataset=arm.data, aim=arm.aim, method=arm.method, start=arm.start, selection=arm.selection,
                adapter="qlora" if arm.quantized else "lora", rank=cell["tuning"]["lora"]["r"],
                pairs=run["distinct_pairs"],
                loss_type=arm.loss_type or "none", beta=cell["tuning"].get("beta", 0.0),
                base_dtype=run["base_dtype"], base_bytes=run["base_bytes"],
            )
            for (arm, _), cell, run in zip(
                each, design.tuning_cells(arms, recipes, seeds), made.to_dict("records"), strict=True
            )
        ]  # fmt: skip
        return made, labels

    def _asked(self, start: str, adapter: str | None, base_dtype: str, seed: int, split: str) -> dict[str, object]:
        return {"start": start, "adapter": adapter, "base_dtype": base_dtype, **self._exam(seed, split)}

    def _exam(self, seed: int, split: str) -> dict[str, object]:
        return {"reference": f"instruct_{seed}", "asking": self.asking | {"split": split}, "seed": seed}

    def _files(self, names: Iterable[str]) -> dict[str, Path]:
        return {name: self.files[name] for name in names}

    def _made(
        self, name: str, run: Callable, cells: list[dict], names: list[str], tables: Iterable[str], **more: object
    ) -> pd.DataFrame:
        made = self._swept(name, run, cells, tables, **more).assign(name=names)
        self.kept |= dict(zip(names, made["kept"], strict=True))
        return made

    def _runs(
        self, name: str, run: Callable, cells: list[dict], labels: list[dict], tables: Iterable[str], **more: object
    ) -> pd.DataFrame:
        found, told = self._swept(name, run, cells, tables, **more), pd.DataFrame(labels)
        # A row that git holds has the columns of all of a study's runs, which makes objects of numbers.
        found = found.astype({measure: float for measure in MEASURED if measure in found})
        return pd.concat([told, found.drop(columns=told.columns, errors="ignore")], axis=1)

    def _swept(
        self, name: str, run: Callable, cells: list[dict], tables: Iterable[str], **more: object
    ) -> pd.DataFrame:
        named = {value for cell in cells for value in cell.values() if isinstance(value, str)}
        own = {key: kept for key, kept in self.kept.items() if key in named}
        return self.study.sweep(name, run, cells, self._files(tables) | own | more)


def _adapter(part: str, start: str, data: str, aim: str, method: str, seed: int) -> str:
    return f"{part} {start} {data} {aim} {method} {seed}"


def _labels(part: str, **levels: object) -> dict[str, object]:
    """What a run is; see `common.analysis.alignment.runs`."""
    plain = {
        "dataset": "none", "aim": "none", "method": "none", "start": "base", "adapter": "none", "pairs": 0, "rank": 0,
        "loss_type": "none", "beta": 0.0, "selection": "random", "merge": "none", "base_dtype": "float32",
        "base_bytes": 0, "taken": False,
    }  # fmt: skip
    return {"part": part} | plain | levels
