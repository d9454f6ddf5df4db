"""RePro-PO end to end in one file, from the package's parts: own optimizers, own loops, nothing hidden.

    python examples/rl_loop.py --seed 0

It trains what `repro-rl demo` trains: demonstrations, Retrospection Warmup, RePro-PO, and success on 500
held-out Sokoban rooms before and after. It draws the same random numbers, so on one thread its figures are
the demo's, to the last digit. Left out for brevity: checkpoints, resume, several ranks, alarms, dropout and
validation during RL. Methods and losses that need more than this loop has are refused. Everything it calls
is public; docs/library-training.md explains the parts.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import repro_rl as rr
from repro_rl import TokenKind
from repro_rl.random_streams import name_key
from repro_rl.train import Batch, Row, imitation_batches, minibatch_order, trained_tokens


class Agent:
    """A policy with what it acts in, what it is asked, and how its samples become batches."""

    def __init__(self, setup: rr.Setup, model: str | Path, *, training: bool = True):
        self.setup, self.config = setup, setup.config
        self.policy = rr.TransformersPolicy.load(model, self.config.policy, training=training)
        self.codec = self.policy.codec
        self.context = setup.context(self.codec)
        self.collation = rr.Collation.of(self.policy)

    def actor(self, temperature: float, prompts: rr.PromptBuilder | None = None) -> rr.Actor:
        return rr.Actor(self.policy, prompts or self.setup.prompts, self.setup.action_sampling(temperature))

    def success(self, panel: rr.TaskPanel, actor: rr.Actor) -> float:
        """Share of the panel's tasks that are won."""
        requests = [rr.RolloutRequest(task, 0) for task in panel.ids]
        options = rr.PlayOptions(stream=("panel", self.config.eval.seed))
        played = self.context.play(requests, actor, None, options)
        return sum(trajectory.won for trajectory in played) / len(played)

    def rl_batches(self, rows: list[Row], scales: dict[TokenKind, float]) -> Iterator[Batch]:
        """Micro-batches of merged rows; a token of a kind counts ``scales[kind]`` in the loss."""
        for chunk in self.collation.split(rows, self.config.train.micro_tokens):
            yield self.collation.collate(chunk, scales)

    def imitate(self, samples: list[rr.Sample], kind: TokenKind, coef: float = 1.0) -> float:
        """The gradient of ``coef`` times the mean cross-entropy of samples of one kind; returns the loss."""
        total, micro_tokens = 0.0, self.config.train.micro_tokens
        for batch in imitation_batches(samples, {kind: coef}, self.collation, micro_tokens):
            loss = rr.imitation_loss(self.policy.model, batch)
            loss.backward()
            total += float(loss.detach())
        return total

    def step(self, optimizer: torch.optim.Optimizer, lr: float, clip: float) -> None:
        """One optimizer step on the gradients there are."""
        for group in optimizer.param_groups:
            group["lr"] = lr
        torch.nn.utils.clip_grad_norm_(self.policy.model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self.policy.weights_changed()


def warm_up(agent: Agent, data: rr.ImitationData) -> None:
    """Stage 1: imitate experts and labelled reflections until one task in seven is won."""
    config, section = agent.config, agent.config.warmup
    validation = agent.setup.validation_panel()
    actor = agent.actor(config.eval.validation_temperature, agent.setup.prompts_with(progress=True))
    optimizer = torch.optim.AdamW(agent.policy.model.parameters(), betas=(0.9, 0.99), weight_decay=0.0)
    for update in range(1, section.updates + 1):
        rng = np.random.default_rng(name_key(config.seed, "warmup", update))
        acts = section.forward_batch if update > section.forward_from else 0
        acting, reflecting = data.draw(acts, section.reflect_batch, rng)
        agent.imitate(acting, TokenKind.ACT)
        agent.imitate(reflecting, TokenKind.REFLECT)
        decay = 1 - (1 - section.lr_end) * update / section.updates
        agent.step(optimizer, section.lr * min(1, update / section.lr_warmup) * decay, section.grad_clip)
        if acts and update % section.check_every == 0:
            success = agent.success(validation, actor)
            print(f"warmup {update}: success {success:.3f}", flush=True)
            if section.target_success is not None and success >= section.target_success:
                return


def play(agent: Agent, tasks: list[str], iteration: int) -> list[rr.Group]:
    """Stage 2, a rollout: act, reflect, and credit every step with the composite reward."""
    config = agent.config
    method, train, setup = config.method, config.train, agent.setup
    size, choice = train.group_size, setup.reflection_choice()

    def sampling(trajectory: rr.Trajectory) -> rr.SamplingSettings:
        """What is trained on is sampled as the policy acts; other reflections greedily (decision D23)."""
        group, number = divmod(trajectory.rollout, size)
        trained = number in choice.chosen(iteration, group, size)
        judge = train.temperature if method.judge_temperature is None else method.judge_temperature
        return setup.reflection_sampling(train.temperature if trained else judge)

    stream = ("train", config.seed, iteration)
    actor = agent.actor(train.temperature)
    groups = rr.play(agent.context, tasks, actor, rr.Judge(sampling), group_size=size, stream=stream)
    rr.assign_credit(groups, method)
    rr.reflection_advantages(groups, [choice.chosen(iteration, g, size) for g in range(len(groups))])
    return groups


def update(
    agent: Agent,
    reference: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    groups: list[rr.Group],
    data: rr.ImitationData,
    iteration: int,
) -> None:
    """The policy loss with KL over the groups, labelled reflections rehearsed beside it."""
    config, model = agent.config, agent.policy.model
    train, method = config.train, config.method
    how = rr.SampleFormat(agent.setup.prompts.fmt, agent.codec.decode, method.advantage_on)
    samples = agent.context.samples(groups, how)
    settings = rr.LossSettings(train.clip, train.kl, train.entropy_coef, train.temperature, train.loss)
    lr = train.lr * min(1, iteration / train.lr_warmup)
    dealt = minibatch_order(len(groups), iteration, config.seed)  # the groups of an update are never split
    parts = [set(part.tolist()) for part in np.array_split(dealt, train.minibatches)]
    step = 0
    for epoch in range(train.epochs):
        order = np.random.default_rng(name_key(config.seed, "order", iteration, epoch))
        for index in order.permutation(len(parts)):
            step += 1
            rows = rr.merge([sample for sample in samples if sample.group in parts[index]])
            scales = {
                TokenKind.ACT: 1 / max(trained_tokens(rows, TokenKind.ACT), 1),
                TokenKind.REFLECT: method.reflect_coef / max(trained_tokens(rows, TokenKind.REFLECT), 1),
            }
            for batch in agent.rl_batches(rows, scales):
                with torch.no_grad():
                    values = rr.reference_values(reference, batch, train.kl.form, train.temperature)
                rr.policy_loss(model, replace(batch, reference=values), settings).total.backward()
            rng = np.random.default_rng(name_key(config.seed, "rehearsal", iteration, step))
            rehearsed = data.draw(0, method.rehearsal, rng)[1]
            agent.imitate(rehearsed, TokenKind.REFLECT, method.rehearsal_coef)
            agent.step(optimizer, lr, train.grad_clip)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("settings", nargs="*", help="SECTION.KEY=VALUE on top of the recipe sokoban-tiny")
    arguments = parser.parse_args()
    config = rr.load_config("sokoban-tiny", [f"seed={arguments.seed}", *arguments.settings])
    train, method = config.train, config.method
    other_loop = method.scores or train.dynamic_sampling or train.loss.aggregation != "token-mean"
    if other_loop or not method.learns_to_judge:
        parser.error("only token-mean, no second scoring, no dynamic sampling; the policy is its own judge")
    setup = rr.set_up(config)
    env = setup.pool.first
    experts, labelled = rr.collect_demos(env, env.panel("train").ids, config.demos, seed=config.seed)
    with tempfile.TemporaryDirectory() as folder:
        initial = setup.initial_model([*experts, *labelled], Path(folder) / "initial")
        agent = Agent(setup, initial)
        modes = rr.PromptModes(
            config.warmup.forward_modes,
            act=setup.prompts_with(progress=False),
            progress=setup.prompts_with(progress=True),
            demonstrations=config.prompt.demonstrations,
            seed=config.seed,
        )
        data = rr.imitation_data(agent.context, agent.codec, modes, experts, labelled)
        warm_up(agent, data)
        agent.policy.save(Path(folder) / "warm")
        reference = Agent(setup, Path(folder) / "warm", training=False).policy.model.requires_grad_(False)
    test = setup.panel(config.eval.split, config.eval.tasks)
    actor = agent.actor(config.eval.temperature)
    before = agent.success(test, actor)
    optimizer = torch.optim.AdamW(agent.policy.model.parameters(), betas=train.betas, weight_decay=0.0)
    panel, steps = setup.panel(train.split), 0
    for iteration in range(1, train.iterations + 1):
        tasks = rr.task_schedule(panel.ids, config.seed, iteration, train.groups)
        groups = play(agent, tasks, iteration)
        update(agent, reference, optimizer, groups, data, iteration)
        trajectories = [trajectory for group in groups for trajectory in group.trajectories]
        won = sum(trajectory.won for trajectory in trajectories) / len(trajectories)
        steps += sum(trajectory.length for trajectory in trajectories)
        print(f"iteration {iteration}: success {won:.3f}, {steps} environment steps", flush=True)
        if train.env_steps is not None and steps >= train.env_steps:
            break
    after = agent.success(test, actor)
    print(f"held-out success {before:.3f} → {after:.3f} on {test.label()}, seed {config.seed}")


if __name__ == "__main__":
    main()
