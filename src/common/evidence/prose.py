"""Sentences whose words and numbers come from the claims, so that another outcome leaves no old sentence."""

import re
from collections.abc import Mapping
from string import Formatter

import numpy as np
from IPython.display import Markdown

from common.errors import UserError
from common.evidence.claims import VERDICTS, remark

# A name may carry digits (W8, m2) and, with a capital, hyphened ones (WikiText-2); other digits are results.
NAME = re.compile(r"(?=\w*[A-Z])[^\W\d_]\w*(?:-\w+)*|[^\W\d_]\w*")


def prose(template: str, claims: Mapping[str, dict], **numbers: float | str) -> Markdown:
    """Fill a Markdown template from the records of `decide` and from computed `numbers`.

    `{W8.estimate:+.3f}`, `{W8.ci:.2f}`, `{W8.verdict}`, `{W8.n_seeds}`: a record's field, by its format.
    `{W8:keeps|loses|may or may not keep}`: words for reproduced | not reproduced | inconclusive; they may hold
    fields in their turn. What the verdict alone would hide (`common.evidence.claims.remark`) is put behind them in
    brackets, once for each claim. `{share:.1%}`: one of `numbers`. Floats are shown as `.3g` unless a format says else.
    Raises `UserError` on an unknown claim, field or number, a number never used, a value that is missing or not
    finite, and on a digit typed into the template that is not part of a name such as W8, m2 or GPT-2.
    """
    if both := set(numbers) & set(claims):
        raise UserError(f"prose: {', '.join(sorted(both))} names a claim and a number")
    unused = set(numbers)
    remarked: set[str] = set()

    def shown(name: str, value: object, spec: str) -> str:
        if isinstance(value, list):
            return f"[{', '.join(shown(name, item, spec) for item in value)}]"
        if value is None or (not isinstance(value, str) and not np.isfinite(value)):
            raise UserError(f"prose: {name} is {value}, and a sentence rests on it")
        try:
            return format(value, spec or (".3g" if isinstance(value, float | np.floating) else ""))
        except ValueError as error:
            raise UserError(f"prose: format {spec!r} does not fit {name} = {value!r}") from error

    def filled(text: str, chosen: bool) -> str:
        try:
            parts = list(Formatter().parse(text))
        except ValueError as error:
            raise UserError(f"prose: {error} in {text!r}") from error
        return "".join(literal(words) + field(name, spec, chosen) for words, name, spec, _ in parts)

    def literal(words: str) -> str:
        if typed := re.search(r"\S*\d\S*", NAME.sub(lambda name: "_" * len(name[0]), words)):
            raise UserError(f"prose: number {words[slice(*typed.span())]!r} is typed; let a field fill it in")
        return words

    def field(name: str | None, spec: str | None, chosen: bool) -> str:
        if name is None:
            return ""
        claim, _, key = name.partition(".")
        if name in numbers:
            unused.discard(name)
            return shown(name, numbers[name], spec)
        if claim not in claims:
            raise UserError(f"prose: {claim!r} is no claim or number; known: {', '.join([*claims, *numbers])}")
        if key:
            if key not in claims[claim]:
                raise UserError(f"prose: claim {claim} has no {key!r}; known: {', '.join(claims[claim])}")
            return shown(name, claims[claim][key], spec) if chosen else ""
        choices = spec.split("|")
        if len(choices) != len(VERDICTS):
            raise UserError(f"prose: {claim} needs words for {' | '.join(VERDICTS)}, got {spec!r}")
        verdict = VERDICTS.index(claims[claim]["verdict"])
        words = [filled(words, chosen and i == verdict) for i, words in enumerate(choices)][verdict]
        told = remark(claims[claim]) if chosen and claim not in remarked else ""
        remarked.add(claim)
        return f"{words} ({told})" if told else words

    text = filled(template, True)
    if unused:
        raise UserError(f"prose: {', '.join(sorted(unused))} given and never used")
    return Markdown(text)
