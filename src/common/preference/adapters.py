"""Low-rank adapters by peft, on weights as they are or packed to 4 bits; what does not take effect raises."""

import tempfile
from pathlib import Path
from typing import Annotated, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel, set_seed
from transformers.pytorch_utils import Conv1D

from common.errors import UserError
from common.project import CACHE


class Lora(BaseModel):
    """A low-rank adapter (LoRA, arXiv 2106.09685) under the names that peft uses.

    `target_modules` are the last parts of the names of the layers that get one. With `quantized` the base model must
    be packed to NF4 (QLoRA, arXiv 2305.14314), without it must not.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    r: PositiveInt
    lora_alpha: PositiveInt
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    quantized: bool = False


def packed_layers(model: torch.nn.Module) -> list[str]:
    """Names of the layers whose weights really are 4-bit numbers, two in a byte."""
    weights = ((name, getattr(module, "weight", None)) for name, module in model.named_modules())
    return [
        name for name, weight in weights if getattr(weight, "quant_type", None) == "nf4" and weight.dtype == torch.uint8
    ]


def to_nf4(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of the model whose linear layers but the head are packed to NF4 by bitsandbytes (arXiv 2305.14314).

    It computes in the model's own type. Raises `UserError` where no layer was packed.
    """
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=model.dtype,
        bnb_4bit_use_double_quant=False,
    )
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:  # a large model's weights: a system's own may lie in memory
        model.save_pretrained(folder)
        packed = AutoModelForCausalLM.from_pretrained(
            folder, quantization_config=settings, device_map=str(model.device), dtype=model.dtype, use_safetensors=True
        )
    if not packed_layers(packed):
        raise UserError(f"{type(model).__name__} has no layer that bitsandbytes packs to 4 bits")
    _keep_format(packed)
    return packed


def _keep_format(model: torch.nn.Module) -> None:
    # On processors with AVX-512 for bfloat16 bitsandbytes repacks weights for inference, which rounds their scales
    # and fails on layers narrower than a block: a model would be evaluated, and saved, with other weights than trained.
    for name in packed_layers(model):
        model.get_submodule(name).support_avx512bf16_for_cpu = False


def attach(model: PreTrainedModel, lora: Lora, seed: int) -> PeftModel:
    """The model with a new adapter, which alone is trainable; its layers are changed in place.

    `seed` fixes the adapter's initial weights. Raises `UserError` where `quantized` says otherwise than the weights,
    or a target is not there.
    """
    packed = packed_layers(model)
    if lora.quantized and not packed:
        raise UserError("quantized is true, but the model's weights are not 4-bit: load it by to_nf4")
    if packed and not lora.quantized:
        raise UserError(
            f"quantized is false, but {len(packed)} layers of the model are 4-bit, the first is {packed[0]}"
        )
    _keep_format(model)
    set_seed(seed)
    named = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    transposed = any(isinstance(module, Conv1D) for module in model.modules())
    options = lora.model_dump(exclude={"quantized", "target_modules"})
    try:
        adapted = get_peft_model(
            model, LoraConfig(**options, target_modules=named, fan_in_fan_out=transposed, task_type="CAUSAL_LM")
        )
    except ValueError as error:
        raise UserError(f"the adapter cannot be attached: {str(error).splitlines()[0]}") from error
    layers = adapter_layers(adapted)
    ends = {layer.rpartition(".")[2] for layer in layers}
    if lora.target_modules != "all-linear" and (absent := sorted(set(named) - ends)):
        raise UserError(f"target_modules: the model has no layer {', '.join(absent)}")
    strangers = [name for name, weight in adapted.named_parameters() if weight.requires_grad and "lora_" not in name]
    if not layers or strangers:
        raise RuntimeError(f"the adapter has {len(layers)} layers, and {len(strangers)} other weights are trainable")
    return adapted


def adapter_layers(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The second, initially zero matrix `(out, r)` of each layer's adapter, by the layer's name."""
    return {name.partition(".lora_B.")[0]: weight for name, weight in model.named_parameters() if ".lora_B." in name}


def assert_moved(model: torch.nn.Module) -> None:
    """Raise `RuntimeError`, naming the layer, where an adapter still is what it was before training."""
    for name, weight in adapter_layers(model).items():
        if not weight.any():
            raise RuntimeError(f"the adapter of {name} did not move in training")


def load_adapter(model: PreTrainedModel, folder: Path, *, trainable: bool = False) -> PeftModel:
    """The model with the adapter that `save_pretrained` of an adapted model wrote to a folder.

    Raises `UserError` where the folder holds none in safetensors (a pickle is not opened) or it does not fit.
    """
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        if not (folder / file).is_file():
            raise UserError(f"{folder} holds no {file}")
    try:
        # peft's own choice is the GPU, wherever the model is.
        adapted = PeftModel.from_pretrained(
            model, folder, is_trainable=trainable, use_safetensors=True, torch_device=str(model.device)
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(f"the adapter in {folder} does not fit: {str(error).splitlines()[0]}") from error
    assert_moved(adapted)
    return adapted


def merge(model: PeftModel) -> PreTrainedModel:
    """The base model with the adapter added to its weights, an ordinary checkpoint; the adapter is gone then.

    Raises `UserError` on 4-bit weights, which would round the sum: load the adapter onto the unpacked model first.
    """
    if packed := packed_layers(model):
        raise UserError(f"{packed[0]} is 4-bit and would round the adapter away: load_adapter it onto the full model")
    return model.merge_and_unload(safe_merge=True)
