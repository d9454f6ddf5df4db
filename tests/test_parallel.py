"""Two processes against one: the same rollouts, the same numbers, and a clear end when one of them fails."""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from repro_rl.config import load_config
from repro_rl.errors import ConfigError, PeerLostError
from repro_rl.processes import place
from repro_rl.rollout import read_trajectories, trajectory_record
from repro_rl.rollout.counts import group_metrics, rollout_metrics
from repro_rl.study.evaluate import evaluate
from repro_rl.train import parallel
from repro_rl.train.batch import Row, merge
from repro_rl.train.loop import RLRun, run_training
from repro_rl.train.parallel import ALONE, Ranks, check_share, merge_rows, owners_of, pack, slim, unpack
from repro_rl.train.peers import Peers
from repro_rl.train.sharded import check_sharding, resharding
from repro_rl.train.update import minibatch_order
from repro_rl.train.warmup import run_warmup
from test_train import sample_of

SCRIPT = Path(__file__).parent / "two_processes.py"
PATIENCE = 600  # seconds; only a hang takes so long, however busy the machine is


# Sharing, without other processes -----------------------------------------------------------------


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 3))
def test_groups_are_dealt_out_evenly_over_every_minibatch(groups, world, seed):
    order = minibatch_order(groups, 1, seed)
    owners = owners_of(order, world)
    assert sorted(order) == list(range(groups))
    for count in (1, 2, 3):
        part = [owners[g] for position, g in enumerate(order) if position * count // groups == 0]
        shares = [part.count(rank) for rank in range(world)]
        assert sum(shares) == len(part)
        assert max(shares) - min(shares) <= 1


samples = st.lists(
    st.tuples(
        st.lists(st.integers(1, 2), min_size=2, max_size=4),
        st.floats(-2, 2, width=32),
        st.sampled_from(["forward", "reflect"]),
    ),
    max_size=12,
)


def as_dict(rows: list[Row]) -> dict[Any, Row]:
    return {(row.ids.tobytes(), row.trained.tobytes(), row.kind): row for row in rows}


@settings(deadline=None)
@given(samples, samples)
def test_rows_merged_over_processes_are_those_of_one(one, two):
    parts = [[sample_of(ids, 1, a, -abs(a), kind) for ids, a, kind in part] for part in (one, two)]
    whole = as_dict(merge([*parts[0], *parts[1]]))
    again = as_dict(merge_rows(unpack(pack(row)) for part in parts for row in merge(part)))
    assert again.keys() == whole.keys()
    for key, row in whole.items():
        assert again[key].count == row.count
        assert again[key].ids.dtype == row.ids.dtype
        for name in ("positive", "negative", "logprob"):
            assert np.allclose(getattr(again[key], name), getattr(row, name), atol=1e-5), name


def test_packed_rows_keep_a_conversation_with_untrained_parts_between():
    """Trained on at positions 2 and 4 alone."""
    zeros = np.zeros(5, np.float32)
    trained = np.array([False, False, True, False, True])
    row = Row(np.arange(5), trained, zeros + 1, zeros - 1, zeros + 3, 2, "forward")
    for values in (row.positive, row.negative, row.logprob):
        values[:2] = 0
    back = unpack(pack(row))
    for name in ("ids", "trained", "positive", "negative", "logprob"):
        assert np.array_equal(getattr(back, name), getattr(row, name)), name
        assert getattr(back, name).dtype == getattr(row, name).dtype
    assert (back.count, back.kind) == (2, "forward")


class NoPeers(Peers):
    def __init__(self) -> None:
        super().__init__(0, 1.0)


def test_shared_rows_are_all_rows_and_alike_in_length():
    rows = merge([sample_of([1] * length, 1, 0.0, 0.0) for length in (9, 2, 3, 8, 4, 7, 5, 6)])
    shares = [Ranks(rank, 3, NoPeers()).share_rows(rows) for rank in range(3)]
    assert sorted(len(row.ids) for share in shares for row in share) == [2, 3, 4, 5, 6, 7, 8, 9]
    assert [[len(row.ids) for row in share] for share in shares] == [[2, 5, 8], [3, 6, 9], [4, 7]]
    assert ALONE.share_rows(rows) is rows


def test_what_travels_has_the_counts_but_not_the_ids(warm, tmp_path):
    config = load_config(None, [*warm.settings, "train.groups=2", f"train.init={warm.run}"])
    run = RLRun(config, tmp_path / "run")
    groups = run.rollout(1)
    run.credit(groups)
    light = [[slim(t, prompts=True) for t in group.trajectories] for group in groups]
    for group, copies in zip(groups, light, strict=True):
        for whole, copy in zip(group.trajectories, copies, strict=True):
            assert trajectory_record(copy, 1) == trajectory_record(whole, 1)
            assert all(step.completion.token_ids == () for step in copy.steps)
            assert all(step.completion.token_ids for step in whole.steps)
            assert all(step.prompt == "" for step in slim(whole, prompts=False).steps)
    whole = [t for group in groups for t in group.trajectories]
    copies = [t for group in light for t in group]
    assert rollout_metrics(copies) == rollout_metrics(whole)
    for group, played in zip(groups, light, strict=True):
        before = group_metrics([group])
        group.trajectories = played
        assert group_metrics([group]) == before


def test_fewer_groups_than_processes_are_refused():
    check_share(2, 2)
    with pytest.raises(ConfigError, match=r"train\.groups is 2, but 3 processes"):
        check_share(2, 3)


def test_a_lone_process_is_what_nothing_was_launched_gives(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    assert place() == (0, 1)
    monkeypatch.setenv("WORLD_SIZE", "4")  # left over by some other tool: no launcher set the rest
    assert place() == (0, 1)
    assert parallel.join(load_config(None, [])) is ALONE
    for name, value in (("RANK", "3"), ("LOCAL_RANK", "1"), ("MASTER_ADDR", "localhost")):
        monkeypatch.setenv(name, value)
    assert place() == (3, 4)
    with pytest.raises(ConfigError, match="would put 4 processes on one GPU"):
        parallel.join(load_config(None, ["policy.device=cuda:0"]))


def test_a_process_that_is_gone_is_found():
    process = subprocess.Popen([sys.executable, "-c", ""])
    peers = Peers(0, 1.0)
    peers.known = [Peers.describe(), (socket.gethostname(), process.pid), ("elsewhere", process.pid)]
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, but still in the table of processes
    lost = r"Process 1 was lost: killed.*Repeat the same command"
    with pytest.raises(PeerLostError, match=lost), peers.watch():
        raise RuntimeError("Connection closed by peer")
    process.wait()
    assert peers._is_gone(1)
    assert not peers._is_gone(0)
    assert not peers._is_gone(2)


def test_commands_for_one_process_are_refused_in_several(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "repro_rl", "demo", "--out", str(tmp_path / "demo")],
        env=os.environ | {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "process 1:" in done.stderr
    assert "'repro-rl demo' runs in one process, but 2 were started" in done.stderr
    assert not (tmp_path / "demo").exists()


# Two processes ------------------------------------------------------------------------------------


def torchrun(plan: Path) -> list[str]:
    """torchrun of this interpreter with two processes that compute on the CPU."""
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
        *(str(SCRIPT), str(plan)),
    ]


def launch(
    plan: Path, content: dict[str, Any], more: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    plan.write_text(json.dumps(content))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment |= more or {}
    return subprocess.run(
        torchrun(plan), env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def metric_rows(run: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds" and not k.startswith("time/")} for row in rows]


def assert_close_rows(one: Path, two: Path) -> None:
    first, second = metric_rows(one), metric_rows(two)
    assert first
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        for name, value in a.items():
            assert math.isclose(value, b[name], rel_tol=1e-4, abs_tol=1e-5), (name, value, b[name])


def assert_close_weights(one: Path, two: Path, moved_from: Path) -> None:
    """Apart by the order of sums only: next to nothing beside what training has changed."""
    first, second = load_file(one / "model.safetensors"), load_file(two / "model.safetensors")
    start = load_file(moved_from / "model.safetensors")
    apart = max(float((first[name] - second[name]).abs().max()) for name in first)
    moved = max(float((first[name] - start[name]).abs().max()) for name in first)
    assert apart < 2e-5
    assert moved > 1e-3


def assert_same_records(one: Path, two: Path) -> None:
    """Token for token: texts, actions, rewards; entropies and advantages up to the order of sums."""

    def close(a: Any, b: Any) -> bool:
        if isinstance(a, dict):
            return a.keys() == b.keys() and all(close(a[key], b[key]) for key in a)
        if isinstance(a, list):
            return len(a) == len(b) and all(close(x, y) for x, y in zip(a, b, strict=True))
        return math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-5) if isinstance(a, float) else bool(a == b)

    first, second = list(read_trajectories(one)), list(read_trajectories(two))
    assert first
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert close(a, b)


RUN = [
    *("method=repro", "method.rehearsal=6", "method.reflect_share=0.5"),
    *("train.groups=6", "train.group_size=4", "train.minibatches=2", "train.epochs=2"),
    *("train.micro_tokens=512", "train.iterations=3", "train.save_every=1", "train.keep=9"),
    *("train.eval_every=2", "train.record_every=1", "eval.validation_tasks=5", "eval.tasks=7"),
]


@pytest.mark.slow
def test_two_processes_give_what_one_gives_also_when_one_was_killed(warm, tmp_path):
    """Training with rehearsal, killed in iteration 3 and repeated; a warmup; an evaluation."""
    settings = [*warm.settings, *RUN, f"train.init={warm.run}"]
    warmup = [*warm.settings, *RUN, "warmup.updates=4", "warmup.target_success=1", "warmup.check_every=2"]
    config = load_config(None, settings)
    one, two = tmp_path / "one", tmp_path / "two"
    run_training(config, one / "run")
    run_warmup(load_config(None, warmup), warm.demos, one / "warmup")
    last = Path("checkpoints") / "00003"
    judged = evaluate(config, one / "run" / last, name="both", out=one / "run")

    two.mkdir()
    train = {"what": "train", "settings": settings, "out": str(two / "run")}
    killed = launch(tmp_path / "killed.json", {"stages": [train], "fail": [1, 3, "kill"]})
    assert killed.returncode != 0
    assert "process 0: " in killed.stderr
    assert "Process 1 was lost: killed, out of memory, or crashed without a word." in killed.stderr
    assert "Repeat the same command to continue from the last checkpoint" in killed.stderr
    assert [p.name for p in sorted((two / "run" / "checkpoints").iterdir())] == ["00001", "00002"]
    assert len(metric_rows(two / "run")) == 2
    shutil.copytree(two / "run", two / "by-one")

    done = launch(
        tmp_path / "again.json",
        {
            "stages": [
                train,
                {"what": "warmup", "settings": warmup, "demos": str(warm.demos), "out": str(two / "warmup")},
                # the model of one process, so that the episodes can be compared
                {
                    "what": "eval",
                    "settings": settings,
                    "model": str(one / "run" / last),
                    "out": str(two / "run"),
                },
            ]
        },
    )
    assert done.returncode == 0, done.stderr
    for name, rows in (("run-train", (1, 0)), ("warmup-warmup", (4, 0)), ("run-eval", (0, 0))):
        for rank in range(2):  # both were there, and only the first one reported
            seen = json.loads((two / f"{name}-{rank}.json").read_text())
            assert seen == {"world": 2, "rows": rows[rank]}
    assert json.loads((two / "run" / "manifest.json").read_text())["processes"] == 2

    assert_close_rows(one / "run", two / "run")
    for iteration in (1, 2, 3):
        name = f"iteration-{iteration:05d}.jsonl.gz"
        assert_same_records(one / "run" / "trajectories" / name, two / "run" / "trajectories" / name)
        folder = Path("checkpoints") / f"{iteration:05d}"
        assert_close_weights(one / "run" / folder, two / "run" / folder, warm.model)
        states = [json.loads((run / "run" / folder / "state.json").read_text()) for run in (one, two)]
        assert states[0].pop("seconds") > 0
        assert states[1].pop("seconds") > 0
        assert states[0] == states[1]
    assert sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file()) == sorted(
        p.relative_to(two)
        for p in two.rglob("*")
        if p.is_file() and "by-one" not in p.parts and p.parent != two
    )

    # the warmup: the same losses, looks at the validation and weights
    assert_close_rows(one / "warmup", two / "warmup")
    assert [row["eval/success"] for row in metric_rows(two / "warmup") if "eval/success" in row]
    assert_close_weights(one / "warmup" / "model", two / "warmup" / "model", one / "warmup" / "initial")

    # the evaluation: the same episodes and numbers
    shared = json.loads((two / "run" / "eval" / "both.json").read_text())
    assert (shared["episodes"], shared["won"], shared["by_type"]) == (7, judged["won"], judged["by_type"])
    for name in ("digest", "success", "low", "high", "score", "length", "invalid_rate", "progress"):
        assert shared[name] == json.loads(json.dumps(judged[name])), name
    assert_same_records(*(run / "run" / "trajectories" / "eval-both.jsonl.gz" for run in (one, two)))

    # one process takes up what two began
    run_training(config, two / "by-one")
    assert_close_rows(one / "run", two / "by-one")
    assert_close_weights(one / "run" / last, two / "by-one" / last, warm.model)


def start_by_hand(plan: Path) -> list[subprocess.Popen[str]]:
    """Two processes without a launcher that would end the other when one has failed."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        port = listener.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}
    return [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(plan)],
            env=os.environ
            | shared
            | {"MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def ends(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str]]:
    found = []
    try:
        for process in processes:
            _, said = process.communicate(timeout=PATIENCE)
            found.append((process.returncode, said))
    finally:
        for process in processes:
            process.kill()
    return found


# Split weights ------------------------------------------------------------------------------------

CONFIGS = Path(parallel.__file__).parents[1] / "recipes" / "accelerate"
LAUNCHED = {"ddp": None, "fsdp2": True, "fsdp2-zero2": False}


def test_the_accelerate_configurations_are_known():
    assert sorted(path.stem for path in CONFIGS.iterdir()) == sorted(LAUNCHED)


@pytest.mark.parametrize("name", LAUNCHED)
def test_an_accelerate_configuration_is_read_by_accelerate_and_by_us(name, monkeypatch):
    """As ``accelerate launch`` reads it: what it sets for our processes must mean what the file says."""
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    path = str(CONFIGS / f"{name}.yaml")
    loaded = load_config_from_file(path)
    assert loaded.distributed_type.value == ("MULTI_GPU" if name == "ddp" else "FSDP")
    assert (loaded.num_processes, loaded.mixed_precision) == (8, "no")
    args = launch_command_parser().parse_args(["--config_file", path, "--module", "repro_rl", "train"])
    args, _, _ = _validate_launch_command(args)
    for key in ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "FSDP_VERSION"):
        monkeypatch.delenv(key, raising=False)
    for key, value in prepare_multi_gpu_env(args).items():
        monkeypatch.setenv(key, value)
    assert resharding() is LAUNCHED[name]


def test_what_cannot_be_split_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(ConfigError, match=r"DeepSpeed.*fsdp2\.yaml"):
        resharding()
    monkeypatch.delenv("ACCELERATE_USE_DEEPSPEED")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match="fsdp_version: 2"):
        resharding()
    monkeypatch.setenv("FSDP_VERSION", "2")
    monkeypatch.setenv("FSDP_OFFLOAD_PARAMS", "true")
    with pytest.raises(ConfigError, match="fsdp_offload_params"):
        resharding()
    with pytest.raises(ConfigError, match=r"ddp\.yaml"):
        check_sharding(load_config(None, ["policy.lora.rank=4"]))
    with pytest.raises(ConfigError, match="adamw8bit cannot be split"):
        check_sharding(load_config(None, ["train.optimizer=adamw8bit"]))


@pytest.mark.slow
def test_split_weights_give_what_whole_ones_give(warm, tmp_path):
    """Two processes, each with half of the trained weights, against one process; then continued."""
    settings = [*warm.settings, *RUN, f"train.init={warm.run}", "train.iterations=2", "train.eval_every=0"]
    run_training(load_config(None, settings), tmp_path / "one")
    stage = {"what": "train", "settings": [*settings, "train.iterations=1"], "out": str(tmp_path / "two")}
    done = launch(
        tmp_path / "plan.json",
        {"stages": [stage, stage | {"settings": settings}]},
        {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_RESHARD_AFTER_FORWARD": "true"},
    )
    assert done.returncode == 0, done.stderr
    assert_close_rows(tmp_path / "one", tmp_path / "two")
    for folder in (Path("checkpoints") / "00001", Path("checkpoints") / "00002"):
        assert_close_weights(tmp_path / "one" / folder, tmp_path / "two" / folder, warm.model)
        moments = [load_file(tmp_path / run / folder / "optimizer.safetensors") for run in ("one", "two")]
        assert moments[0].keys() == moments[1].keys()
        assert all(torch.allclose(moments[0][key], moments[1][key], atol=1e-5) for key in moments[0])


# One that fails -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_process_that_raises_ends_the_other_with_its_message(warm, tmp_path):
    plan = tmp_path / "plan.json"
    config = [*warm.settings, *RUN, f"train.init={warm.run}"]
    stage = {"what": "train", "settings": config, "out": str(tmp_path / "run")}
    plan.write_text(json.dumps({"stages": [stage], "fail": [1, 1, "raise"]}))
    (code, said), (other, reason) = ends(start_by_hand(plan))
    assert (code, other) == (2, 1)
    assert "RuntimeError: boom" in reason
    assert "process 0: PeerLostError: Process 1 failed (RuntimeError: boom)." in said
    assert "Repeat the same command" in said


@pytest.mark.slow
def test_waiting_has_an_end(tmp_path):
    plan = tmp_path / "plan.json"
    stage = {"what": "wait", "settings": ["policy.device=cpu"], "out": str(tmp_path / "note")}
    plan.write_text(json.dumps({"stages": [stage]}))
    (code, said), (other, _) = ends(start_by_hand(plan))
    assert (code, other) == (2, 0)
    assert "did not come to the same point within train.peer_timeout=1800 seconds" in said
