"""The shipped recipes: the paper's rows hold the reference settings; ``base`` layers settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from repro_rl import make
from repro_rl.config import load_config, read_settings, recipe_names
from repro_rl.errors import ConfigError
from repro_rl.policy.loading.qwen_shapes import find_shape

# The reference settings of docs/method.md: (environment, model, step limit, task groups).
ROWS = {
    "webshop-1.5b": ("webshop", "Qwen/Qwen2.5-1.5B-Instruct", 15, 16),
    "webshop-3b": ("webshop", "Qwen/Qwen2.5-3B-Instruct", 15, 16),
    "webshop-7b": ("webshop", "Qwen/Qwen2.5-7B-Instruct", 15, 16),
    "alfworld-1.5b": ("alfworld", "Qwen/Qwen2.5-1.5B-Instruct", 50, 16),
    "alfworld-7b": ("alfworld", "Qwen/Qwen2.5-7B-Instruct", 50, 16),
    "sokoban-4b": ("sokoban", "Qwen/Qwen3-4B", 15, 32),
}


def test_the_rows_are_the_papers():
    assert [name for name in recipe_names() if name.startswith("paper/")] == sorted(
        f"paper/{r}" for r in ROWS
    )


@pytest.mark.parametrize("row", ROWS)
def test_a_row_holds_the_reference_settings(row):
    config = load_config(f"paper/{row}")
    env_name, model, max_steps, groups = ROWS[row]
    assert (config.env.name, config.policy.model) == (env_name, model)
    assert find_shape(model) is not None
    env = make(config.env.name, **config.env.settings)
    assert env.max_steps == max_steps
    train, method, prompt = config.train, config.method, config.prompt
    assert (train.groups, train.group_size, train.iterations) == (groups, 8, 150)
    assert (train.lr, train.clip) == (1e-6, 0.2)
    assert (train.kl.form, train.kl.coef) == ("k3", 0.01)
    assert (method.gamma, method.omega, method.invalid_penalty) == (0.95, 1.0, 0.1)
    assert method.anchor_key == "observation"  # anchor states as published
    assert (prompt.style, prompt.history) == ("full", 2)
    assert (prompt.max_prompt_tokens, prompt.action_tokens) == (2048, 512)
    assert config.eval.temperature == 0.4
    # One line of at most 10 tokens a step and the tags: the answer fits without a thought.
    assert prompt.reflect_new_tokens >= 10 * max_steps + 10
    assert len(env.panel(config.eval.split)) >= config.eval.tasks
    assert len(env.panel(config.eval.validation_split)) >= config.eval.validation_tasks


@pytest.mark.parametrize("env", ["alfworld", "webshop", "sokoban"])
def test_recipes_for_models_that_read(env):
    """Full text, one conversation an episode, no thoughts; an adapter with the measured rates is trained."""
    small, large = load_config(f"{env}-135m"), load_config(f"{env}-0.5b")
    for config in (small, large):
        prompt, train = config.prompt, config.train
        assert config.env.name == env
        assert (prompt.style, prompt.context, prompt.think) == ("full", "chat", "off")
        assert (prompt.admissible, prompt.reflect_form) == ("off", "guided")
        assert config.demos.agent == "reader"
        assert train.groups * train.group_size <= 16  # an iteration of minutes on one core
        steps = config.env.settings["max_steps"]
        assert prompt.reflect_new_tokens >= 10 * steps + 10
        # The longest conversation: every turn and answer at its limit would not fit, typical ones do.
        assert prompt.max_chat_tokens >= prompt.max_prompt_tokens + steps * prompt.action_tokens
        assert config.policy.max_cache_tokens // prompt.max_chat_tokens >= train.groups * train.group_size
        assert train.groups * train.group_size // train.minibatches == 8  # episodes of an optimizer step
        assert (train.lr, train.lr_warmup) == (1e-4, 1)
    assert (small.policy.lora.rank, small.warmup.lr) == (32, 1e-3)
    assert large.policy.lora.rank == 16
    assert large.env == small.env
    assert large.prompt == small.prompt


def test_the_warmup_of_the_recipe_has_the_learning_rates_of_the_measured_one():
    """Which was planned for 200 updates, down to a tenth, and stopped after 80."""
    section = load_config("alfworld-135m").warmup

    def decay(end: float, updates: int) -> float:
        return 1 - (1 - end) * 40 / updates

    assert (section.updates, section.lr_warmup, section.branches) == (80, 10, 0)
    assert decay(section.lr_end, section.updates) == pytest.approx(decay(0.1, 200))


def test_older_names_are_the_papers_rows():
    for name, row in (("sokoban-qwen3", "sokoban-4b"), ("webshop-qwen2.5", "webshop-1.5b")):
        assert load_config(name) == load_config(f"paper/{row}")


def test_base_layers_settings(tmp_path, monkeypatch):
    below = tmp_path / "below.yaml"
    below.write_text("base: sokoban-tiny\ntrain: {groups: 8}\nenv: {settings: {max_steps: 19}}\n")
    above = tmp_path / "above.yaml"
    above.write_text("base: below.yaml\ntrain: {lr: 0.5}\n")
    tiny, config = load_config("sokoban-tiny"), load_config(above)
    assert (config.train.groups, config.train.lr) == (8, 0.5)
    assert config.train.minibatches == tiny.train.minibatches
    assert config.env.settings == {"style": "relative", "max_steps": 19}
    monkeypatch.chdir(tmp_path)
    assert read_settings("above.yaml") == read_settings(above)
    # Settings of another environment begin afresh.
    below.write_text("base: sokoban-tiny\nenv: {name: alfworld}\n")
    assert load_config(below).env.settings == {}


def test_base_says_what_is_wrong(tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("base: b.yaml\n")
    with pytest.raises(ConfigError, match=r"No config file at .*b\.yaml"):
        load_config(first)
    second.write_text("base: a.yaml\n")
    with pytest.raises(ConfigError, match=r"a\.yaml -> .*b\.yaml -> .*a\.yaml is circular"):
        load_config(first)
    first.write_text("base: paper/webshop-15b\n")
    with pytest.raises(ConfigError, match=r"did you mean 'paper/webshop-1.5b'.*must end in \.yaml"):
        load_config(Path(first))
    with pytest.raises(ConfigError, match="Unknown recipe 'sokoban-tinny'; did you mean 'sokoban-tiny'"):
        read_settings("sokoban-tinny")


def test_an_empty_section_below_is_replaced(tmp_path):
    (tmp_path / "below.yaml").write_text("env:\n")
    above = tmp_path / "above.yaml"
    above.write_text("base: below.yaml\nenv: {name: alfworld}\n")
    assert read_settings(above) == {"env": {"name": "alfworld"}}
