"""Token counts and their summaries."""

from __future__ import annotations

import pytest

from repro_rl import make
from repro_rl.config import PolicySection
from repro_rl.errors import CheckpointError
from repro_rl.plan.tokens import CHARACTERS, CharacterCodec, count_tokens, find_codec, quantiles, share_over
from repro_rl.policy import TransformersPolicy, load_codec
from repro_rl.text import PromptBuilder, TextFormat
from support.gguf_files import byte_level_keys, random_model, write_gguf


def test_quantiles_and_shares():
    assert quantiles([1, 2, 3, 100]) == (3, 86, 100)
    assert share_over([1, 2, 3, 100], 2) == 0.5
    assert share_over([], 2) == 0


def test_every_step_of_every_episode_is_counted():
    env = make("sokoban", train_rooms=4, validation_rooms=2, test_rooms=2, solution=[2, 5], max_steps=6)
    tasks = env.panel("train").ids[:2]
    prompts = PromptBuilder(TextFormat("full", progress=True, think="optional"))
    table = count_tokens(env, tasks, prompts, CharacterCodec(), noises=(0.0, 1.0))
    assert len(table.episode_steps) == len(table.reflect) == len(table.reflect_target) == 4
    assert len(table.action) == len(table.action_target) == sum(table.episode_steps)
    assert table.shared_prefix == round(len(env.instructions) / CHARACTERS)
    assert min(table.action) > table.shared_prefix > 0
    assert table == count_tokens(env, tasks, prompts, CharacterCodec(), noises=(0.0, 1.0))
    compact = PromptBuilder(TextFormat("compact", progress=True, think="off"))
    assert count_tokens(env, tasks, compact, CharacterCodec()).shared_prefix == 0


def test_an_episode_in_chat_is_counted_turn_by_turn():
    """By hand: a later turn has no instructions, so all turns together are far shorter than all prompts."""
    env = make("sokoban", train_rooms=4, validation_rooms=2, test_rooms=2, solution=[2, 5], max_steps=6)
    tasks = env.panel("train").ids[:2]
    prompts = PromptBuilder(TextFormat("full", progress=True, think="off"))
    table = count_tokens(env, tasks, prompts, CharacterCodec(), chat=True, noises=(0.0, 1.0))
    assert len(table.action) == sum(table.episode_steps)
    assert table.shared_prefix == 0
    starts = [sum(table.episode_steps[:i]) for i in range(len(table.episode_steps))]
    instructions = round(len(env.instructions) / CHARACTERS)
    for index, count in enumerate(table.action):
        assert (count > instructions) is (index in starts)
    window = count_tokens(env, tasks, prompts, CharacterCodec(), noises=(0.0, 1.0))
    assert table.action_target == window.action_target
    assert table.reflect_target == window.reflect_target
    assert max(table.reflect) < min(window.reflect)  # the conversation has shown the steps already
    prompts = PromptBuilder(TextFormat("full", progress=True, think="off"), guided=True)
    guided = count_tokens(env, tasks, prompts, CharacterCodec(), chat=True, noises=(0.0, 1.0))
    assert guided.reflect_target == [steps * round(2 / CHARACTERS) for steps in table.episode_steps]
    for before, after in ((table.reflect, guided.reflect), (table.reflect_target, guided.reflect_target)):
        assert before != after
    assert [sum(pair) for pair in zip(table.reflect, table.reflect_target, strict=True)] == [
        sum(pair) for pair in zip(guided.reflect, guided.reflect_target, strict=True)
    ]


def test_a_gguf_files_tokenizer_needs_no_conversion(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_RL_CACHE", str(tmp_path / "cache"))
    keys = byte_level_keys()
    model = random_model("qwen2", len(keys["tokenizer.ggml.tokens"]))
    file = write_gguf(tmp_path / "m.gguf", model, "qwen2", keys)
    codec, _ = find_codec(None, (None, str(file)), "auto", False)
    assert codec is not None
    assert not (tmp_path / "cache").exists()
    assert codec.encode("go to drawer 1") == load_codec(file).encode("go to drawer 1")
    assert codec.turn_size("You see", first=True) == len(codec.encode("You see"))


def test_a_models_tokenizer_counts_as_the_policy_does(tiny_folder):
    policy = TransformersPolicy.load(tiny_folder, PolicySection(device="cpu"))
    codec, _ = find_codec(tiny_folder, (), "auto", False)
    assert codec is not None
    assert codec.encode("left right a b") == tuple(policy.codec.encode("left right a b"))
    assert len(codec.plain_ids("left right a b")) == 4


def test_the_first_model_with_a_tokenizer_is_taken(tiny_folder, tmp_path):
    codec, unusable = find_codec(None, (None, "tiny", str(tmp_path), str(tiny_folder)), "auto", False)
    assert codec is not None
    assert [line.startswith(f"The tokenizer of {tmp_path} cannot be used: ") for line in unusable] == [True]
    assert len(codec.plain_ids("left right")) == 2
    assert find_codec(None, (str(tmp_path),), "auto", False)[0] is None
    assert find_codec(None, ("nobody/never-downloaded",), "auto", False) == (None, [])
    codec, unusable = find_codec(None, (str(tiny_folder),), "on", False)  # which has no chat template
    assert codec is None
    assert "chat" in unusable[0]
    with pytest.raises(CheckpointError):
        find_codec(tmp_path, (str(tiny_folder),), "auto", False)


def test_characters_stand_for_tokens():
    assert len(CharacterCodec().encode("x" * 36)) == 10
