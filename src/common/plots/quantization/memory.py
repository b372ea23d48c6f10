"""Memory of training, by component."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from common.analysis.quantization import BASELINE
from common.errors import UserError
from common.figures import PAGE, PALETTE, RULE, use_style
from common.plots.quantization.settings import wrapped

# Parameters and their optimiser's state in cool colours, what grows with the batch in warm ones.
COLORS = (PALETTE[0], PALETTE[5], PALETTE[2], "#999999", "#CCCCCC", PALETTE[1], PALETTE[4], PALETTE[3])


def memory(table: pd.DataFrame) -> Figure:
    """Bytes by component over those of full precision at the same batch size, stacked, against batch size.

    A column for each setting and backward pass, a row for each storage. `table`: setting, backward, batch_size,
    component, storage, bytes. Raises `UserError` where the baseline lacks a batch size or storage, or components are
    more than colours.
    """
    components = table["component"].unique()
    if len(components) > len(COLORS):
        raise UserError(f"{len(components)} components, {len(COLORS)} colours: add up some")
    whole = table[table["setting"] == BASELINE].groupby(["storage", "batch_size"])["bytes"].sum()
    arms = list(table[["setting", "backward"]].drop_duplicates().itertuples(index=False, name=None))
    storages, sizes = table["storage"].unique(), sorted(table["batch_size"].unique())
    for storage, size in table[["storage", "batch_size"]].drop_duplicates().itertuples(index=False, name=None):
        if (storage, size) not in whole:
            raise UserError(f"no {storage} bytes of {BASELINE} at batch size {size}, to which all others are compared")
    use_style()
    figure, axes = plt.subplots(
        len(storages), len(arms), figsize=(PAGE, 0.9 + 1.35 * len(storages)), sharex=True, sharey=True, squeeze=False
    )
    for line, storage in zip(axes, storages, strict=True):
        for ax, (setting, backward) in zip(line, arms, strict=True):
            own = table[(table["storage"] == storage) & (table["setting"] == setting) & (table["backward"] == backward)]
            counts = own.pivot(index="batch_size", columns="component", values="bytes").reindex(sizes)
            shares = counts.div(whole[storage], axis=0)
            floor = 0
            for component, color in zip(components, COLORS, strict=False):
                name = component.replace("_", " ")
                ax.bar(range(len(sizes)), shares[component], 0.85, bottom=floor, color=color, label=name)
                floor = floor + shares[component]
            ax.axhline(1, color=RULE, linewidth=0.6)
            ax.set_xticks(range(len(sizes)), [str(size) for size in sizes])
        line[0].set_ylabel(storage)
    for ax, (setting, backward) in zip(axes[0], arms, strict=True):
        several = [name for name, _ in arms].count(setting) > 1
        ax.set_title(wrapped(setting, 16) + (f"\n({backward})" if several else ""), fontsize=7)
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles[::-1], names[::-1], loc="outside right center", handlelength=1, handleheight=1)
    figure.supxlabel("batch size")
    figure.supylabel("bytes (full precision = 1)")
    return figure
