"""What is run: models, sizes and settings, in full size for a GPU or as a toy that rehearses it on a CPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repro_rl.policy.loading.qwen_shapes import Shape, find_shape

HERE = Path(__file__).parent
TOY_SHAPE: Shape = {
    "model_type": "qwen2", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 64, "vocab_size": 320, "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SpeedSizes:
    """One workload that speed is measured with."""

    rows: int = 256  # window prompts, or conversations, decoded together
    prompt: int = 768  # tokens of a window prompt
    new: int = 96  # sampled tokens of an answer
    turns: int = 6  # of a conversation
    turn: int = 160  # tokens of a later turn
    update_rows: int = 64  # conversations in one update
    update_tokens: int = 2048  # of each
    trained_share: float = 0.1  # of their tokens
    micro_tokens: int = 8_192  # cells of one forward and backward pass
    generate_rows: int = 256  # of transformers' generate, beside ours
    dynamic_rows: int = 64  # of the decoder with a growing cache, beside ours


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that decides what a run measures; equal jobs may be continued."""

    device: str
    toy: bool
    model: str  # folder, hub name or GGUF file of a pretrained model; "tiny": the embedded one
    recipe: Path  # settings of what is trained
    settings: tuple[str, ...] = ()  # on top of it
    speed: SpeedSizes = field(default_factory=SpeedSizes)
    copy_bytes: int = 4 << 30  # of the copy that measures memory bandwidth
    matmul: int = 8192  # side of the matrices that measure arithmetic

    def shapes(self) -> dict[str, Shape]:
        """The models of random weights whose speed is measured, by stage name."""
        if self.toy:
            return {"speed-toy": TOY_SHAPE}
        names = {"speed-0.5b": "Qwen/Qwen2.5-0.5B", "speed-1.5b": "Qwen/Qwen2.5-1.5B"}
        found = {stage: find_shape(name) for stage, name in names.items()}
        return {stage: shape for stage, shape in found.items() if shape is not None}

    def describe(self) -> dict[str, Any]:
        """The job as JSON, to compare with that of a run to be continued."""
        return {
            "device": self.device,
            "toy": self.toy,
            "model": Path(self.model).name,
            "recipe": self.recipe.read_text(),
        }


def full_job(model: str, device: str = "cuda") -> Job:
    """The run on a card."""
    return Job(device, False, model, HERE / "full.yaml", (f"policy.model={model}",))


def toy_job(device: str = "cpu") -> Job:
    """The same stages in seconds, on a CPU or on a card."""
    sizes = SpeedSizes(
        rows=4, prompt=20, new=6, turns=2, turn=8, update_rows=4, update_tokens=24, micro_tokens=64,
        generate_rows=4, dynamic_rows=4,
    )  # fmt: skip
    settings = (f"policy.device={device}",)
    return Job(device, True, "tiny", HERE / "toy.yaml", settings, sizes, copy_bytes=1 << 20, matmul=128)
