"""Language models of unlike architectures with as many parameters each.

build("llama", Shape(hidden=96, layers=3, heads=4), vocab_size=1024, context=128, parameters=500_000, seed=0)
"""

from common.architectures.building import build
from common.architectures.families import FAMILIES, Family, Shape

__all__ = ["FAMILIES", "Family", "Shape", "build"]
