"""The minima themselves: slices of the loss through them, and M by how they are looked for."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from common.analysis.expansion import NONE, TASKS
from common.figures import PAGE, PALETTE, use_style


def surfaces(table: pd.DataFrame) -> Figure:
    """Loss on the plane through three minima, a panel for each network. `table`: see `surface_table`.

    Levels are those of the logarithm of the loss over the least, common to all panels.
    """
    names = table["candidate"].unique()
    use_style()
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(PAGE, 2.1 * lines + 0.35), squeeze=False)
    for ax in axes.flat[len(names) :]:
        ax.remove()
    planes = table[table["minimum"] == 0]
    low, high = planes["loss"].min(), planes["loss"].quantile(0.95)
    levels = np.geomspace(low, high, 13)
    for ax, name in zip(axes.flat, names, strict=False):
        own = table[table["candidate"] == name]
        grid = own[own["minimum"] == 0].pivot(index="y", columns="x", values="loss")
        drawn = ax.contourf(grid.columns, grid.index, grid.to_numpy(), levels=levels, cmap="cividis", extend="max")
        at = own[own["minimum"] > 0]
        ring = pd.concat([at, at.iloc[:1]])
        ax.plot(ring["x"], ring["y"], color="white", linewidth=0.8, marker="o", markersize=3.5)
        ax.set_title("the base" if name == NONE else name, fontsize=6.5)
        ax.set_aspect("equal")
        ax.tick_params(labelsize=5.5)
    bar = figure.colorbar(drawn, ax=list(axes.flat[: len(names)]))
    bar.set_label("training loss (nats)")
    ticks = levels[::3]
    bar.set_ticks(ticks, labels=[f"{tick:.3g}" for tick in ticks])
    figure.supxlabel("along the first edge (‖θ‖ = 1)")
    figure.supylabel("across it")
    return figure


def walks(table: pd.DataFrame, chosen: tuple[int, int]) -> Figure:
    """M's rank correlation with the gain by K and T, mean over seeds, the lowest below; what was chosen is framed.

    `table`: task, seed, count, steps, correlation; a panel for each task.
    """
    tasks = table["task"].unique()
    use_style()
    counts = table["count"].nunique()
    figure, axes = plt.subplots(1, len(tasks), figsize=(PAGE, 0.9 + 0.5 * max(3, counts)), sharey=True, squeeze=False)
    for ax, task in zip(axes[0], tasks, strict=True):
        image = _by_walk(ax, table[table["task"] == task], chosen)
        ax.set_title(TASKS[task])
    axes[0, 0].set_ylabel("continuations, K")
    figure.supxlabel("steps of each, T")
    bar = figure.colorbar(image, ax=list(axes[0]))
    bar.set_label("rank correlation")
    return figure


def _by_walk(ax: Axes, table: pd.DataFrame, chosen: tuple[int, int]) -> AxesImage:
    by = table.groupby(["count", "steps"])["correlation"]
    mean, least = by.mean().unstack(), by.min().unstack()
    image = ax.imshow(mean.to_numpy(), cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for row, count in enumerate(mean.index):
        for column, steps in enumerate(mean.columns):
            value = mean.loc[count, steps]
            text = f"{value:.2f}\nmin {least.loc[count, steps]:.2f}".replace("-", "−")
            ax.text(
                column, row, text, ha="center", va="center", fontsize=6.5, color="white" if value < 0.55 else "black"
            )
            if (count, steps) == chosen:
                box = {"fill": False, "edgecolor": PALETTE[1], "linewidth": 2}
                ax.add_patch(plt.Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, **box))
    ax.set_xticks(range(len(mean.columns)), [str(steps) for steps in mean.columns])
    ax.set_yticks(range(len(mean.index)), [str(count) for count in mean.index])
    return image
