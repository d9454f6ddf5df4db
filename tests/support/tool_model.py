"""A tiny Qwen3 that has learned to call a tool, so that TRL's own loop of tool calls has something to run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from support.qwen import small_ranks, small_shape

START, END = "<tool_call>\n", "\n</tool_call>"


def teach_calls(folder: Path, calls: list[str], template: str, updates: int = 60) -> Path:
    """A model folder: whatever was said before, it answers with one of ``calls`` (JSON), each as likely.

    A call is one token, so that a model this small can say it. ``template``: a chat template with tools.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    from repro_rl.policy.tokens.qwen_tokenizer import build_tokenizer

    tokenizer: Any = build_tokenizer(small_ranks(), "qwen3")
    tokenizer.chat_template = template
    texts = [f"{START}{call}{END}" for call in calls]
    tokenizer.add_tokens(texts)
    ids = tokenizer.convert_tokens_to_ids(texts)
    shape = small_shape("qwen3", vocab_size=len(tokenizer), hidden_size=32)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**shape), dtype=torch.float32)
    begin = tokenizer("<|im_start|>assistant\n", add_special_tokens=False)["input_ids"]
    answers = torch.tensor([[*begin, call, tokenizer.eos_token_id] for call in ids])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(updates):  # whatever was said before: other bytes at every update
        before = torch.randint(256, (len(ids), 60))
        rows = torch.cat([before, answers], dim=1)
        labels = rows.clone()
        labels[:, :-2] = -100
        model(input_ids=rows, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
