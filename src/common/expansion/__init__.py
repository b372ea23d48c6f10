"""Expanding trained networks: wider, deeper or both, with or without a change of the function.

    grown = expand(model, {"hidden": 256, "layers": 8}, width="net2wider")       # a Llama or GPT-2
    grown = expand_mlp(model, [32, 32], width="zero")                            # a Sequential
    carry_moments(model, optimizer, grown, adamw(grown.model, weight_decay=0.1))

`WIDTHS` and `DEPTHS` are the ways that there are, each with its paper.
"""

from common.expansion.depth import DEPTHS, deeper
from common.expansion.expanded import Expanded, carry_moments
from common.expansion.mlp import expand_mlp
from common.expansion.sizes import Sizes, parameters_at, sizes_of, sizes_with
from common.expansion.transformers import expand
from common.expansion.width import WIDTHS

__all__ = [
    "DEPTHS",
    "WIDTHS",
    "Expanded",
    "Sizes",
    "carry_moments",
    "deeper",
    "expand",
    "expand_mlp",
    "parameters_at",
    "sizes_of",
    "sizes_with",
]
