"""``make verl-smoke``: verl's real trainer on CPU, and what it must have left behind.

Not collected by pytest: it needs the environment of verl and takes minutes. Run it as
``python tests/verl_smoke.py --out FOLDER``.
"""

from __future__ import annotations

import argparse
import math
import re
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from repro_rl.cli.commands import make_demos, run_warmup_stage
from repro_rl.config import RunConfig
from repro_rl.integrations.verl.data import sft_rows, write_parquet
from repro_rl.integrations.verl.launch import launch_command, prepare_run, run_verl
from repro_rl.integrations.verl.recipe import load_verl_recipe
from repro_rl.integrations.verl.session import SEED_BITS
from repro_rl.policy import TransformersPolicy
from repro_rl.policy.base import SamplingSettings
from repro_rl.rollout import Job, read_trajectories
from repro_rl.rollout.counts import success_rate
from repro_rl.train.build import (
    build_pool,
    build_prompts,
    forward_sampling,
    load_policy,
    set_threads,
    validation_panel,
)
from repro_rl.train.contexts import panel_jobs, play_jobs
from repro_rl.train.loop import credit_groups, iteration_judge, task_schedule
from repro_rl.train.run_folder import MetricsLog
from repro_rl.types import Completion, Group, Ids

RECIPE = "sokoban-tiny-cpu"
# The tiny model has no chat template, and verl's supervised trainer needs one.
CHAT = (
    "{% for m in messages %}{% if m.role == 'user' %}act {{ m.content }}{% else %} progress {{ m.content }}"
    " <eos>{% endif %}{% endfor %}{% if add_generation_prompt %} progress {% endif %}"
)


class Masked:
    """Our policy with the 63-bit seeds that generation servers take."""

    def __init__(self, policy: TransformersPolicy):
        self.policy = policy

    def encode(self, prompt: str) -> Ids:
        return self.policy.encode(prompt)

    def generate(self, prompts: Sequence[str], keys: Any, settings: SamplingSettings) -> list[Completion]:
        return self.policy.generate(prompts, keys & np.uint64(SEED_BITS), settings)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("runs/verl-smoke"))
    parser.add_argument("--methods", nargs="*", default=["repro", "gigpo"])
    arguments = parser.parse_args()
    out: Path = arguments.out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    begin = time.perf_counter()
    config = load_verl_recipe(RECIPE).config
    set_threads(config)
    warm = run_warmup_stage(config, make_demos(config, out / "demos"), out / "warm")
    print(f"warm start: {time.perf_counter() - begin:.0f} s", flush=True)
    for method in arguments.methods:
        begin = time.perf_counter()
        recipe = load_verl_recipe(RECIPE, [f"method={method}", f"train.init={warm}"])
        run = out / method
        for line in prepare_run(recipe, run):
            print(line)
        command, variables = launch_command(run, [])
        print(f"verl, {method}: running, output in {run / 'verl.log'}", flush=True)
        status = run_verl(command, variables, run / "verl.log")
        seconds = time.perf_counter() - begin
        if status:
            tail = (run / "verl.log").read_text(errors="replace").splitlines()[-40:]
            sys.exit("\n".join([*tail, f"verl ended with status {status} ({method})"]))
        check(recipe.config, run, warm)
        print(f"verl, {method}: as it should be, {seconds:.0f} s", flush=True)
    supervised(config, out, variables)


def supervised(config: RunConfig, out: Path, variables: dict[str, str]) -> None:
    """verl's supervised trainer on our rows, from the untrained model: the loss must fall by half."""
    begin = time.perf_counter()
    pool = build_pool(config)
    rows = sft_rows(config, out / "demos", pool.first)
    write_parquet(out / "sft.parquet", rows)
    policy = load_policy(config, out / "warm" / "initial")
    policy.tokenizer.chat_template = CHAT
    policy.save(out / "untrained")
    settings = {
        "data.train_files": out / "sft.parquet",
        "data.max_length": 256,
        "data.ignore_input_ids_mismatch": "true",
        "data.train_batch_size": 32,
        "data.num_workers": 0,
        "model.path": out / "untrained",
        "model.use_remove_padding": "false",
        "model.enable_gradient_checkpointing": "false",
        "+model.override_config.attn_implementation": "sdpa",
        "engine.strategy": "fsdp2",
        "engine.model_dtype": "fp32",
        "engine.use_torch_compile": "false",
        "+engine.mixed_precision": "{param_dtype:fp32,reduce_dtype:fp32,buffer_dtype:fp32}",
        "optim.lr": 3e-3,
        "trainer.total_epochs": 6,
        "trainer.logger": "[console]",
        "trainer.device": "cpu",
        "trainer.save_freq": 1000,
        "trainer.default_local_dir": out / "sft",
        "checkpoint.save_contents": "[model,optimizer,extra,hf_model]",
        "hydra.run.dir": out / "hydra",
    }
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1"]
    command += ["-m", "verl.trainer.sft_trainer", *(f"{key}={value}" for key, value in settings.items())]
    log = out / "sft.log"
    status = run_verl(command, variables, log)
    text = log.read_text(errors="replace")
    if status:
        sys.exit(
            "\n".join([*text.splitlines()[-40:], f"verl's supervised trainer ended with status {status}"])
        )
    losses = [float(value) for value in re.findall(r"train/loss:(?:np\.float64\()?([0-9.]+)", text)]
    assert losses, f"no loss in {log}"
    assert losses[-1] < losses[0] / 2, f"the loss did not fall: {losses}"
    [model] = (out / "sft").glob("global_step_*/huggingface")
    load_policy(config, model)
    seconds = time.perf_counter() - begin
    print(f"verl, supervised: {len(rows)} rows, loss {losses[0]:.2f} to {losses[-1]:.2f}, {seconds:.0f} s")


def check(config: RunConfig, run: Path, warm: Path) -> None:
    """Fails with an AssertionError that says what is not there."""
    train, method = config.train, config.method
    rows = MetricsLog(run, train.iterations).rows
    assert [row["iteration"] for row in rows] == list(range(1, train.iterations + 1)), rows
    bad = [(row["iteration"], k) for row in rows for k, v in row.items() if not math.isfinite(v)]
    assert not bad, f"figures that are not finite: {bad}"

    env_steps = 0
    episodes = train.groups * train.group_size
    for row in rows:
        path = run / "trajectories" / f"iteration-{row['iteration']:05d}.jsonl.gz"
        records = list(read_trajectories(path))
        assert len(records) == episodes, f"{path}: {len(records)} episodes"
        steps = sum(len(record["steps"]) for record in records)
        env_steps += steps
        judged = train.groups * round(method.reflect_share * train.group_size) if method.reflect else 0
        assert row["samples/forward"] == row["samples/env_steps"] == steps, row
        assert row["samples/reflect"] == judged, row
        assert row["env_steps"] == env_steps, row
        assert row["actor/grad_norm"] > 0, "no gradient"
        # After the first update this says whether the sampler got the new weights.
        assert row["training/rollout_probs_diff_max"] < 1e-3, row["training/rollout_probs_diff_max"]
    check_first_iteration(config, run, warm)

    model = run / "checkpoints" / f"global_step_{train.iterations}" / "actor" / "huggingface"
    before, after = load_file(warm / "model.safetensors"), load_file(model / "model.safetensors")
    assert set(before) <= set(after) | {"lm_head.weight"}, "the checkpoint lacks weights"
    moved = max(float((after[name].float() - before[name]).abs().max()) for name in before if name in after)
    assert 0 < moved < 1, f"weights moved by {moved}"

    pool = build_pool(config)
    panel = validation_panel(config, pool)
    name = f"val-core/{panel.label()}/acc/mean@1"
    reported = rows[-1][name]
    own = success_rate(
        play_jobs(
            config,
            pool,
            panel_jobs(panel, 1),
            Masked(load_policy(config, model)),
            build_prompts(config),
            forward_sampling(config, config.eval.validation_temperature),
            None,
            stream=("panel", config.eval.seed),
        )
    )
    assert abs(reported - own) < 1e-9, f"validation: verl says {reported}, its checkpoint played here {own}"
    print(f"{name} {reported:.3f}, the same when its checkpoint plays here; weights moved by {moved:.2g}")


def check_first_iteration(config: RunConfig, run: Path, warm: Path) -> None:
    """The episodes, judgements and credit of iteration 1 are those of our own loop from the same weights."""
    train = config.train
    pool, prompts = build_pool(config), build_prompts(config)
    policy = Masked(load_policy(config, warm))
    tasks = task_schedule(pool.first.panel(train.split).ids, config.seed, 1, train.groups)
    size = train.group_size
    jobs = [Job(task, place * size + k) for place, task in enumerate(tasks) for k in range(size)]
    stream = ("train", config.seed, 1)
    sampling = forward_sampling(config, train.temperature)
    own = play_jobs(config, pool, jobs, policy, prompts, sampling, iteration_judge(config, 1), stream=stream)
    credit_groups(config, [Group(task, own[i * size : (i + 1) * size]) for i, task in enumerate(tasks)])
    records = list(read_trajectories(run / "trajectories" / "iteration-00001.jsonl.gz"))
    for record, expected in zip(records, own, strict=True):
        where = f"{record['task_id']}, rollout {record['rollout']}"
        assert (record["task_id"], record["rollout"]) == (expected.task_id, expected.rollout)
        assert [s["text"] for s in record["steps"]] == [s.completion.text for s in expected.steps], where
        found = [s["advantage"] for s in record["steps"]]
        assert np.allclose(found, [s.advantage for s in expected.steps], atol=1e-9), where
        if expected.reflection is not None:
            judged = record["reflection"]
            assert judged["text"] == expected.reflection.completion.text, where
            assert math.isclose(judged["advantage"], expected.reflection.advantage, abs_tol=1e-9), where
    print(f"iteration 1: {len(own)} episodes equal to those of repro_rl's own loop, advantages included")


if __name__ == "__main__":
    main()
