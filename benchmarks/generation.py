"""Our generation against ``model.generate`` on prompts of real rollouts: ``python benchmarks/generation.py``.

Both sample at temperature 1, at most as many tokens as the recipe's answers have. Their batches are the same
ones, of a Sokoban or ALFWorld rollout in compact style. For transformers they are left-padded with the cache
on, as a user would do it. One thread, no GPU. First greedy tokens of both sides are compared; sampling has
other random numbers there.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from side_by_side import alternate, median_ms, ratio, versions
from warm_start import warm_start

from repro_rl.config import PolicySection, TinySection, load_config
from repro_rl.policy import SamplingSettings, TransformersPolicy, build_tiny
from repro_rl.random_streams import name_key
from repro_rl.run.setup import set_up
from repro_rl.train import RLRun
from repro_rl.types import Ids

BIG = TinySection(hidden=384, layers=8, heads=6, kv_heads=6, ffn=1280)  # 16.5 million parameters
LOGPROB = 2e-5  # nats: a few last bits of logits of 20 and more


def rollout_batches(run: RLRun) -> tuple[list[list[Ids]], list[Ids]]:
    """Prompts of one rollout: a batch a step of the episodes, and those of the reflections."""
    groups = run.rollout(1)
    steps: list[list[Ids]] = []
    reflections = []
    for trajectory in (t for group in groups for t in group.trajectories):
        for step in trajectory.steps:
            while len(steps) < step.t:
                steps.append([])
            steps[step.t - 1].append(step.completion.prompt_ids)
        if trajectory.reflection is not None:
            reflections.append(trajectory.reflection.completion.prompt_ids)
    return steps, reflections


def once(batches: list[list[Ids]]) -> list[list[Ids]]:
    return [sorted(set(batch)) for batch in batches]


def hub(policy: TransformersPolicy, prompts: list[Ids], settings: SamplingSettings) -> torch.Tensor:
    """``model.generate`` on the left-padded batch: new tokens [B, N]."""
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), policy.codec.pad_id)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    with torch.no_grad():
        out = policy.model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=settings.max_new_tokens,
            do_sample=settings.temperature > 0,
            temperature=settings.temperature or None,
            top_k=None,
            top_p=None,
            pad_token_id=policy.codec.pad_id,
        )
    return out[:, width:]


def ours(policy: TransformersPolicy, prompts: list[Ids], settings: SamplingSettings) -> list[Any]:
    keys = np.array([name_key("generation", i) for i in range(len(prompts))], dtype=np.uint64)
    return policy.generate_ids(prompts, keys, settings)


def check(policy: TransformersPolicy, prompts: list[Ids], new_tokens: int) -> tuple[int, float]:
    """(rows whose greedy tokens differ, largest difference of a sampled log-prob to a plain forward pass).

    A greedy token may differ where two logits are equal up to the last bits: such rows are not counted.
    """
    greedy = SamplingSettings(new_tokens, temperature=0)
    theirs = hub(policy, prompts, greedy).tolist()
    wrong = 0
    for prompt, row, completion in zip(prompts, theirs, ours(policy, prompts, greedy), strict=True):
        if list(completion.token_ids) != row[: len(completion.token_ids)]:
            first = next(i for i, token in enumerate(completion.token_ids) if token != row[i])
            logits = plain(policy, (*prompt, *row[:first]))[-1]
            gap = float(logits[row[first]] - logits[completion.token_ids[first]])
            wrong += abs(gap) > 1e-5
    worst = 0.0
    for completion in ours(policy, prompts, SamplingSettings(new_tokens))[:64]:
        ids = (*completion.prompt_ids, *completion.token_ids)
        logp = torch.log_softmax(plain(policy, ids), dim=-1)[len(completion.prompt_ids) - 1 : -1]
        picked = logp[range(len(logp)), list(completion.token_ids)].numpy()
        worst = max(worst, float(np.abs(picked - completion.logprobs).max()))
    return wrong, worst


def plain(policy: TransformersPolicy, ids: Ids) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = policy.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    return logits


def untrained(like: TransformersPolicy, folder: Path, size: TinySection) -> TransformersPolicy:
    """An untrained model over the same words."""
    words = like.codec.tokenizer.get_vocab()
    policy = TransformersPolicy.load(build_tiny(folder, words, size), PolicySection(device="cpu"))
    assert policy.codec.tokenizer.get_vocab() == words
    return policy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--recipe", default="sokoban-tiny", help="sokoban-tiny, alfworld-tiny, webshop-tiny")
    parser.add_argument("--init", type=Path, help="a warm start of the recipe  [default: made here, minutes]")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--skip", type=int, default=0, help="rows of the table to leave out, from the top")
    parser.add_argument("--quick", action="store_true", help="seconds: a small rollout, an untrained judge")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    repetitions = 2 if arguments.quick else arguments.repetitions
    small = ["train.groups=4", "train.group_size=4", "train.minibatches=2"] if arguments.quick else []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        init = warm_start(arguments.recipe, folder, arguments.quick, arguments.init)
        settings = [f"train.init={init}", "method=repro", "method.progress=false", "method.alignment=none"]
        config = load_config(arguments.recipe, [*settings, "method.rehearsal=0", *small])
        run = RLRun(set_up(config), folder / "run")
        steps, reflections = rollout_batches(run)
        answer, judged = config.prompt.action_tokens, config.prompt.reflect_new_tokens
        sample = [steps[i] for i in range(0, len(steps), 4)]
        few = sample[1::3]
        cases: list[tuple[str, list[list[Ids]], int, bool]] = [
            ("all steps of a rollout", steps, answer, False),
            ("every fourth step", sample, answer, False),
            ("the same, no duplicates", once(sample), answer, False),
            ("reflections", [reflections], judged, False),
            ("16M parameters, a few of these", few, answer, True),
            ("the same, no duplicates", once(few), answer, True),
        ]
        print(f"{arguments.recipe}; {versions('torch', 'transformers')}; processor milliseconds, medians")
        print(
            f"{'batches':<36}{'rows':>7}{'distinct':>9}{'prompt':>8}{'new':>5}{'generate':>10}{'ours':>8}"
            "  ratio (range)"
        )
        large = untrained(run.policy, folder / "large", TinySection() if arguments.quick else BIG)
        worst = 0.0
        for title, batches, new_tokens, is_big in cases[arguments.skip :]:
            policy = large if is_big else run.policy
            for batch in batches[:2]:
                wrong, difference = check(policy, batch, new_tokens)
                worst = max(worst, difference)
                if wrong:
                    raise SystemExit(f"{title}: greedy tokens of {wrong} of {len(batch)} rows differ")
            sampling = SamplingSettings(new_tokens)

            def theirs(p: Any = policy, b: Any = batches, s: Any = sampling) -> None:
                for batch in b:
                    hub(p, batch, s)

            def mine(p: Any = policy, b: Any = batches, s: Any = sampling) -> None:
                p.weights_changed()  # nothing from the last repetition
                for batch in b:
                    ours(p, batch, s)

            slow, fast = alternate(theirs, mine, repetitions)
            rows, every = sum(map(len, batches)), sum(len(set(batch)) for batch in batches)
            width = sum(len(ids) for batch in batches for ids in batch) / rows
            print(
                f"{title:<36}{rows:>7,}{every:>9,}{width:>8.1f}{new_tokens:>5}{median_ms(slow.cpu):>10}"
                f"{median_ms(fast.cpu):>8}  {ratio(slow.cpu, fast.cpu)}",
                flush=True,
            )
        print(f"greedy tokens equal; sampled log-probs within {worst:.1e} of the training forward pass")
        if worst > LOGPROB:
            raise SystemExit(f"log-probs differ by more than {LOGPROB}")


if __name__ == "__main__":
    main()
