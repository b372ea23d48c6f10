"""Quantised pre-training: fake quantisation of weights, activations, gradients and Adam moments.

    report = quantize(model, recipe)                      # the linear layers, in place
    quantize_moments(optimizer, model, recipe)            # the optimiser's state
    assert_took_effect(measure_effect(model, loss, optimizer), report)

After Chitsaz et al., arXiv 2407.11722.
"""

from common.quantization.adam import quantize_moments
from common.quantization.effect import assert_took_effect, measure_effect
from common.quantization.fake import fake_quantize, log_quantize
from common.quantization.model import QuantizationReport, QuantizedLayer, linear_layers, quantize
from common.quantization.recipe import MomentQuantizer, Quantizer, Recipe

__all__ = [
    "MomentQuantizer",
    "QuantizationReport",
    "QuantizedLayer",
    "Quantizer",
    "Recipe",
    "assert_took_effect",
    "fake_quantize",
    "linear_layers",
    "log_quantize",
    "measure_effect",
    "quantize",
    "quantize_moments",
]
