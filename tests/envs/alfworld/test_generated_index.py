"""The cached ids and content keys of generated games are those of the games, whatever the cache holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from repro_rl.envs.alfworld import generated_index as module
from repro_rl.envs.alfworld.game import content_key
from repro_rl.envs.alfworld.generated_index import generated_index
from repro_rl.envs.alfworld.households import household

WANT = [(home.id, content_key(home.data)) for home in (household("valid_seen", n, 5) for n in range(4))]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the games that were made, with an empty cache."""
    monkeypatch.setenv("REPRO_RL_CACHE", str(tmp_path))
    numbers = []

    def counted(split: str, number: int, seed: int):
        numbers.append(number)
        return household(split, number, seed)

    monkeypatch.setattr(module, "household", counted)
    return numbers


def cached(tmp_path: Path) -> Path:
    (file,) = (tmp_path / "alfworld").iterdir()
    return file


def test_games_are_made_once(made: list[int]) -> None:
    assert generated_index("valid_seen", 3, 5) == WANT[:3]
    assert made == [0, 1, 2]
    assert generated_index("valid_seen", 3, 5) == WANT[:3]
    assert generated_index("valid_seen", 2, 5) == WANT[:2]
    assert made == [0, 1, 2, 2, 1]  # only the last one is made to compare
    assert generated_index("valid_seen", 4, 5) == WANT
    assert made[5:] == [0, 1, 2, 3]
    assert generated_index("valid_seen", 0, 5) == []


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"games": 3}', '{"games": [1, 2, 3]}', '{"games": [["a", "b"], ["c", "d"], ["e", "f"]]}'],
)
def test_a_cache_that_holds_something_else_is_made_again(
    content: str, made: list[int], tmp_path: Path
) -> None:
    generated_index("valid_seen", 3, 5)
    cached(tmp_path).write_text(content)
    assert generated_index("valid_seen", 3, 5) == WANT[:3]
    assert json.loads(cached(tmp_path).read_text()) == {"games": [list(game) for game in WANT[:3]]}


def test_without_a_writable_cache_the_games_are_made_each_time(
    made: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("REPRO_RL_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        assert generated_index("valid_seen", 2, 5) == WANT[:2]
    assert made == [0, 1, 0, 1]


def test_another_generator_has_a_cache_of_its_own(
    made: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generated_index("valid_seen", 1, 5)
    monkeypatch.setattr(module, "_generator", lambda: "other")
    generated_index("valid_seen", 1, 5)
    assert len(list((tmp_path / "alfworld").iterdir())) == 2
