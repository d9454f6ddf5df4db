"""``repro-rl data qwen-tokenizer``, ``qwen-untrained``, ``merge-lora``: folders of models and tokenizers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from repro_rl.cli.show import say

Ranks = Annotated[Path, typer.Argument(help="Qwen's BPE ranks, qwen.tiktoken", show_default=False)]
Out = Annotated[Path, typer.Argument(help="folder to write to", show_default=False)]


def tokenizer(
    ranks: Ranks,
    out: Out,
    family: Annotated[
        str, typer.Option(help="qwen2.5 or qwen3: control tokens and chat template")
    ] = "qwen2.5",
) -> None:
    """Build Qwen's tokenizer from its BPE ranks, as a Hugging Face folder."""
    from repro_rl.files import only_maker
    from repro_rl.policy.tokens.qwen_tokenizer import write_tokenizer

    with only_maker(out, "writer of a tokenizer"):
        say(f"Tokenizer of {family} in {write_tokenizer(ranks, out, family)}")


def untrained(
    model: Annotated[str, typer.Argument(help="hub name, such as Qwen/Qwen2.5-0.5B", show_default=False)],
    ranks: Ranks,
    out: Out,
    seed: Annotated[int, typer.Option(help="of the random weights")] = 0,
) -> None:
    """Write random weights with a Qwen checkpoint's shape and tokenizer, to rehearse a run with."""
    from repro_rl.files import only_maker
    from repro_rl.policy.loading.qwen_shapes import build_untrained

    with only_maker(out, "writer of a model"):
        say(f"Random weights of the shape of {model} in {build_untrained(out, model, ranks, seed)}")


def merge_lora(
    path: Annotated[Path, typer.Argument(help="a run folder, or one of its checkpoints", show_default=False)],
    out: Out,
    checkpoint: Annotated[str, typer.Option(help="best, last or an iteration")] = "last",
) -> None:
    """Add a checkpoint's adapter to the weights it was trained on: an ordinary model folder in float32."""
    from repro_rl.config import PolicySection
    from repro_rl.files import only_maker, write_folder
    from repro_rl.policy import TransformersPolicy
    from repro_rl.run.model_paths import find_model

    model = find_model(path, checkpoint)
    policy = TransformersPolicy.load(model, PolicySection(device="cpu", dtype="float32"))
    with only_maker(out, "writer of a model"):
        write_folder(out, policy.save_merged)
    say(f"{model} as a whole model in {out}")
