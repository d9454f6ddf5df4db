"""``repro-rl plan`` as a person types it."""

from __future__ import annotations

from support.command import run_command


def test_plan_prints_tokens_memory_and_hours(capsys, monkeypatch):
    status, out = run_command(
        capsys, monkeypatch, "plan", "paper/sokoban-4b", "--gpu", "h100", "--tasks", "1", "train.groups=8"
    )
    assert status == 0
    assert "Qwen/Qwen3-4B: 4,022,468,096 parameters" in out
    assert "64 episodes" in out
    assert not set("┏┃│└") & set(out)  # plain columns where there is no terminal


def test_plan_cannot_probe_a_model_that_is_elsewhere(capsys, monkeypatch):
    status, out = run_command(capsys, monkeypatch, "plan", "paper/sokoban-4b", "--probe")
    assert status == 2
    assert "is not on this machine" in out


def test_a_model_that_is_elsewhere_is_planned_for_gpus_and_says_so(capsys, monkeypatch):
    words = ("plan", "paper/sokoban-4b", "--tasks", "1", "train.groups=8")
    said = "Qwen/Qwen3-4B is not on this machine, so planned for GPUs; with policy.model=FOLDER"
    status, out = run_command(capsys, monkeypatch, *words)
    assert status == 0
    assert said in " ".join(out.split())
    assert "the model's own, or for a Qwen model one that" in " ".join(out.split())
    _, out = run_command(capsys, monkeypatch, *words, "--gpu", "h100")
    assert said not in " ".join(out.split())


def test_a_run_is_named_as_to_the_commands_that_train(capsys, monkeypatch, tmp_path):
    """-c, -m and --init, or the words alone; two configurations are refused."""
    words = ("--gpu", "h100", "--tasks", "1", "train.groups=8")
    _, by_word = run_command(capsys, monkeypatch, "plan", "paper/sokoban-4b", *words, "method.name=gigpo")
    status, by_option = run_command(
        capsys, monkeypatch, "plan", "-c", "paper/sokoban-4b", "-m", "gigpo", *words
    )
    assert status == 0
    assert by_option == by_word
    assert "acting, 0 reflection)" in by_option
    status, out = run_command(capsys, monkeypatch, "plan", "sokoban-tiny", "-c", "alfworld-tiny")
    assert status == 2
    assert "One config at a time; got sokoban-tiny, alfworld-tiny." in " ".join(out.split())
    status, out = run_command(capsys, monkeypatch, "plan", "--init", str(tmp_path / "none"))
    assert status == 2
    assert "none" in out
