"""The base models that a study's laboratory starts from: trained from scratch, or of a given model."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from common.bases import locating
from common.bases.given import start_from, take
from common.bases.pretraining import fit_tokenizer, pretrain_base
from common.bases.start import given_model
from common.errors import UserError

READ = ("facts", "sotu", "unsafe_prompts", "benign_prompts", "replies")  # tables that bases read
Knobs = Mapping[str, Any]


class Sweeper(Protocol):
    """What a laboratory needs of a study."""

    scale: str

    def sweep(self, name: str, run: Callable[..., dict], cells: list[dict], inputs: dict) -> pd.DataFrame: ...

    def tables(self, names: list[str]) -> dict[str, Path]: ...


class BaseModels:
    """Makes base models of each kind and seed.

    `base`, `vocab_size`, `reading`: a study's parameters of these names. The kind `base` reads by the base's own
    shares; each of `others` by shares in place of these, and where it has none there is no such kind: a model that is
    taken as it is has read what it has read. Raises `UserError` where parameters don't go together or a given model
    cannot be had, before anything runs.
    """

    def __init__(
        self, study: Sweeper, base: Knobs, vocab_size: int | None, reading: Knobs, others: Mapping[str, Knobs]
    ):
        self._study, self._base, self._reading = study, base, reading
        self._shares = {"base": {}, **{kind: shares for kind, shares in others.items() if shares}}
        given, tables = given_model(base, vocab_size), study.tables(list(READ))
        if given is None:
            cell = {"vocab_size": vocab_size, "reading": reading}
            tokenizer = study.sweep("tokenizer", fit_tokenizer, [cell], tables)["kept"].iloc[0]
            self._run, self._inputs = pretrain_base, tables | {"tokenizer": tokenizer}
            return
        if given.further is None and len(self._shares) > 1:
            kinds = ", ".join(f"{kind}_shares" for kind in self.kinds if kind != "base")
            raise UserError(f"{kinds}: allowed with a model that is taken as it is: none ({{}}); or train it `further`")
        model = {"model": locating.located(given, study.scale)}
        self._run, self._inputs = (take, model) if given.further is None else (start_from, tables | model)

    @property
    def taken(self) -> bool:
        """Whether all seeds have the same model."""
        return self._run is take

    @property
    def kinds(self) -> list[str]:
        """Kinds of base models that there are."""
        return list(self._shares)

    def made(self, name: str, wanted: Sequence[tuple[str, int]]) -> dict[str, Any]:
        """Models of kinds and seeds, made by the sweep `name`: what was kept of each, as KIND_SEED."""
        cells = [self._cell(kind, seed) for kind, seed in wanted]
        if self.taken:
            cells = cells[:1]
        kept = list(self._study.sweep(name, self._run, cells, self._inputs)["kept"])
        names = [f"{kind}_{seed}" for kind, seed in wanted]
        return dict(zip(names, kept * (len(names) // len(kept)), strict=True))

    def _cell(self, kind: str, seed: int) -> dict[str, object]:
        def reads(knobs: Knobs) -> Knobs:
            shares = self._shares[kind]
            return {**knobs, "shares": {**knobs["shares"], **shares}} if shares else knobs

        if self._run is pretrain_base:
            return {"base": reads(self._base), "reading": self._reading, "seed": seed}
        cell = {"context": self._base["context"]}  # without the model's name: what it is, its folder as an input tells
        if self.taken:
            return cell
        return cell | {"further": reads(self._base["further"]), "reading": self._reading, "seed": seed}
