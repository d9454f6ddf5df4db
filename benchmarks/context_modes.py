"""What the two context modes cost as episodes grow, and whether a tiny model learns in both.

``python benchmarks/context_modes.py cost``: one core, no GPU, minutes. Sokoban in full style with an
untrained tiny Qwen3, whose answers solve nothing. So every episode lasts exactly as long as it may: 5 to 50
steps. Counted are the cells (rows x width, padding included) that go through the weights, and CPU time, of
playing with reflection and of one update. The exponent a of cost ~ steps^a is fitted on logarithms, "+1" is
the slope of a straight line: what one more step costs. A word is a token. ``--plot FILE.svg`` draws it.

``python benchmarks/context_modes.py learn --out FOLDER``: a short warmup and RePro on a few small Sokoban
rooms in both modes, from the same demonstrations and with the same environment-step budget.

``python benchmarks/context_modes.py tokens --ranks qwen.tiktoken``: how long conversations are, full style,
in Qwen's own tokens: what ``prompt.max_chat_tokens`` must hold.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from repro_rl import make
from repro_rl.config import DemosSection, RunConfig, TinySection, load_config
from repro_rl.demos import collect_demos, save_demos
from repro_rl.demos.collect import play
from repro_rl.envs import TextEnv
from repro_rl.policy import build_tiny
from repro_rl.policy.forward import packed
from repro_rl.policy.forward.tree import TokenTree
from repro_rl.policy.tokens.codec import Conversation, TextCodec
from repro_rl.policy.tokens.qwen_tokenizer import build_tokenizer, read_ranks
from repro_rl.report.lines import PALETTE
from repro_rl.rollout import read_trajectories
from repro_rl.rollout.context.window import first_inputs, replayed
from repro_rl.run.model_paths import find_model
from repro_rl.run.setup import build_prompts, set_up
from repro_rl.study.evaluate import EvalRequest, evaluate
from repro_rl.text import PromptBuilder, StepInputs, TextFormat
from repro_rl.text.turns import TurnPrompts
from repro_rl.train import RLRun, run_training, run_warmup
from repro_rl.types import Trajectory

MODES = ("window", "chat")


# Cost ---------------------------------------------------------------------------------------------


def cost_settings(mode: str, steps: int, model: Path, tasks: int, history: int) -> list[str]:
    return [
        f"env.settings={{style: grid, max_steps: {steps}, solution: [3, 5], train_rooms: 40, "
        "validation_rooms: 5, test_rooms: 5}",
        f"prompt={{style: full, think: 'off', context: {mode}, history: {history}, action_tokens: 16, "
        "reflect_new_tokens: 64, max_prompt_tokens: 4000, max_reflect_tokens: 16000, max_chat_tokens: 16000}",
        f"policy={{model: {model}, device: cpu}}",
        "method={name: repro, rehearsal: 0}",
        f"train={{init: {model}, groups: {tasks}, group_size: 2, minibatches: 1, epochs: 1, "
        "micro_tokens: 8192, kl: {form: none}, validate_every: 0, record_every: 0}",
        "eval={validation_tasks: 5}",
    ]


def word_model(folder: Path, think: str = "'off'") -> Path:
    """An untrained tiny model that knows the words of the full prompts; others become ``<unk>``."""
    env = make("sokoban", style="grid")
    first = replace(first_inputs(env, env.panel("train").ids[0]), max_steps=9)
    section = load_config(None, ["prompt.style=full", "prompt.report=before", f"prompt.think={think}"]).prompt
    texts = [build_prompts(section, progress, reflects=True).act(first) for progress in (False, True)]
    turns = TurnPrompts(build_prompts(section, progress=True, reflects=True))
    texts += [turns.act(StepInputs("", "", "", (), step, 9)) for step in (1, 2)]
    texts += [turns.reflect(goal="", observation="", length=9, won=won, score=0.0) for won in (True, False)]
    words = {*" ".join(texts).split(), *"#_OXPS√", "up", "down", "left", "right", *map(str, range(101))}
    words |= {f"{number}{sign}" for number in range(101) for sign in ".]:,;"}
    return build_tiny(folder, words, TinySection(positions=16_384))


@contextmanager
def cells_of(model: Any) -> Iterator[list[int]]:
    """The cells of every forward pass inside the block: the model's own, and those over token trees."""
    counted: list[int] = []
    forward, extend = packed.forward, packed.extend

    def over_tree(model: Any, tree: TokenTree, *rest: Any) -> torch.Tensor:
        counted.append(len(tree.token))
        return forward(model, tree, *rest)

    def over_cache(model: Any, cache: Any, ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        counted.append(ids.numel())  # ended rows that stay in the buffers are computed too
        return extend(model, cache, ids, *rest)

    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: counted.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    try:
        with patch.multiple(packed, forward=over_tree, extend=over_cache):
            yield counted
    finally:
        hook.remove()


def measure(config: RunConfig, out: Path) -> dict[str, float]:
    """Cells and CPU seconds of one rollout and one update, per episode."""
    run = RLRun(set_up(config), out)
    parts: dict[str, float] = {}
    results: dict[str, Any] = {}
    episodes = config.train.groups * config.train.group_size
    rollout, update = run.rollout, run.updater.update

    def timed(name: str, work: Any) -> Any:
        def wrapped(*args: Any, **more: Any) -> Any:
            with cells_of(run.policy.model) as counted:
                begin = time.process_time()
                results[name] = work(*args, **more)
                parts[f"{name} s"] = (time.process_time() - begin) / episodes
            parts[f"{name} cells"] = sum(counted) / episodes
            return results[name]

        return wrapped

    run.rollout = timed("rollout", rollout)  # type: ignore[method-assign]
    run.updater.update = timed("update", update)  # type: ignore[method-assign]
    run.step()
    lengths = {t.length for group in results["rollout"] for t in group.trajectories}
    assert lengths == {config.env.settings["max_steps"]}, lengths
    return parts


def cost(lengths: list[int], tasks: int, history: int, plot: Path | None) -> None:
    torch.set_num_threads(1)
    table: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
    with tempfile.TemporaryDirectory() as folder:
        model = word_model(Path(folder) / "model")
        names = ("rollout cells", "update cells", "rollout s", "update s")
        print(
            f"Sokoban grid, full style, window history {history}, {2 * tasks} episodes a row; per episode: "
            "cells through the weights, CPU seconds"
        )
        print(f"{'mode':<8}{'steps':>6}" + "".join(f"{name:>15}" for name in names))
        for mode in MODES:
            for steps in lengths:
                config = load_config(None, cost_settings(mode, steps, model, tasks, history))
                row = measure(config, Path(folder) / f"{mode}-{steps}")
                table[mode].append(row)
                print(
                    f"{mode:<8}{steps:>6}"
                    + "".join(f"{row[n]:>15,.0f}" if "cells" in n else f"{row[n]:>15.3f}" for n in names),
                    flush=True,
                )
        for mode in MODES:
            fits = [exponent(lengths, [row[name] for row in table[mode]]) for name in names]
            print(f"{mode:<8}{'a':>6}" + "".join(f"{a:>15.2f}" for a in fits))
            slopes = [float(np.polyfit(lengths, [row[name] for row in table[mode]], 1)[0]) for name in names]
            print(
                f"{mode:<8}{'+1':>6}"
                + "".join(
                    f"{v:>15,.0f}" if "cells" in n else f"{v:>15.4f}"
                    for n, v in zip(names, slopes, strict=True)
                )
            )
    if plot is not None:
        draw(lengths, table, plot)


def exponent(x: list[int], y: list[float]) -> float:
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def draw(lengths: list[int], table: dict[str, list[dict[str, float]]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    style = {
        "svg.fonttype": "none", "svg.hashsalt": "repro-rl", "font.family": "DejaVu Sans", "font.size": 9,
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25,
        "axes.axisbelow": True, "lines.linewidth": 1.5,
    }  # fmt: skip
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(7.6, 3.1), layout="constrained")
        panels = (("rollout cells", "update cells", "cells through the weights"),
                  ("rollout s", "update s", "CPU seconds"))  # fmt: skip
        for axes, (played, trained, label) in zip(figure.subplots(1, 2), panels, strict=True):
            for color, mode in zip((PALETTE[1], PALETTE[0]), MODES, strict=True):
                for name, dash in ((played, "-"), (trained, "--")):
                    y = [row[name] for row in table[mode]]
                    a = exponent(lengths, y)
                    part = name.split()[0]
                    axes.plot(lengths, y, dash, color=color, marker="o", markersize=3,
                              label=f"{mode}, {part}: a = {a:.2f}")  # fmt: skip
            axes.set(xlabel="steps of the episode", ylabel=f"{label} an episode")
            axes.set_xlim(left=0)
            axes.set_ylim(bottom=0)
            axes.legend(frameon=False, fontsize=7.5)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    text = path.read_text()
    path.write_text(re.sub(r"[ \t]+\n", "\n", text))


# Lengths ------------------------------------------------------------------------------------------


def conversation_length(env: TextEnv, trajectory: Trajectory, text: TextCodec, turns: TurnPrompts) -> int:
    """Tokens of an episode as a conversation, its reflection included; nothing is shortened."""
    conversation, prompts = Conversation(text), turns.prompts

    def add(turn: str, answer: str) -> None:
        conversation.add(conversation.turn(turn), text.encode_target(answer))

    for inputs, step in replayed(env, trajectory):
        add(turns.act(inputs), prompts.action_target(50, step.action) if step.action.strip() else "")
    question = turns.reflect(
        goal=trajectory.goal, observation=trajectory.final_observation, length=trajectory.length,
        won=trajectory.won, score=trajectory.score,
    )  # fmt: skip
    add(question, prompts.reflection_target([50] * trajectory.length))
    return len(conversation.ids)


def tokens(ranks_file: Path, tasks: int) -> None:
    ranks = read_ranks(ranks_file)
    turns = TurnPrompts(PromptBuilder(TextFormat("full", progress=True, think="optional")))
    print(f"{tasks} tasks x 3 players (expert, half random, random); no thoughts; median / max tokens")
    for name, family, settings in (
        ("webshop", "qwen2.5", {"style": "compact"}),
        ("alfworld", "qwen2.5", {"style": "text"}),
        ("sokoban", "qwen3", {"style": "grid"}),
        ("sokoban", "qwen3", {"style": "coordinates"}),
    ):
        env, text = make(name, **settings), TextCodec(build_tokenizer(ranks, family), chat="on")
        rng = np.random.default_rng(0)
        episodes = [
            play(env, task, noise, rng)
            for task in env.panel("train").ids[:tasks]
            for noise in (0.0, 0.5, 1.0)
        ]
        lengths = [conversation_length(env, t, text, turns) for t in episodes]
        steps = [t.length for t in episodes]
        print(
            f"{name:<9} {settings['style']:<12} {int(np.median(lengths)):>6} / {max(lengths):>6}   "
            f"steps {int(np.median(steps)):>3} / {max(steps):>3}",
            flush=True,
        )


# Learning -----------------------------------------------------------------------------------------


def learn_settings(mode: str, steps: int) -> list[str]:
    return [
        "env.settings={style: relative, train_rooms: 64, validation_rooms: 32, test_rooms: 64, "
        "solution: [2, 5], max_steps: 8}",
        "policy={model: tiny, device: cpu, tiny: {hidden: 64, heads: 4, kv_heads: 4, ffn: 128, "
        "positions: 512}}",
        f"prompt={{style: compact, context: {mode}, resolution: 10, action_tokens: 3, "
        "reflect_new_tokens: 18}",
        # A conversation holds about four answers: rows of both modes teach about as many.
        f"warmup={{updates: 150, forward_from: 50, forward_batch: {8 if mode == 'chat' else 32}, "
        "reflect_batch: 16, lr: 5e-3, lr_end: 0.5, target_success: 0.3, check_every: 10}",
        "method={name: repro, gamma: 0.5, beta: 10, reflect_share: 0.125, reflect_coef: 0.1, rehearsal: 4}",
        "train={groups: 16, group_size: 8, lr: 1e-3, lr_warmup: 3, epochs: 1, minibatches: 4, "
        f"env_steps: {steps}, iterations: 200, validate_every: 0, record_every: 0, save_every: 10}}",
        "eval={tasks: 64, validation_tasks: 32, rollouts: 4}",
    ]


def copying(path: Path) -> tuple[float, float]:
    """Mean |q_t - P_t| over judged steps, and the share of them where both are the same number."""
    pairs = [
        (step["online"], value)
        for record in read_trajectories(path)
        if record["reflection"] and record["reflection"]["values"]
        for step, value in zip(record["steps"], record["reflection"]["values"], strict=True)
        if step["online"] is not None
    ]
    gaps = np.abs(np.diff(np.array(pairs, dtype=float), axis=1)) if pairs else np.zeros((1, 1))
    return float(gaps.mean()), float((gaps == 0).mean())


def learn(out: Path, steps: int, seeds: int) -> None:
    torch.set_num_threads(1)
    env = make("sokoban", **load_config(None, learn_settings("window", steps)).env.settings)
    for seed in range(seeds):
        demos = out / f"demos-{seed}"
        if not (demos / "expert.jsonl.gz").exists():
            section = DemosSection(
                expert=48, winning=100, failing=200, labelled_mistakes=(0.5, 1.0), annotator="oracle"
            )
            save_demos(demos, *collect_demos(env, env.panel("train").ids, section, seed=seed))
        for mode in MODES:
            settings = [*learn_settings(mode, steps), f"seed={seed}"]
            begin = time.process_time()
            warm = run_warmup(load_config(None, settings), demos, out / f"warm-{mode}-{seed}")
            warmed = time.process_time()
            config = load_config(None, [*settings, f"train.init={warm}", f"train.demos={demos}"])
            run = run_training(config, out / f"run-{mode}-{seed}")
            trained = time.process_time()
            for name, model in (("warm", warm), ("trained", find_model(run.out))):
                result = evaluate(config, model, EvalRequest(name, out=run.out))
                distance, copied = copying(run.out / "trajectories" / f"eval-{name}.jsonl.gz")
                print(
                    f"{mode:<7} seed {seed} {name:<8} unseen rooms: success {result['success']:.3f} "
                    f"[{result['low']:.3f}, {result['high']:.3f}] of {result['episodes']}; "
                    f"|online - retrospective| {distance:.1f}, equal {copied:.2f}",
                    flush=True,
                )
            last = run.log.rows[-1]
            success = [row["rollout/success"] for row in run.log.rows]
            print(
                f"{mode:<7} seed {seed} training rooms: success {np.mean(success[:2]):.3f} in the first two, "
                f"{np.mean(success[-5:]):.3f} in the last five iterations",
                flush=True,
            )
            print(
                f"{mode:<7} seed {seed} CPU s: warmup {warmed - begin:.0f}, RL {trained - warmed:.0f}; "
                f"{run.env_steps} steps, {run.iteration} iterations, mismatch {last['update/mismatch']:.1e}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(dest="part", required=True)
    first = parts.add_parser("cost")
    first.add_argument("--steps", type=int, nargs="+", default=[5, 10, 20, 35, 50])
    first.add_argument("--tasks", type=int, default=4)
    first.add_argument("--history", type=int, default=2)
    first.add_argument("--plot", type=Path)
    second = parts.add_parser("learn")
    second.add_argument("--out", type=Path, required=True)
    second.add_argument("--env-steps", type=int, default=15_000)
    second.add_argument("--seeds", type=int, default=1)
    third = parts.add_parser("tokens")
    third.add_argument("--ranks", type=Path, required=True, help="Qwen's BPE ranks, qwen.tiktoken")
    third.add_argument("--tasks", type=int, default=8)
    given = parser.parse_args()
    if given.part == "tokens":
        tokens(given.ranks, given.tasks)
    elif given.part == "cost":
        cost(given.steps, given.tasks, given.history, given.plot)
    else:
        learn(given.out, given.env_steps, given.seeds)


if __name__ == "__main__":
    main()
