"""Merging language models: several in, one out, without training.

    merged = merge_state_dicts("mergealign", base, [domain, aligned], a=0.7)   # in memory
    compendium merge config.yml OUT                                            # folders, by a mergekit file

A method is one typed function in `methods`, named in `METHODS`.
"""

from common.merging.folders import merge_folders
from common.merging.methods import dare_linear, dare_ties, linear, mergealign, slerp, task_arithmetic, ties
from common.merging.recipe import METHODS
from common.merging.states import merge_state_dicts

__all__ = [
    "METHODS",
    "dare_linear",
    "dare_ties",
    "linear",
    "merge_folders",
    "merge_state_dicts",
    "mergealign",
    "slerp",
    "task_arithmetic",
    "ties",
]
