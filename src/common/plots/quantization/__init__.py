"""Figures of the quantisation study: functions from tidy tables to a drawn figure, which compute nothing but layout.

`groups` maps each setting but the baseline to the panel it is drawn in; its order is the order of lines, rows and
colours. A setting has the same colour in all figures.
"""

from common.plots.quantization.forests import families, final_differences, outlier_training, perplexities, sharpness
from common.plots.quantization.memory import memory
from common.plots.quantization.settings import Palette, palette_of
from common.plots.quantization.tensors import layer_errors, magnitudes, outliers, surfaces
from common.plots.quantization.training import learning_rates, loss_curves

__all__ = [
    "Palette",
    "families",
    "final_differences",
    "layer_errors",
    "learning_rates",
    "loss_curves",
    "magnitudes",
    "memory",
    "outlier_training",
    "outliers",
    "palette_of",
    "perplexities",
    "sharpness",
    "surfaces",
]
