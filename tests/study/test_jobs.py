"""The commands of a study's jobs."""

from __future__ import annotations

from repro_rl.study.definition import load_study
from repro_rl.study.jobs import final_jobs


def test_commands_differ_only_where_the_arms_do(tmp_path):
    more = {"name": "repro-b2", "method": "repro", "set": ["method.beta=2"]}
    study = load_study(
        None,
        methods=["repro", more, "repro-no-warmup", "warmup-only"],
        seeds=[7],
        env_steps=1000,
        set=["train.lr=0.1"],
    )
    jobs = {job.name: job for job in final_jobs(study, tmp_path, {"repro": {"method.gamma": 0.9}})}
    warm = str(tmp_path / "warm" / "seed7" / "warmup")
    train, evaluate = jobs["run-repro-seed7"].commands
    # 64 groups of 8 episodes have at least 512 steps: 2 iterations cannot stop before 1000 steps.
    assert train == (
        *("train", "-c", "sokoban-tiny", "--method", "repro", "--init", f"{warm}/model"),
        *("-o", str(tmp_path / "runs" / "repro" / "seed7")),
        *("seed=7", "alarms.patience=0", "train.env_steps=1000", "train.iterations=2"),
        *("train.lr=0.1", "method.gamma=0.9"),
    )
    assert evaluate[:2] == ("eval", str(tmp_path / "runs" / "repro" / "seed7"))
    assert jobs["run-repro-b2-seed7"].commands[0][-1] == "method.beta=2"
    assert f"{warm}/initial" in jobs["run-repro-no-warmup-seed7"].commands[0]
    (only,) = jobs["run-warmup-only-seed7"].commands
    assert only[:2] == ("eval", f"{warm}/model")
    for command in jobs["warm-seed7"].commands:
        assert not any(word.startswith(("train.", "method.")) for word in command)


def test_a_warm_start_takes_the_memory_that_the_study_allows(tmp_path):
    """The warmup reads these settings of train as well; an arm's own are those of its training."""
    memory = ["train.optimizer=adamw8bit", "train.micro_tokens=4096", "train.gradient_checkpointing=true"]
    arm = {"name": "sparing", "method": "repro", "set": ["train.micro_tokens=1024"]}
    study = load_study(None, methods=["repro", arm], seeds=[0], set=[*memory, "train.lr=0.1"])
    jobs = {job.name: job for job in final_jobs(study, tmp_path, {})}
    assert [name for name in jobs if name.startswith("warm")] == ["warm-seed0"]
    for command in jobs["warm-seed0"].commands:
        assert [word for word in command if word.startswith("train.")] == memory


def test_an_arm_that_changes_the_warm_start_gets_its_own(tmp_path):
    linear = {"name": "linear-labels", "method": "repro", "set": {"demos.annotator": "linear"}}
    study = load_study(None, methods=["repro", linear], seeds=[0])
    jobs = {job.name: job for job in final_jobs(study, tmp_path, {})}
    assert jobs["run-repro-seed0"].after == ("warm-seed0",)
    assert jobs["run-linear-labels-seed0"].after == ("warm-linear-labels-seed0",)
    assert "demos.annotator=linear" in jobs["warm-linear-labels-seed0"].commands[0]
