"""How a run trains its weights, as far as memory and time depend on it."""

from __future__ import annotations

from dataclasses import dataclass

from repro_rl.config import PolicySection, TrainSection
from repro_rl.plan.model_shape import ModelShape


@dataclass(frozen=True, slots=True)
class Precision:
    """Bytes of the numbers that a run computes with."""

    weight: int  # of a trained (or, with an adapter, frozen) weight
    activation: int
    reference: int  # of a weight of the reference model
    autocast: bool  # float32 weights under bfloat16 autocast


@dataclass(frozen=True, slots=True)
class TrainingSetup:
    """Which weights are trained, in which precision and with which optimizer."""

    dtype: str  # a torch dtype's name, or "auto"
    optimizer: str  # "adamw" or "adamw8bit"
    checkpointing: bool  # one activation a layer is kept, the rest is computed again
    exact_kl: bool  # the loss compares whole distributions with the reference model's
    reference: bool  # a frozen reference model is kept
    adapter_rank: int = 0  # of a low-rank adapter; 0: all weights are trained
    adapter_targets: str | tuple[str, ...] = "all-linear"  # names of the adapted layers

    @property
    def adapter(self) -> bool:
        """Only a low-rank adapter is trained; the reference model is then the model without it."""
        return self.adapter_rank > 0

    @property
    def reference_copy(self) -> bool:
        """The reference model has weights of its own in memory."""
        return self.reference and not self.adapter

    def trained_parameters(self, shape: ModelShape) -> int:
        """How many weights of ``shape``, or of its adapter, are trained."""
        if self.adapter:
            return shape.adapter_parameters(self.adapter_rank, self.adapter_targets)
        return shape.parameters

    def precision(self, gpu: bool) -> Precision:
        """On a GPU or a CPU; as ``policy.loading.precision`` decides."""
        if self.dtype != "auto":
            size = 4 if self.dtype == "float32" else 2
            return Precision(size, size, size, autocast=False)
        if not gpu:
            return Precision(4, 4, 4, autocast=False)
        if self.adapter:
            return Precision(2, 2, 2, autocast=False)
        return Precision(4, 2, 2, autocast=True)

    def update_flops(self, forward: float, forward_without_logits: float) -> float:
        """FLOPs of a forward and a backward pass, from those of the forward pass."""
        passes = 2.0 if self.adapter else 3.0  # frozen weights need no gradient of their own
        return passes * forward + (forward_without_logits if self.checkpointing else 0.0)


def training_setup(policy: PolicySection, train: TrainSection, reference: bool) -> TrainingSetup:
    """From settings; ``reference``: whether the run keeps a reference model."""
    lora = policy.lora
    return TrainingSetup(
        dtype=policy.dtype,
        optimizer=train.optimizer,
        checkpointing=train.gradient_checkpointing,
        exact_kl=train.kl.form == "exact" and train.kl.active,
        reference=reference,
        adapter_rank=lora.rank,
        adapter_targets=lora.targets if isinstance(lora.targets, str) else tuple(lora.targets),
    )
