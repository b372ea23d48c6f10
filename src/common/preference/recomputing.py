"""Large models keep no activations of their layers but compute them again in the backward pass: a third more work.

Gradient checkpointing: Chen et al. 2016, arXiv 1604.06174. On a CPU numbers stay the same bit for bit.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

LARGE = 1_000_000_000
"""Parameters above which a model is fine-tuned so. Above that, activations outgrow one GPU: of seven billion parameters
and 32 texts of 256 tokens they would take 77 GB in bfloat16. Below, the time they save is worth the memory."""


@contextmanager
def recomputing(model: PreTrainedModel) -> Iterator[list[GradientCheckpointingLayer]]:
    """A model that is trained in here keeps the inputs of its layers alone, and of one layer at a time the rest.

    Gives these layers, those under an adapter among them: none, and nothing changes, where the model is not large or
    its family can't do it. Dropout falls out the second time as it did the first.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not model.supports_gradient_checkpointing or model.num_parameters() <= LARGE or not layers:
        yield []
        return
    model.activation_checkpointing_enable({"use_reentrant": False})
    # It has embeddings want a gradient, for ever after, which layers need with `use_reentrant` alone.
    model.disable_input_require_grads()
    try:
        yield layers
    finally:
        model.activation_checkpointing_disable()
