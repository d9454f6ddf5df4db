"""Settings of a run that somebody else made."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from repro_rl.config import RunConfig, dump_config, load_config, load_run_config
from repro_rl.config.trust import NOT_TRUSTED, signed_config
from repro_rl.errors import ConfigError


def foreign(folder: Path, *overrides: str, edit: dict[str, Any] | None = None) -> Path:
    """A run folder whose settings nobody signed."""
    folder.mkdir()
    data = yaml.safe_load(dump_config(load_config("sokoban-qwen3", list(overrides))))
    (folder / "config.yaml").write_text(yaml.safe_dump({**data, **(edit or {})}))
    return folder


RISKY = (
    "api.base_url=http://127.0.0.1:9/v1",
    "api.key_env=AWS_SECRET_ACCESS_KEY",
    "api.cache=/tmp/elsewhere",
    "api.extra={n: 100}",
    "policy.trust_remote_code=true",
    "policy.vllm.server.url=http://127.0.0.1:9",
    "policy.vllm.server.key_env=GITHUB_TOKEN",
    "policy.vllm.server.weights=/tmp/w",
    "prompt.template_dir=/tmp/t",
    "env.settings.levels=/etc",
)


@pytest.mark.parametrize("override", RISKY)
def test_each_risky_setting_of_a_foreign_run_is_refused_by_name(tmp_path: Path, override: str) -> None:
    run = foreign(tmp_path / "run", override)
    name = override.partition("=")[0]
    with pytest.raises(ConfigError, match=name.replace(".", r"\.")) as caught:
        load_run_config(run)
    assert f"-c {run / 'config.yaml'}" in str(caught.value)
    assert load_run_config(run, allow=lambda question: name in question) == load_config(run / "config.yaml")
    assert load_run_config(run, [override]) == load_config(run / "config.yaml")
    # the same settings, written here
    (run / "config.yaml").write_text(signed_config((run / "config.yaml").read_text()))
    assert load_run_config(run) == load_config(run / "config.yaml")
    # and edited since
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("seed: 0", "seed: 1", 1))
    with pytest.raises(ConfigError, match="edited since"):
        load_run_config(run)


def test_plugins_of_a_foreign_run_are_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "evil_module.py").write_text("raise SystemExit('ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    run = foreign(tmp_path / "run", edit={"plugins": ["evil_module"]})
    with pytest.raises(ConfigError, match=r"plugins = \['evil_module'\]: imports Python modules"):
        load_run_config(run)
    assert "evil_module" not in sys.modules
    assert load_run_config(run, ["plugins=[]"]).plugins == []
    assert load_run_config(run, ["plugins=[json]"]).plugins == ["json"]  # only what was named


def test_a_base_cannot_bring_them_in(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "more.yaml").write_text("base: sokoban-qwen3\napi: {key_env: HOME}\n")
    (run / "config.yaml").write_text("base: more.yaml\nseed: 1\n")
    with pytest.raises(ConfigError, match=r"api\.key_env = 'HOME'"):
        load_run_config(run)


def test_harmless_settings_need_no_word(tmp_path: Path) -> None:
    run = foreign(tmp_path / "run", "seed=3", "train.init=/warm/model", "api.model=m", "eval.tasks=3")
    assert load_run_config(run, ["eval.tasks=4"]).eval.tasks == 4
    (run / "rooms.txt").write_text("data of the run itself")
    inside = foreign(tmp_path / "other", f"env.settings.levels={tmp_path / 'other' / 'rooms.txt'}")
    assert load_run_config(inside).env.settings["levels"].endswith("rooms.txt")


def test_a_key_written_as_a_name_is_not_shown(tmp_path: Path) -> None:
    run = foreign(tmp_path / "run", edit={"api": {"key_env": "sk-123"}})
    with pytest.raises(ConfigError, match=r"api\.key_env = \(not shown\)") as caught:
        load_run_config(run)
    assert "sk-123" not in str(caught.value)


def test_settings_of_an_unknown_environment(tmp_path: Path) -> None:
    section = {"name": "theirs", "settings": {"url": "http://x", "size": 3}}
    run = foreign(tmp_path / "run", edit={"env": section})
    with pytest.raises(ConfigError, match=r"env\.settings\.url") as caught:
        load_run_config(run)
    assert "size" not in str(caught.value)


def test_sections_of_wrong_types_are_only_wrong(tmp_path: Path) -> None:
    run = foreign(tmp_path / "run", edit={"api": 5, "env": ["x"], "plugins": "os"})
    with pytest.raises(ConfigError, match="plugins"):
        load_run_config(run)
    with pytest.raises(ConfigError, match="api"):
        load_run_config(run, ["plugins=[]"])


def _names(section: type[BaseModel], prefix: str = "") -> list[str]:
    names = []
    for name, field in section.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names += _names(kind, f"{prefix}{name}.")
        else:
            names.append(prefix + name)
    return names


def test_no_setting_of_the_kinds_that_need_trust_is_forgotten() -> None:
    words = ("url", "key_env", "cache", "plugin", "code", "_dir", "weights", "extra", "command", "module")
    words += ("callbacks", "trackers", "address", "eval.panel")
    harmless = {  # sizes and numbers
        *("policy.max_cache_tokens", "policy.static_cache", "policy.vllm.cache_gb"),
        *("warmup.weight_decay", "train.weight_decay"),
    }
    found = {name for name in _names(RunConfig) if any(word in name for word in words)} - harmless
    assert found == set(NOT_TRUSTED)
