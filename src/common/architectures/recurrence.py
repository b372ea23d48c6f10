"""RecurrentGemma's recurrence as a parallel scan: the same function in a fraction of the time.

transformers' class computes h_t = a_t h_{t-1} + x_t one position after the other, by writing each into a tensor whose
gradient is then copied as often. Here every position takes in the one 1, 2, 4, … before it: log2(length) steps over
whole tensors (Hillis and Steele 1986; for linear recurrences Martin and Cundy 2018, arXiv 1709.04057).
"""

from types import MethodType

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel
from transformers.models.recurrent_gemma.modeling_recurrent_gemma import RecurrentGemmaRglru


def with_parallel_scan(model: PreTrainedModel) -> PreTrainedModel:
    """The model, whose RG-LRU layers, if it has any, now scan in parallel where a text has more than one token."""
    for module in model.modules():
        if isinstance(module, RecurrentGemmaRglru):
            module._rnn_scan = MethodType(_rnn_scan, module)
    return model


def scan(inputs: Tensor, decay: Tensor, state: Tensor | None = None) -> Tensor:
    """h_t = decay_t · h_{t-1} + inputs_t for all t; all are `(batch, length, width)`.

    h before the first position is `state (batch, width)`, or 0.
    """
    if state is not None:
        inputs = torch.cat([inputs[:, :1] + decay[:, :1] * state[:, None], inputs[:, 1:]], dim=1)
    reach = 1
    while reach < inputs.shape[1]:
        # Before the first position there is nothing: zeros there end the sum.
        inputs = inputs + decay * pad(inputs[:, :-reach], (0, 0, reach, 0))
        decay = decay * pad(decay[:, :-reach], (0, 0, reach, 0))
        reach *= 2
    return inputs


def _rnn_scan(
    self: RecurrentGemmaRglru,
    hidden_states: Tensor,
    recurrent_gate: Tensor,
    reset: Tensor,
    recurrent_states: Tensor | None,
    acc_dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, Tensor]:
    """As the class's own: states of all positions and the last one, in `acc_dtype` inside."""
    decay = (recurrent_gate * ~reset).type(acc_dtype)
    states = scan(hidden_states.type(acc_dtype), decay, recurrent_states)
    return states.type(hidden_states.dtype), states[:, -1]
