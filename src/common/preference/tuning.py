"""What a fine-tuning is: its loss, what is trained, and how fast."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from common.errors import UserError
from common.preference.adapters import Lora
from common.preference.losses import Used, use
from common.training import Plan

Method = Literal["sft", "dpo", "kto", "bco", "orpo", "simpo", "poft"]
LossType = Literal["sigmoid", "hinge", "ipo", "robust", "sigmoid_norm"]
POINTS = 30  # of a training curve
PARAMETERS = ("beta", "label_smoothing", "simpo_gamma", "desirable_weight", "undesirable_weight")


class Tuning(BaseModel):
    """One fine-tuning. Parameters of losses have TRL's names and are given where the method's loss uses them, only.

    `loss_type` chooses among DPO's losses. `lora` is the adapter that is trained; without it all weights are.
    With `replay_weight` a step takes that much of the cross-entropy of `replay_batch_size` documents to its loss.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Method
    loss_type: LossType | None = None
    beta: float | None = None
    label_smoothing: float | None = None
    simpo_gamma: float | None = None
    desirable_weight: float | None = None
    undesirable_weight: float | None = None
    lora: Lora | None = None
    steps: PositiveInt
    batch_size: PositiveInt  # examples: pairs, where the method takes pairs
    learning_rate: PositiveFloat
    warmup: NonNegativeInt = 0  # steps
    schedule: Literal["cosine", "constant"] = "cosine"  # the cosine ends at 0
    weight_decay: NonNegativeFloat = 0.0
    max_grad_norm: PositiveFloat = 1.0
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)  # of AdamW
    replay_weight: NonNegativeFloat = 0.0
    replay_batch_size: NonNegativeInt = 0
    precision: Literal["no", "bf16"] = "no"

    def loss(self) -> Used:
        """The loss with its parameters; `UserError` where a parameter is missing, unused or makes no sense."""
        if self.method != "dpo" and self.loss_type is not None:
            raise UserError(f"loss_type belongs to dpo, not to {self.method}")
        given = {name: getattr(self, name) for name in PARAMETERS if getattr(self, name) is not None}
        return use((self.loss_type or "sigmoid") if self.method == "dpo" else self.method, given)

    def plan(self) -> Plan:
        """Length and learning rates of the training."""
        return Plan(
            self.steps,
            self.learning_rate,
            self.warmup,
            clip=self.max_grad_norm,
            final_share=1.0 if self.schedule == "constant" else 0.0,
            log_every=max(1, self.steps // POINTS),
            precision=self.precision,
        )

    def check(self) -> None:
        """Raise `UserError` where settings contradict each other."""
        self.loss()
        if (self.replay_weight > 0) != (self.replay_batch_size > 0):
            raise UserError(
                f"replay_weight is {self.replay_weight} and replay_batch_size {self.replay_batch_size}, "
                "allowed: both 0 or both above"
            )
        if self.warmup >= self.steps:
            raise UserError(f"warmup is {self.warmup}, allowed: below steps={self.steps}")
