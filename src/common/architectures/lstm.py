"""The LSTM language model, the recurrent baseline from before attention, as a transformers class.

Long short-term memory: Hochreiter and Schmidhuber 1997; as a language model Mikolov et al. 2010 and Zaremba et al.
2014 (arXiv 1409.2329). Importing the module lets `AutoModelForCausalLM` open its folders.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_utils import slice_logits_to_keep
from transformers.utils import ModelOutput

State = tuple[Tensor, Tensor]
"""Outputs and memory cells of all layers, `(layers, batch, inner_size)` each."""


class LSTMConfig(PretrainedConfig):
    """`hidden_size` is the width of embeddings and of what the head reads, `inner_size` that of each LSTM layer."""

    model_type = "lstm_language_model"

    vocab_size: int = 1024
    hidden_size: int = 128
    inner_size: int = 128
    num_hidden_layers: int = 2
    initializer_range: float = 0.02
    use_cache: bool = True
    bos_token_id: int | None = 0
    eos_token_id: int | None = 0
    pad_token_id: int | None = 0
    tie_word_embeddings: bool = False


@dataclass
class LSTMOutput(ModelOutput):
    loss: Tensor | None = None
    logits: Tensor | None = None
    cache_params: State | None = None


class LSTMForCausalLM(PreTrainedModel, GenerationMixin):
    """Embedding, LSTM layers, a projection back to the embedding's width, an untied head."""

    config_class = LSTMConfig
    base_model_prefix = "lstm"
    _is_stateful = True

    def __init__(self, config: LSTMConfig) -> None:
        super().__init__(config)
        self.embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.lstm = nn.LSTM(config.hidden_size, config.inner_size, config.num_hidden_layers, batch_first=True)
        self.projection = nn.Linear(config.inner_size, config.hidden_size, bias=False)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.LSTM):
            module.reset_parameters()
            for name, value in module.named_parameters():
                if name.startswith("bias_ih"):
                    # A forget gate that starts open lets gradients through time: Jozefowicz et al. 2015.
                    value[module.hidden_size : 2 * module.hidden_size] = 1.0
        else:
            super()._init_weights(module)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        self.embeddings = value

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # its state is a pair of tensors, kept in `cache_params`

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, cache_params: State | None = None, use_cache: bool | None = None, **kwargs: object
    ) -> dict[str, object]:
        read = input_ids if cache_params is None else input_ids[:, -1:]
        return {"input_ids": read, "cache_params": cache_params, "use_cache": use_cache}

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        cache_params: State | None = None,
        use_cache: bool | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: object,
    ) -> LSTMOutput:
        """Logits `(batch, length, vocab)` of `input_ids (batch, length)`, going on from a state where one is given.

        With `labels` there is the loss too.
        `logits_to_keep` as for transformers' models: which positions have logits. `attention_mask` is not looked at:
        padding belongs on the right, where nothing sees it.
        """
        read, state = self.lstm(self.embeddings(input_ids), cache_params)
        logits = self.lm_head(slice_logits_to_keep(self.projection(read), logits_to_keep))
        loss = None if labels is None else self.loss_function(logits, labels, self.config.vocab_size)
        return LSTMOutput(loss, logits, state if use_cache else None)


AutoConfig.register(LSTMConfig.model_type, LSTMConfig)
AutoModelForCausalLM.register(LSTMConfig, LSTMForCausalLM)
