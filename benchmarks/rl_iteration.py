"""Seconds per RL iteration, ours against TRL's ``GRPOTrainer``: ``make bench-trl``.

Two processes take turns, one iteration of plain GRPO each. Both have the same tiny Qwen3 weights,
environment, tasks, groups, and limits of steps and answers. Optimizer steps, clip range and KL to the warm
start (k3) are the same too. One thread, CPU.

TRL plays through ``rollout_func``, its way to an environment that talks in plain text. The other way,
``environment_factory``, wants a chat template with tool calls, which neither the tiny model nor these prompts
have. TRL takes one row an episode, so the episode is one growing conversation, and ``env_mask`` keeps the
environment's tokens out of the loss. All live episodes generate in one batch, as TRL's own tool loop does.
Ours has one prompt a step.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from side_by_side import Times, ratio, versions
from warm_start import warm_start

from repro_rl.config import RunConfig, load_config

MARK = "RESULT "
INSTALL = (
    "This benchmark needs TRL: run 'make bench-trl', which has an environment of its own, or "
    "pip install -c constraints.txt '.[bench]'."
)
DIFFERENCES = """What differs:
- context: TRL's episode is one conversation (each answer sees all earlier turns), ours one prompt a step;
  both get the environment's same words at every step. With prompt.context=chat ours is a conversation too
- so TRL trains on one row an episode, we on one a step; advantages are one a trajectory on both sides
- TRL recomputes the log-probs of what it sampled before a first update, we keep the sampler's
- randomness: other streams, so other episodes; steps played are printed, and the ratio a step"""


def job_settings(arguments: argparse.Namespace, init: str) -> list[str]:
    """Overrides of the recipe that make both jobs the same."""
    settings = [
        f"train.init={init}",
        "method=grpo",
        "train.kl={form: k3, coef: 0.01}",
        "train.record_every=0",
        "train.validate_every=0",
        "train.lr=1e-4",
        "train.lr_warmup=0",
        f"train.groups={arguments.groups}",
        f"train.group_size={arguments.group_size}",
        f"train.minibatches={arguments.minibatches}",
        *arguments.overrides,
    ]
    return settings


# One side is one process -----------------------------------------------------------------------------


def wait_for_turn() -> None:
    if sys.stdin.readline() != "go\n":
        raise SystemExit(0)


def report(cpu: float, wall: float, steps: int, tokens: int, won: float) -> None:
    row = {"cpu": cpu, "wall": wall, "steps": steps, "tokens": tokens, "won": won}
    print(MARK + json.dumps(row), flush=True)


def play_ours(config: RunConfig, folder: Path) -> None:
    from repro_rl.run.setup import set_up
    from repro_rl.train import RLRun

    run = RLRun(set_up(config), folder / "run")
    while True:
        wait_for_turn()
        cpu, wall, before = time.process_time(), time.perf_counter(), run.env_steps
        row = run.step()
        steps = run.env_steps - before
        tokens = round(row["rollout/tokens"] * steps)
        report(time.process_time() - cpu, time.perf_counter() - wall, steps, tokens, row["rollout/success"])


def play_trl(config: RunConfig, folder: Path) -> None:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from repro_rl.run.setup import set_up
    from repro_rl.text import StepInputs, parse_action
    from repro_rl.text.turns import TurnPrompts
    from repro_rl.train import task_schedule

    setup = set_up(config)
    torch.set_num_threads(1)
    train, prompts, pool = config.train, setup.prompts, setup.pool
    episodes = train.groups * train.group_size
    envs = pool.take(episodes)
    model = AutoModelForCausalLM.from_pretrained(train.init, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(train.init, padding_side="left")
    tasks = [
        task
        for iteration in range(1, 201)
        for task in task_schedule(pool.first.panel("train").ids, config.seed, iteration, train.groups)
    ]
    sampling = GenerationConfig(
        max_new_tokens=config.prompt.action_tokens,
        do_sample=True,
        temperature=train.temperature,
        top_k=0,
        use_cache=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    seen = {"steps": 0, "tokens": 0, "won": 0.0}

    text_of = TurnPrompts(prompts).act if config.prompt.context == "chat" else prompts.act

    def prompt_ids(env: Any, observation: str, info: dict[str, Any], step: int) -> list[int]:
        inputs = StepInputs(
            env.instructions, info["goal"], observation, info["admissible"], step, env.max_steps
        )
        return list(tokenizer(text_of(inputs), add_special_tokens=False)["input_ids"])

    def rollout(names: list[str], trainer: Any) -> dict[str, Any]:
        """Every episode to its end: TRL's fields, and the return for the reward function."""
        starts, rows, masks, returns = [], [], [], [0.0] * len(names)
        for env, task in zip(envs, names, strict=False):
            observation, info = env.reset(options={"task": task})
            starts.append(prompt_ids(env, observation, info, 1))
            rows.append([])
            masks.append([])
        seen["steps"] = seen["tokens"] = 0
        won = 0
        live = list(range(len(names)))
        step = 0
        policy = trainer.accelerator.unwrap_model(trainer.model)
        policy.eval()
        while live:
            step += 1
            width = max(len(starts[i]) + len(rows[i]) for i in live)
            ids = torch.full((len(live), width), tokenizer.pad_token_id)
            attention = torch.zeros_like(ids)
            for row, i in enumerate(live):
                so_far = torch.tensor(starts[i] + rows[i])
                ids[row, width - len(so_far) :] = so_far
                attention[row, width - len(so_far) :] = 1
            with torch.no_grad():
                out = policy.generate(input_ids=ids, attention_mask=attention, generation_config=sampling)
            still = []
            for i, answer in zip(live, out[:, width:].tolist(), strict=True):
                if tokenizer.eos_token_id in answer:
                    answer = answer[: answer.index(tokenizer.eos_token_id) + 1]
                rows[i] += answer
                masks[i] += [1] * len(answer)
                seen["steps"] += 1
                seen["tokens"] += len(answer)
                text = answer[:-1] if answer[-1] == tokenizer.eos_token_id else answer
                action = parse_action(tokenizer.decode(text), prompts.fmt).action
                observation, reward, terminated, truncated, info = envs[i].step(action)
                invalid = 0.0 if info["valid"] else config.method.invalid_penalty
                returns[i] += float(reward) - invalid
                won += info["won"]
                if not (terminated or truncated):
                    more = prompt_ids(envs[i], observation, info, step + 1)
                    rows[i] += more
                    masks[i] += [0] * len(more)
                    still.append(i)
            live = still
        seen["won"] = won / len(names)
        policy.train()
        return {
            "prompt_ids": starts,
            "completion_ids": rows,
            "logprobs": None,  # TRL needs them for engines of another numerical kind alone
            "env_mask": masks,
            "episode_return": returns,
        }

    def reward(episode_return: list[float], **_: Any) -> list[float]:
        return episode_return

    cycle = train.minibatches * train.epochs

    class Turns(TrainerCallback):  # type: ignore[misc]
        """An iteration is a rollout and its optimizer steps; the other side plays between two of them."""

        cpu = wall = 0.0

        def begin(self) -> None:
            wait_for_turn()
            self.cpu, self.wall = time.process_time(), time.perf_counter()

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.begin()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step % cycle == 0:
                report(
                    time.process_time() - self.cpu,
                    time.perf_counter() - self.wall,
                    int(seen["steps"]),
                    int(seen["tokens"]),
                    seen["won"],
                )
                self.begin()

    settings = GRPOConfig(
        output_dir=str(folder / "trl"),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,  # TRL's default, for memory, costs a forward pass
        per_device_train_batch_size=episodes // train.minibatches,
        gradient_accumulation_steps=1,
        steps_per_generation=train.minibatches,
        num_iterations=train.epochs,
        num_generations=train.group_size,
        max_completion_length=1000,
        max_steps=cycle * 200,
        learning_rate=train.lr,
        lr_scheduler_type="constant",
        adam_beta1=train.betas[0],
        adam_beta2=train.betas[1],
        weight_decay=train.weight_decay,
        max_grad_norm=train.grad_clip,
        epsilon=train.clip,
        beta=train.kl.coef,
        temperature=train.temperature,
        shuffle_dataset=False,
        logging_steps=cycle,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        seed=config.seed,
    )
    GRPOTrainer(
        model=model,
        reward_funcs=reward,
        args=settings,
        train_dataset=Dataset.from_dict({"prompt": tasks}),
        processing_class=tokenizer,
        rollout_func=rollout,
        callbacks=[Turns()],
    ).train()


# Both ------------------------------------------------------------------------------------------------


class Side:
    """A process that plays one iteration when told to."""

    def __init__(self, name: str, recipe: str, settings: list[str]):
        self.times = Times()
        self.rows: list[dict[str, float]] = []
        self.process = subprocess.Popen(
            [
                sys.executable,
                __file__,
                "--side",
                name,
                "--recipe",
                recipe,
                "--settings",
                json.dumps(settings),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("BENCH_VERBOSE") else subprocess.DEVNULL,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "TRL_EXPERIMENTAL_SILENCE": "1"},
        )

    def iteration(self, counts: bool) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith(MARK):
                row = json.loads(line.removeprefix(MARK))
                if counts:
                    self.rows.append(row)
                    self.times.add(row["cpu"], row["wall"])
                return
        raise SystemExit("A side ended early; run again with BENCH_VERBOSE=1 to see why.")

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


def summary(name: str, side: Side) -> str:
    def middle(key: str) -> float:
        return statistics.median(row[key] for row in side.rows)

    return (
        f"{name:<8}{middle('cpu'):>9.2f}{middle('wall'):>9.2f}{middle('steps'):>9,.0f}"
        f"{middle('tokens'):>10,.0f}{middle('won'):>9.1%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--recipe", default="sokoban-tiny", help="sokoban-tiny, alfworld-tiny, webshop-tiny")
    parser.add_argument("--init", type=Path, help="a warm start of the recipe  [default: made here, minutes]")
    parser.add_argument("--groups", type=int, default=64)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--minibatches", type=int, default=8)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="a small job, seconds")
    parser.add_argument("overrides", nargs="*", help="settings of both sides, such as prompt.context=chat")
    parser.add_argument("--side", choices=("ours", "trl"), help=argparse.SUPPRESS)
    parser.add_argument("--settings", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        config = load_config(arguments.recipe, arguments.settings)
        with tempfile.TemporaryDirectory() as folder:
            (play_ours if arguments.side == "ours" else play_trl)(config, Path(folder))
        return
    try:
        import datasets  # noqa: F401
        import trl  # noqa: F401
    except ImportError as error:
        raise SystemExit(f"{INSTALL} ({error})") from error
    if arguments.quick:
        arguments.groups, arguments.group_size, arguments.minibatches = 4, 4, 2
    repetitions = 2 if arguments.quick else arguments.repetitions
    with tempfile.TemporaryDirectory() as folder:
        init = warm_start(arguments.recipe, Path(folder), arguments.quick, arguments.init)
        settings = job_settings(arguments, str(Path(init).resolve()))
        ours, theirs = (Side(name, arguments.recipe, settings) for name in ("ours", "trl"))
        for turn in range(repetitions + 1):  # the first does not count
            for side in (ours, theirs) if turn % 2 else (theirs, ours):
                side.iteration(counts=turn > 0)
            if turn:
                last = [f"{side.times.cpu[-1]:.1f}" for side in (theirs, ours)]
                print(f"turn {turn}: TRL {last[0]} s, ours {last[1]} s of the processor", flush=True)
        ours.stop(), theirs.stop()
    episodes = arguments.groups * arguments.group_size
    print(f"{arguments.recipe}, {episodes} episodes, {arguments.minibatches} optimizer steps an iteration")
    print(versions("torch", "transformers", "trl"))
    print(f"{'':<8}{'cpu s':>9}{'wall s':>9}{'steps':>9}{'sampled':>10}{'won':>9}")
    print(summary("TRL", theirs))
    print(summary("ours", ours))
    print(f"ratio, processor seconds an iteration: {ratio(theirs.times.cpu, ours.times.cpu)}")
    print(f"ratio, wall seconds an iteration:      {ratio(theirs.times.wall, ours.times.wall)}")
    step = [[row["cpu"] / row["steps"] for row in side.rows] for side in (theirs, ours)]
    print(f"ratio, processor seconds a step:       {ratio(*step)}")
    print(DIFFERENCES)


if __name__ == "__main__":
    main()
