"""transformers' xLSTM, mended: logits where they are asked for, and a cache of any width, where one is asked for.

xLSTM: Beck et al. 2024, arXiv 2405.04517. Importing the module lets `AutoModelForCausalLM` open xLSTM's folders as this
class; weights and configuration are those of transformers' own.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import AutoModelForCausalLM, xLSTMConfig, xLSTMForCausalLM
from transformers.modeling_utils import slice_logits_to_keep
from transformers.models.xlstm.modeling_xlstm import soft_cap, xLSTMCache, xLSTMCausalLMOutput


class SlicedxLSTMForCausalLM(xLSTMForCausalLM):
    """`logits_to_keep` as for transformers' other models: which positions have logits. transformers' own class always
    gives all, makes a cache even where none is asked for, and cannot where half its width is no multiple of 64."""

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, cache_params: object = None, use_cache: bool | None = None, **kwargs: object
    ) -> dict[str, object]:
        read = input_ids if cache_params is None else input_ids[:, -1:]
        return {"input_ids": read, "cache_params": cache_params, "use_cache": use_cache}

    def forward(
        self,
        input_ids: Tensor | None = None,
        *,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        use_cache: bool | None = None,
        cache_params: object = None,
        **kwargs: object,
    ) -> xLSTMCausalLMOutput:
        """Logits `(batch, length, vocab)` of `input_ids (batch, length)`, and the loss where there are `labels`.

        `attention_mask` is not looked at: padding belongs on the right, where nothing sees it.
        """
        if use_cache and cache_params is None:
            cache_params = self._empty_cache(len(input_ids))
        length = input_ids.shape[1]
        # A last chunk that is not full is computed token by token. Filled up it is not, and nothing sees what follows.
        filler = 0 if cache_params is not None else -length % self.config.chunk_size
        cached = cache_params is not None
        output = self.backbone(pad(input_ids, (0, filler)), cache_params=cache_params, use_cache=cached)
        logits = self.lm_head(slice_logits_to_keep(output.last_hidden_state[:, :length], logits_to_keep))
        logits = soft_cap(logits.float(), self.config.output_logit_soft_cap)
        loss = None if labels is None else self.loss_function(logits, labels, self.config.vocab_size)
        return xLSTMCausalLMOutput(loss=loss, logits=logits, cache_params=output.cache_params)

    def _empty_cache(self, batch: int) -> xLSTMCache:
        # The cache's own sizes are rounded up to multiples of 64, which those of the layers are not.
        cache = xLSTMCache(self.config, batch, dtype=self.dtype, device=self.device)
        for number, block in enumerate(self.backbone.blocks):
            keys, values = (
                size // self.config.num_heads for size in (block.mlstm_layer.qk_dim, block.mlstm_layer.v_dim)
            )
            shapes = ((keys, values), (keys,), (1,))
            cache.rnn_state[number] = tuple(
                torch.zeros(batch, self.config.num_heads, *shape, dtype=self.dtype, device=self.device)
                for shape in shapes
            )
        return cache


AutoModelForCausalLM.register(xLSTMConfig, SlicedxLSTMForCausalLM, exist_ok=True)
