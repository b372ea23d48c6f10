"""The settings of a study in all of its figures: which are drawn together, in which order, colour and words."""

import re
import textwrap
from collections.abc import Mapping

import pandas as pd

from common.analysis.quantization import BASELINE
from common.errors import UserError
from common.figures import INK, PALETTE

Palette = dict[str, str]
COLORS = PALETTE[:6]  # black is the baseline's, and yellow fades on white


def palette_of(groups: Mapping[str, str]) -> Palette:
    """A colour for each setting, distinct within its group, and black for the baseline.

    `groups` maps each setting but the baseline to its group. Raises `UserError` where a group has more settings than
    there are colours, or the baseline is in one.
    """
    if BASELINE in groups:
        raise UserError(f"{BASELINE} is drawn with every group and belongs to none")
    palette = {BASELINE: INK}
    for group in dict.fromkeys(groups.values()):
        members = [setting for setting, own in groups.items() if own == group]
        if len(members) > len(COLORS):
            raise UserError(f"{len(members)} settings are in {group!r}, {len(COLORS)} colours there are: split it")
        palette.update(zip(members, COLORS, strict=False))
    return palette


def in_order(table: pd.DataFrame, groups: Mapping[str, str]) -> list[str]:
    """The settings of `table`: the baseline, where it is among them, then the others in the order of `groups`.

    Raises `UserError` where one has no group, for it would be left out.
    """
    found = set(table["setting"])
    if strangers := sorted(found - groups.keys() - {BASELINE}):
        raise UserError(f"settings without a group: {', '.join(strangers)}")
    return [setting for setting in (BASELINE, *groups) if setting in found]


def by_group(table: pd.DataFrame, groups: Mapping[str, str]) -> dict[str, dict[str, pd.DataFrame]]:
    """For each group the rows of `table` by setting, the baseline's first: what a panel draws.

    Raises `UserError` where a setting has no group, or the baseline no rows.
    """
    rows = {setting: table[table["setting"] == setting] for setting in in_order(table, groups)}
    if BASELINE not in rows:
        raise UserError(f"no rows of {BASELINE}, to which all others are compared")
    return {
        group: {setting: own for setting, own in rows.items() if groups.get(setting, group) == group}
        for group in dict.fromkeys(groups.values())
    }


def line_style(setting: str, palette: Palette) -> dict[str, object]:
    """Options of a setting's line: the baseline's is thin and on top, so that it shows on a line it coincides with."""
    width, layer = (0.8, 3) if setting == BASELINE else (1.6, 2)
    return {"color": palette[setting], "linewidth": width, "zorder": layer}


def wrapped(setting: str, width: int) -> str:
    """The label over lines of `width` characters, broken before a "+" or after a comma, between words where it must."""
    lines = []
    for part in re.split(r" (?=\+)|(?<=,) ", setting):
        if lines and len(f"{lines[-1]} {part}") <= width:
            lines[-1] += f" {part}"
        else:
            lines += textwrap.wrap(part, width, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)
