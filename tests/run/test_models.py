"""Building and loading models."""

from __future__ import annotations

import pytest

from repro_rl.config import ApiSection, PolicySection, PromptSection, load_config
from repro_rl.errors import ConfigError
from repro_rl.run import models
from repro_rl.run.api_model import api_policy
from repro_rl.run.setup import set_up


def test_initial_model_is_built_whole_or_not_at_all(tmp_path, monkeypatch):
    rooms = "env.settings={train_rooms: 2, validation_rooms: 1, test_rooms: 1}"
    config = load_config(None, [rooms, "prompt={resolution: 10}", "policy={device: cpu}"])
    setup = set_up(config)

    def killed(folder, words, size, seed):
        (folder / "config.json").write_text("{}")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(models, "build_tiny", killed)
        with pytest.raises(KeyboardInterrupt):
            setup.initial_model((), tmp_path / "initial")
    folder = setup.initial_model((), tmp_path / "initial")
    text = models.load_policy(config.policy, folder).codec
    for word in ("left", "p50", "t15", "reflect", *setup.pool.first.vocabulary()):
        assert text.decode(text.encode(word)) == word
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    assert setup.initial_model((), folder) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp


def test_another_model_than_tiny_is_its_own_beginning(tmp_path):
    setup = set_up(load_config(None, ["policy.model=Qwen/Qwen3-0.6B"]))
    assert setup.initial_model((), tmp_path / "initial") == "Qwen/Qwen3-0.6B"
    assert not (tmp_path / "initial").exists()


def test_an_api_model_has_no_weights_here():
    with pytest.raises(ConfigError, match="api:someone: an API model has no weights here"):
        models.load_policy(PolicySection(), "api:someone")
    with pytest.raises(ConfigError, match="cannot read the compact prompts"):
        api_policy(ApiSection(), PromptSection(style="compact"), "api:someone")


def test_a_reference_is_loaded_as_far_as_it_is_needed(tiny_folder):
    section = PolicySection(device="cpu")
    policy = models.load_policy(section, tiny_folder, training=True)
    none, for_kl, for_judge = (
        models.load_reference(section, policy, tiny_folder, kl=kl, judge=judge)
        for kl, judge in ((False, False), (True, False), (False, True))
    )
    assert (none.model, none.judge_policy) == (None, None)
    assert for_kl.judge_policy is None
    assert for_kl.model is not policy.model
    assert not any(parameter.requires_grad for parameter in for_kl.model.parameters())
    assert for_judge.model is None
    assert for_judge.judge_policy is not policy
