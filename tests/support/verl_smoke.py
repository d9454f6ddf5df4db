"""``make verl-smoke``: verl's real trainer on CPU, and what it must have left behind.

Not collected by pytest: it needs the environment of verl and takes minutes. Run it as
``PYTHONPATH=tests python -m support.verl_smoke --out FOLDER``.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import shutil
import sys
import time
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from repro_rl.cli.stages import run_demos_stage, run_warmup_stage
from repro_rl.credit import assign_credit, reflection_advantages
from repro_rl.integrations.verl.data import sft_rows, write_parquet
from repro_rl.integrations.verl.launch import launch_command, prepare_run, run_verl
from repro_rl.integrations.verl.recipe import load_verl_recipe
from repro_rl.rollout import Actor, Judge, PlayOptions, RolloutRequest, read_trajectories
from repro_rl.run.folder import MetricsLog
from repro_rl.run.models import load_policy
from repro_rl.run.setup import Setup, set_up
from repro_rl.run.validation import validation_success
from repro_rl.train import ReflectionSampling, task_schedule
from repro_rl.types import Group
from support.verl_cases import CHAT_TEMPLATE, CPU_RECIPE, ServerSeeds

TESTS = Path(__file__).parents[1]
# verl's workers import ``support.verl_cpu_platform``, from another working folder.
WORKERS = {"PYTHONPATH": os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH")]))}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("runs/verl-smoke"))
    parser.add_argument("--methods", nargs="*", default=["repro", "gigpo"])
    arguments = parser.parse_args()
    out: Path = arguments.out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    begin = time.perf_counter()
    config = load_verl_recipe(CPU_RECIPE).config
    setup = set_up(config)
    warm = run_warmup_stage(config, run_demos_stage(config, out / "demos"), out / "warm")
    print(f"warm start: {time.perf_counter() - begin:.0f} s", flush=True)
    for method in arguments.methods:
        begin = time.perf_counter()
        recipe = load_verl_recipe(CPU_RECIPE, [f"method={method}", f"train.init={warm}"])
        run = out / method
        for line in prepare_run(recipe, run):
            print(line)
        command, variables = launch_command(run, [])
        variables |= WORKERS
        print(f"verl, {method}: running, output in {run / 'verl.log'}", flush=True)
        status = run_verl(command, variables, run / "verl.log")
        seconds = time.perf_counter() - begin
        if status:
            tail = (run / "verl.log").read_text(errors="replace").splitlines()[-40:]
            sys.exit("\n".join([*tail, f"verl ended with status {status} ({method})"]))
        check(set_up(recipe.config), run, warm)
        print(f"verl, {method}: as it should be, {seconds:.0f} s", flush=True)
    supervised(setup, out, variables)


def supervised(setup: Setup, out: Path, variables: dict[str, str]) -> None:
    """verl's supervised trainer on our rows, from the untrained model: the loss must fall by half."""
    begin = time.perf_counter()
    section = setup.config.policy
    rows = sft_rows(setup, out / "demos")
    write_parquet(out / "sft.parquet", rows)
    policy = load_policy(section, out / "warm" / "initial")
    policy.codec.tokenizer.chat_template = CHAT_TEMPLATE
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
    load_policy(section, model)
    seconds = time.perf_counter() - begin
    print(f"verl, supervised: {len(rows)} rows, loss {losses[0]:.2f} to {losses[-1]:.2f}, {seconds:.0f} s")


def check(setup: Setup, run: Path, warm: Path) -> None:
    """Fails with an AssertionError that says what is not there."""
    train, method = setup.config.train, setup.config.method
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
    check_first_iteration(setup, run, warm)

    model = run / "checkpoints" / f"global_step_{train.iterations}" / "actor" / "huggingface"
    before, after = load_file(warm / "model.safetensors"), load_file(model / "model.safetensors")
    assert set(before) <= set(after) | {"lm_head.weight"}, "the checkpoint lacks weights"
    moved = max(float((after[name].float() - before[name]).abs().max()) for name in before if name in after)
    assert 0 < moved < 1, f"weights moved by {moved}"

    name = f"val-core/{setup.validation_panel().label()}/acc/mean@1"
    reported = rows[-1][name]
    policy = ServerSeeds(load_policy(setup.config.policy, model))
    own = validation_success(setup, setup.context(policy.codec), policy, setup.prompts)
    assert abs(reported - own) < 1e-9, f"validation: verl says {reported}, its checkpoint played here {own}"
    print(f"{name} {reported:.3f}, the same when its checkpoint plays here; weights moved by {moved:.2g}")


def check_first_iteration(setup: Setup, run: Path, warm: Path) -> None:
    """The episodes, judgements and credit of iteration 1 are those of our own loop from the same weights."""
    config = setup.config
    train, method, size = config.train, config.method, config.train.group_size
    policy = ServerSeeds(load_policy(config.policy, warm))
    tasks = task_schedule(setup.panel(train.split).ids, config.seed, 1, train.groups)
    requests = [RolloutRequest(task, g * size + k) for g, task in enumerate(tasks) for k in range(size)]
    actor = Actor(policy, setup.prompts, setup.action_sampling(train.temperature))
    sampling = ReflectionSampling.of_run(setup)
    judge = Judge(lambda trajectory: sampling.of(1, trajectory)) if method.reflect else None
    options = PlayOptions(("train", config.seed, 1))
    own = setup.context(policy.codec).play(requests, actor, judge, options)
    groups = [Group(task, own[g * size : (g + 1) * size]) for g, task in enumerate(tasks)]
    assign_credit(groups, method)
    if method.reflect:
        choice = setup.reflection_choice()
        reflection_advantages(groups, [choice.chosen(1, g, size) for g in range(len(groups))])
    records = list(read_trajectories(run / "trajectories" / "iteration-00001.jsonl.gz"))
    for record, expected in zip(records, own, strict=True):
        where = f"{record['task_id']}, rollout {record['rollout']}"
        assert (record["task_id"], record["rollout"]) == (expected.task_id, expected.rollout)
        assert [s["text"] for s in record["steps"]] == [s.completion.text for s in expected.steps], where
        recorded = [s["advantage"] for s in record["steps"]]
        assert np.allclose(recorded, [s.advantage for s in expected.steps], atol=1e-9), where
        if expected.reflection is not None:
            judged = record["reflection"]
            assert judged["text"] == expected.reflection.completion.text, where
            assert math.isclose(judged["advantage"], expected.reflection.advantage, abs_tol=1e-9), where
    print(f"iteration 1: {len(own)} episodes equal to those of repro_rl's own loop, advantages included")


if __name__ == "__main__":
    main()
