"""What a study's runs take of a GPU's memory, told without a GPU.

    trainings(study, scale)     # what is trained
    footprint(training)         # the bytes of a step of it
    examination(study, scale)   # those of what is scored, asked and compared
    largest(study, scale)       # of any run

No run imports this: how memory is counted changes no result.
"""

from common.footprint.counting import Footprint, Training, footprint, on_meta
from common.footprint.examining import examination, judges_weights
from common.footprint.studies import OF_STUDY, trainings
from common.machine import GIB

__all__ = ["GIB", "OF_STUDY", "Footprint", "Training", "examination", "footprint", "largest", "on_meta", "trainings"]


def largest(study: str, scale: str) -> int:
    """Bytes of the run that takes most: a training or an examination; `UserError` for a study that is not known.

    A process that trains may have examined before, and has judges still.
    """
    most = max(footprint(each).total for each in trainings(study, scale))
    return max(most + judges_weights(study, scale), examination(study, scale).total)
