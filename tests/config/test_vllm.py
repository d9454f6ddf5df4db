"""Settings of the vLLM backends."""

from __future__ import annotations

import pytest
import yaml

from repro_rl.config import dump_config, load_config, parse_config
from repro_rl.errors import ConfigError


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("policy.backend=vlm", r"policy\.backend.*'transformers', 'vllm' or 'vllm-server'"),
        ("policy.backend=vllm-server", r"policy\.vllm\.server\.url is empty"),
        ("policy.vllm.server.url=localhost:8000", "http://localhost:8000"),
        ("policy.vllm.server.url=http://user:secret@host", "without a user"),
        ("policy.vllm.server.key_env=sk-secret-123", "NAME of an environment variable"),
        ("policy.vllm.gpu_memory=1.5", "gpu_memory"),
        ("policy.vllm.servers=1", "did you mean 'server'"),
        ("train.importance_cap=0", "importance_cap"),
        ("train.importance_cap=never", "importance_cap"),
    ],
)
def test_wrong_settings_are_named(override, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(None, [override])
    assert "secret" not in str(caught.value)


def test_right_settings_survive_the_file():
    overrides = ["policy.backend=vllm-server", "policy.vllm.server.url=http://h:8000/v1/"]
    config = load_config(None, [*overrides, "train.importance_cap=off"])
    assert config.policy.vllm.server.url == "http://h:8000"
    assert config.train.importance_cap == "off"
    assert parse_config(yaml.safe_load(dump_config(config))) == config
    assert load_config(None, ["train.importance_cap=1.5"]).train.importance_cap == 1.5
    assert load_config(None).train.importance_cap == "auto"
    assert load_config(None).policy.backend == "transformers"
