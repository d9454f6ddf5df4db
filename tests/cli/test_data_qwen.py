"""``repro-rl data qwen-tokenizer``."""

from __future__ import annotations

from repro_rl.policy import load_codec
from support.command import run_command
from support.qwen import real_ranks


def test_the_command_builds_a_folder(tmp_path, capsys, monkeypatch):
    status, out = run_command(
        capsys, monkeypatch, "data", "qwen-tokenizer", str(real_ranks()), str(tmp_path / "t")
    )
    assert status == 0
    assert "Tokenizer of qwen2.5" in out
    text = load_codec(tmp_path / "t")
    assert len(text.tokenizer) == 151_665
    assert text.tokenizer.decode(text.encode("Hi")) == (
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
