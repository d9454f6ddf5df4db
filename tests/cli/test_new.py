"""``repro-rl new`` writes a package that tests itself, and is found by plug-in and by entry point."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from repro_rl.cli.new import Part, names_of, write_package
from repro_rl.config import METHODS, load_config
from repro_rl.config.methods import METHOD_LOSSES
from repro_rl.credit import SOURCES
from repro_rl.demos import load_demos
from repro_rl.errors import ConfigError
from repro_rl.losses import LOSS_NAMES
from repro_rl.run.setup import set_up
from repro_rl.train import RLRun

SOURCE = Path(__file__).parents[2] / "src"


def run(folder: Path, *arguments: str, path: Path | None = None) -> str:
    """The output of ``python -m`` with these arguments; ``path`` comes first on PYTHONPATH."""
    paths = [str(part) for part in (path, SOURCE) if part is not None]
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def announce(package: Path) -> None:
    """What pip would write beside the module: the entry points of pyproject.toml."""
    project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    info = package / "src" / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0.1.0\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


def listed(part: Part, name: str, kind: str, words: str, package: Path) -> str:
    """What ``list`` prints of a package's part by plug-in; it has ``words``, also by entry point."""
    write_package(part, name, package)
    command, source = ("repro_rl", "list", kind), package / "src"
    found = run(package.parent, *command, f"plugins=[{names_of(name)['module']}]", path=source)
    assert words in found
    announce(package)
    assert words in run(package.parent, *command, path=source)
    return found


@pytest.mark.parametrize("part", list(Part))
def test_the_package_tests_itself(part: Part, tmp_path: Path) -> None:
    write_package(part, "my-own", tmp_path / "package")
    out = run(tmp_path / "package", "pytest", "-q", "-p", "no:cacheprovider")
    assert "passed" in out
    assert "failed" not in out


@pytest.mark.parametrize("part", list(Part))
def test_its_readme_says_where_to_install_it(part: Part, tmp_path: Path) -> None:
    write_package(part, "my-own", tmp_path / "package")
    text = (tmp_path / "package" / "README.md").read_text()
    assert "environment in which repro-rl is installed" in text
    assert "pypi.org" not in text


def test_an_environment_is_found_by_plugin_and_by_entry_point(tmp_path: Path) -> None:
    package = tmp_path / "package"
    write_package(Part.env, "My_Maze", package)
    source = package / "src"
    assert "expert wins" in run(tmp_path, "repro_rl", "doctor", "My_Maze", "plugins=[my_maze]", path=source)
    play = ("repro_rl", "play", "My_Maze", "--expert")
    assert "Solved after" in run(tmp_path, *play, "plugins=[my_maze]", path=source)
    assert "My_Maze" in run(tmp_path, "repro_rl", "list", "environments", "plugins=my_maze", path=source)
    announce(package)
    assert "Walk to the treasure and dig it up." in run(
        tmp_path, "repro_rl", "list", "environments", path=source
    )
    assert "Solved after" in run(tmp_path, *play, path=source)


def test_every_split_of_the_environment_has_all_its_words(tmp_path: Path) -> None:
    """A tiny model that never read the word of a room as a goal cannot win there."""
    package = tmp_path / "package"
    write_package(Part.env, "my-maze", package)
    code = (
        "from my_maze import MyMaze\n"
        "env = MyMaze()\n"
        "for split in ('train', 'validation', 'test'):\n"
        "    tasks = [env.tasks[task] for task in env.panel(split).ids]\n"
        "    print(*(set(rooms) == set(range(12)) for rooms in zip(*tasks)))\n"
    )
    (package / "read.py").write_text(code)
    assert run(package, "read", path=package / "src").split() == ["True"] * 6


def test_a_credit_rule_is_found_by_plugin_and_by_entry_point(tmp_path: Path) -> None:
    package = tmp_path / "package"
    listed(Part.credit_rule, "to-go", "credit-rules", "less its mean over", package)
    source = package / "src"
    # The file's method has the rule; another one, and an arm of a study, keeps its own.
    (package / "read.py").write_text(
        "from repro_rl.config import load_config\n"
        "from repro_rl.study.definition import load_study, run_config\n"
        "print(load_config('to-go.yaml').method.credit)\n"
        "study = load_study('credit-zoo-alfworld', recipe='to-go.yaml', methods=['gigpo', 'to-go', 'grpo'])\n"
        "print(*(run_config(study, arm).method.credit for arm in study.methods), *study.references)\n"
    )
    assert run(package, "read", path=source).split() == ["to-go", "gigpo", "to-go", "grpo", "gigpo"]


def test_a_policy_loss_is_found_by_plugin_and_by_entry_point_and_trains(
    warm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    found = listed(Part.loss, "half-negative", "losses", "The loss of each of T sampled tokens", package)
    assert "clip_high" in found
    monkeypatch.syspath_prepend(package / "src")
    short = ("groups=4", "group_size=3", "minibatches=2", "validate_every=0", "epochs=2", "record_every=0")
    with LOSS_NAMES.isolated(), METHODS.isolated(), METHOD_LOSSES.isolated():
        settings = [*warm.settings, *(f"train.{setting}" for setting in short), f"train.init={warm.model}"]
        loss = ["plugins=[half_negative]", "method=half-negative"]
        file = package / "half-negative.yaml"
        config = load_config(file)
        assert (config.method.credit, config.train.loss.name) == ("gigpo", "half-negative")
        assert config.train.loss.values() == {"clip_high": 0.2, "negative": 0.5}
        assert load_config(file, ["method.name=gigpo"]).train.loss.name == "ppo_clip"
        row = RLRun(set_up(load_config(None, [*settings, *loss, "train.lr=0.01"])), tmp_path / "run").step()
        assert row["update/grad_norm"] > 0
        assert 0 <= row["update/clip_fraction"] <= 1
    sys.modules.pop("half_negative")


def test_a_progress_source_is_found_by_plugin_and_by_entry_point_and_trains(
    warm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    words = "The share of the episode's accepted actions done so far"
    assert "power=1.0" in listed(Part.progress_source, "accepted-share", "progress-sources", words, package)
    monkeypatch.syspath_prepend(package / "src")
    short = ("groups=4", "group_size=3", "minibatches=2", "validate_every=0", "epochs=2", "record_every=0")
    with SOURCES.isolated(), METHODS.isolated():
        settings = [*warm.settings, *(f"train.{setting}" for setting in short), f"train.init={warm.model}"]
        own = ["plugins=[accepted_share]", "method=accepted-share", "method.beta=1"]
        config = load_config(package / "accepted-share.yaml")
        assert (config.method.credit, config.method.shaping) == ("gigpo", "accepted-share")
        assert config.method.progress_settings == {"accepted-share": {"power": 1.0}}
        assert load_config(package / "accepted-share.yaml", ["method.name=gigpo"]).method.shaping == "none"
        row = RLRun(set_up(load_config(None, [*settings, *own, "train.lr=0.01"])), tmp_path / "run").step()
        assert row["update/grad_norm"] > 0
        assert row["reward/shaping"] > 0  # some action of some episode was accepted
    sys.modules.pop("accepted_share")


def test_an_annotator_is_found_by_plugin_and_by_entry_point_and_labels(tmp_path: Path) -> None:
    package = tmp_path / "package"
    words = "The share of the episode's accepted actions done so far, in percent"
    listed(Part.annotator, "half-way", "annotators", words, package)
    few = ("demos.expert=2", "demos.winning=2", "demos.failing=2")
    run(package, "repro_rl", "demos", "-c", "half-way.yaml", *few, "-o", "demos", path=package / "src")
    _, labelled = load_demos(package / "demos")
    assert len(labelled) == 4
    for trajectory in labelled:
        values = trajectory.reflection.values
        assert values is not None
        accepted = sum(step.valid for step in trajectory.steps)
        most = 100 if trajectory.won else 50 if accepted else 0
        assert values[-1] == most


@pytest.mark.parametrize("name", ["oracle", "none", "outcome"])
def test_names_of_sources_are_taken(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"The source of progress '{name}' exists already"):
        write_package(Part.progress_source, name, tmp_path / "package")


@pytest.mark.parametrize("name", ["ppo_clip", "opid"])
def test_names_of_the_package_s_losses_are_taken(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"The policy loss '{name}' exists already"):
        write_package(Part.loss, name, tmp_path / "package")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sokoban", "exists already"),
        ("json", "A module 'json' is installed already"),
        ("9lives", "must begin with a letter"),
        ("a/../b", "must begin with a letter"),
        ("class", "a word of Python"),
        ("my--maze", "must begin with a letter"),
    ],
)
def test_names_that_cannot_be(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        write_package(Part.env, name, tmp_path / "package")
    assert not (tmp_path / "package").exists()


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not empty"):
        write_package(Part.env, "my-maze", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_name_gives_a_module_a_class_and_a_function() -> None:
    assert names_of("My-big_Maze") == {
        "name": "My-big_Maze",
        "package": "my-big_maze",
        "module": "my_big_maze",
        "cls": "MyBigMaze",
        "function": "my_big_maze_advantages",
    }
