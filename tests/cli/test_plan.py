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
