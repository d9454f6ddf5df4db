"""What is run: models, sizes and settings, in full size for a GPU or as a toy that rehearses it on a CPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repro_rl.policy.qwen_shapes import Shape, find_shape

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


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that decides what a run measures; equal jobs may be continued."""

    device: str
    toy: bool
    model: str  # folder, hub name or GGUF file of a pretrained model; "tiny": the embedded one
    train: tuple[str, ...]  # settings of the trained run, on top of ``recipe``
    recipe: str | None
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
        settings = {"device": self.device, "toy": self.toy, "model": Path(self.model).name}
        return settings | {"train": list(self.train), "recipe": self.recipe}


FULL_TRAIN = (
    "env={name: alfworld, settings: {style: text, version: '0.3', max_steps: 30, games: 300}}",
    "prompt={style: full, think: 'off', report: before, context: chat, action_tokens: 32}",
    "prompt={reflect_new_tokens: 320, max_prompt_tokens: 1024, max_chat_tokens: 8192}",
    "policy={device: cuda, static_cache: auto, max_batch_tokens: 65536, max_cache_tokens: 1048576}",
    "demos={expert: 400, winning: 150, failing: 250, noise: [0.25, 0.5]}",
    "warmup={updates: 60, forward_from: 0, forward_batch: 24, reflect_batch: 8, lr: 2.0e-4, lr_end: 0.2}",
    "train={iterations: 1000, groups: 16, group_size: 8, lr: 3.0e-6, lr_warmup: 2, epochs: 1}",
    "train={minibatches: 4, micro_tokens: 32768, kl: {form: k3, coef: 0.01}}",
    "train={save_every: 5, eval_every: 0, record_every: 0}",
    "eval={validation_tasks: 64}",
    "alarms={patience: 0}",
)
TOY_TRAIN = (
    "env={name: sokoban, settings: {style: relative, train_rooms: 8, validation_rooms: 4, test_rooms: 4, "
    "solution: [2, 4], max_steps: 4}}",
    "policy={model: tiny, device: cpu, static_cache: 'on'}",
    "policy.tiny={hidden: 16, heads: 2, kv_heads: 1, ffn: 32}",
    "prompt={style: compact, context: chat, resolution: 50, action_tokens: 3, reflect_new_tokens: 26}",
    "demos={expert: 8, winning: 4, failing: 4}",
    "warmup={updates: 3, forward_from: 0, forward_batch: 4, reflect_batch: 4, lr: 0.01}",
    "train={iterations: 5, groups: 2, group_size: 2, minibatches: 1, save_every: 1, eval_every: 0}",
    "method.judge_pool=none",
    "eval={validation_tasks: 4}",
    "alarms={patience: 0}",
)


def full_job(model: str, device: str = "cuda") -> Job:
    """The run on a card."""
    train = (*FULL_TRAIN, f"policy.model={model}")
    return Job(device, False, model, train, None)


def toy_job() -> Job:
    """The same stages on a CPU, in seconds."""
    sizes = SpeedSizes(
        rows=4, prompt=20, new=6, turns=2, turn=8, update_rows=4, update_tokens=24, micro_tokens=64,
        generate_rows=4,
    )  # fmt: skip
    return Job("cpu", True, "tiny", TOY_TRAIN, "sokoban-tiny", speed=sizes, copy_bytes=1 << 20, matmul=128)
