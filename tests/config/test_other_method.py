"""What a file gives to its method, where another method is chosen."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import yaml

from repro_rl.config import METHODS, dump_config, load_config, register_method
from repro_rl.config.methods import METHOD_LOSSES
from repro_rl.config.other_method import for_chosen, owners
from repro_rl.config.recipe_files import joined, read_layers, recipe_names
from repro_rl.credit import CREDIT, SOURCES, register_credit, register_progress
from repro_rl.errors import ConfigError


@pytest.fixture
def my_rule():
    """A credit rule "my-rule" and a source "my-source" with settings, and the method "mine" with the rule."""
    with CREDIT.isolated(), SOURCES.isolated(), METHODS.isolated():

        @register_credit("my-rule")
        def my_rule(rewards, groups, anchors, settings, episode_returns, *, scale: float = 1.0):
            return rewards

        @register_progress("my-source")
        def my_source(trajectory, *, decay: float = 0.5):
            return [0.0] * len(trajectory.steps)

        register_method("mine", {**METHODS.get("gigpo"), "credit": "my-rule"})
        yield


def written(folder: Path, text: str, name: str = "my.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("recipe", recipe_names())
def test_every_method_is_itself_in_every_recipe(recipe: str) -> None:
    """No field that a method's preset sets is left with another value of the recipe, and nothing is told."""
    layers = [layer for _, layer in read_layers(recipe)]
    shared = joined(layers)["method"]
    for name in METHODS.names():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            section = for_chosen({"method": {**shared, "name": name}}, owners(layers))["method"]
        preset = METHODS.get(name)
        assert {key for key in preset.keys() & section.keys() if preset[key] != section[key]} == set(), name
        assert {**section, **preset} == {**shared, **preset, "name": name}, name


def test_the_recipe_s_other_settings_hold_for_every_method() -> None:
    for name in ("repro", "gigpo", "graphgpo"):
        method = load_config("paper/alfworld-1.5b", [f"method.name={name}"]).method
        assert (method.gamma, method.anchor_key, method.invalid_penalty) == (0.95, "observation", 0.1)
        assert method.normalize == ("mean_std" if name == "graphgpo" else "mean")


@pytest.mark.usefixtures("my_rule")
def test_a_file_s_rule_is_that_of_its_method_alone(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "base: sokoban-tiny\n"
        "method: {name: gigpo, credit: my-rule, credit_settings: {scale: 2}, gamma: 0.9}\n",
    )
    own = load_config(path, ["method.name=gigpo"]).method
    assert (own.credit, own.credit_settings, own.gamma) == ("my-rule", {"scale": 2.0}, 0.9)
    for name, credit in {"grpo": "grpo", "repro": "gigpo", "g2po": "g2po"}.items():
        with pytest.warns(UserWarning, match=f"'{name}' does not take method.credit=my-rule") as told:
            method = load_config(path, [f"method.name={name}"]).method
        assert (method.credit, method.credit_settings, method.gamma, method.beta) == (credit, {}, 0.9, 10)
        assert len(told) == 1
    # Another method with the same rule keeps the rule's settings.
    assert load_config(path, ["method.name=mine"]).method.credit_settings == {"scale": 2.0}
    # An override is meant for the method that is chosen.
    assert load_config(path, ["method.name=grpo", "method.credit=my-rule"]).method.credit == "my-rule"


@pytest.mark.usefixtures("my_rule")
@pytest.mark.parametrize("section", ["{credit: my-rule}", "{name: gigpo, credit: my-rule}"])
def test_the_file_s_method_is_that_of_the_layer(section: str, tmp_path: Path) -> None:
    written(tmp_path, f"base: sokoban-tiny\nmethod: {section}\n", "below.yaml")
    above = written(tmp_path, "base: below.yaml\nmethod: {name: grpo, gamma: 0.7}\n", "above.yaml")
    with pytest.warns(UserWarning, match="method.credit=my-rule"):
        method = load_config(above).method
    assert (method.name, method.credit, method.gamma, method.beta) == ("grpo", "grpo", 0.7, 10)


def test_a_name_alone_keeps_the_other_fields_of_the_base(tmp_path: Path) -> None:
    path = written(tmp_path, "base: sokoban-tiny\nmethod: gigpo\n")
    assert load_config(path).method == load_config("sokoban-tiny", ["method=gigpo"]).method
    assert load_config(path).method.beta == 10


@pytest.mark.usefixtures("my_rule")
def test_sources_and_their_settings_stay_with_the_file_s_method(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "base: sokoban-tiny\n"
        "method: {name: gigpo, shaping: my-source, progress_settings: {my-source: {decay: 0.75}}}\n",
    )
    assert load_config(path).method.progress_settings == {"my-source": {"decay": 0.75}}
    with pytest.warns(UserWarning, match="'repro-act' does not take method.shaping=my-source"):
        method = load_config(path, ["method.name=repro-act"]).method
    assert (method.shaping, method.progress_settings) == ("retrospective", {})


def test_settings_of_a_shipped_rule_go_with_it(tmp_path: Path) -> None:
    path = written(tmp_path, "method: {name: gagpo, gagpo: {lam: 0.5}}\n")
    assert load_config(path, ["method.name=gagpo-judged"]).method.gagpo.lam == 0.5
    assert load_config(path, ["method.name=gigpo"]).method.gagpo.lam != 0.5
    # Where the file's method does not use it, it is a mistake as before.
    path = written(tmp_path, "method: {gagpo: {lam: 0.5}}\n")
    with pytest.raises(ConfigError, match=r"method\.gagpo\.lam has no effect"):
        load_config(path, ["method.name=gigpo"])


@pytest.mark.parametrize("before", ["repro", "gagpo", "dr-grpo", "self-distill"])
def test_the_settings_of_a_run_serve_any_method(before: str, tmp_path: Path) -> None:
    """They name every field, and are what the recipe alone would give."""
    path = written(tmp_path, dump_config(load_config("sokoban-tiny", [f"method.name={before}"])))
    for name in ("repro", "gigpo", "gagpo", "graphgpo", "repro-act-graph-fixed-judge"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            now = load_config(path, [f"method.name={name}"])
        fresh = load_config("sokoban-tiny", [f"method.name={name}"])
        assert (now.method, now.train.loss) == (fresh.method, fresh.train.loss), name


def test_a_method_s_loss_stays_with_it(tmp_path: Path) -> None:
    path = written(tmp_path, "method: gagpo\ntrain: {loss: {clip_low: 0.1}}\n")
    assert load_config(path).train.loss.clip_low == 0.1
    with pytest.warns(UserWarning, match=r"'gigpo' does not take train\.loss\.clip_low=0\.1"):
        loss = load_config(path, ["method.name=gigpo"]).train.loss
    assert (loss.name, loss.clip_low) == ("ppo_clip", None)
    assert METHOD_LOSSES.get("gagpo")["name"] == "gspo"
    # A loss that neither method sets is for all of them.
    path = written(tmp_path, yaml.safe_dump({"method": "gigpo", "train": {"loss": {"name": "cispo"}}}))
    assert load_config(path, ["method.name=grpo"]).train.loss.name == "cispo"
