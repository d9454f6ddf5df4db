"""Playing demonstrations: of the expert, and of a noisy one that also fails (decision D28)."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from typing_extensions import TypedDict

from repro_rl.config import DemosSection, RunConfig
from repro_rl.demos.annotation import AnnotationContext, BatchAnnotator
from repro_rl.demos.annotators import ANNOTATORS, annotate_all
from repro_rl.demos.mistakes import demonstrate, fill_placeholder, play_with_mistakes
from repro_rl.demos.own import own_episodes
from repro_rl.demos.recorded import recorded_episodes
from repro_rl.demos.store import trajectory_from_record
from repro_rl.envs.base import TextEnv
from repro_rl.envs.contract import check_progress, checked_reset
from repro_rl.errors import DataError, counted
from repro_rl.files import UnfinishedRows, check_record
from repro_rl.files.records import Count
from repro_rl.random_streams import name_key
from repro_rl.rollout.counts import common
from repro_rl.rollout.episode import play_actions
from repro_rl.rollout.record import trajectory_record
from repro_rl.rollout.record_schema import TrajectoryRecord
from repro_rl.types import Trajectory

KINDS = ("expert", "unsolved", "wandering", "noisy")  # of episodes that are played
STALE_SHARE = 0.4  # of the random actions: drawn from all actions that were admissible so far

OWN_EPISODES = "or give episodes of your own in demos.episodes, with demos.expert, winning and failing at 0"


@dataclass(slots=True)
class CollectHooks:
    """Callbacks of a collection, and its notes."""

    on_done: Callable[[int], None] | None = None  # called with the number of episodes played
    on_to_label: Callable[[int], None] | None = None  # once: how many episodes a batch annotator will answer
    on_label: Callable[[int], None] | None = None  # with the number of episodes that it has answered
    on_resumed: Callable[[int], None] | None = None  # with the number of episodes that ``unfinished`` holds
    notes: dict[str, Any] = field(default_factory=dict)  # receives the annotator's counts
    unfinished: UnfinishedRows | None = None  # receives the episodes as they are played; begins with its rows


def play(env: TextEnv, task_id: str, noise: float, rng: np.random.Generator) -> Trajectory:
    """One episode of the expert with a share ``noise`` of random actions.

    Where the expert has no plan (a dead end), actions are random. Some random actions were admissible only
    earlier in the episode: a trained policy tries impossible actions too, and its judge must know them.
    """
    admissible_so_far: dict[str, None] = {}

    def choose(info: dict[str, Any]) -> str:
        plan = None if rng.random() < noise else env.expert()
        admissible_so_far.update(dict.fromkeys(info["admissible"]))
        choices = list(admissible_so_far) if rng.random() < STALE_SHARE else info["admissible"]
        if plan is not None:
            return plan
        action = choices[int(rng.integers(len(choices)))] if choices else ""
        return fill_placeholder(action, info["goal"], rng)

    return play_actions(env, task_id, choose)


def collect_demos(
    env: TextEnv,
    task_ids: Sequence[str],
    demos: DemosSection,
    *,
    seed: int,
    config: RunConfig | None = None,
    hooks: CollectHooks | None = None,
) -> tuple[list[Trajectory], list[Trajectory]]:
    """Episodes to imitate, and labelled ones of the noisy expert (``winning`` solved, ``failing`` unsolved).

    To the labelled ones come the training episodes of the runs ``recorded``. Those to imitate: ``expert``
    solved ones, with the shares ``mistakes`` of executed mistakes, and ``wandering`` ones full of them
    (``demos.mistakes``). Their steps hold the expert's answers. The files ``episodes`` add to both, see
    ``own_episodes``; those of them with labels keep these. Tasks are drawn without replacement until
    they run out. Each step's ``online`` and the trajectory's ``reflection.values`` hold the labels; what a
    batch annotator leaves unlabelled is kept without them. ``config`` is for batch annotators
    such as "http", and says under which env settings ``recorded`` must have been played.
    Raises ConfigError for the annotator "oracle" where the environment tells no progress. Raises DataError
    when there are no tasks, the expert fails, or too few attempts of the noisy one win or fail as asked.
    Raises also what ``recorded_episodes`` and ``own_episodes`` do.
    """
    if not task_ids:
        raise DataError("There are no tasks to demonstrate: task_ids is empty.")
    hooks = hooks or CollectHooks()
    annotator = ANNOTATORS.get(demos.annotator)  # an unknown name must fail before anything is played
    if isinstance(annotator, BatchAnnotator):
        annotator.check(config)
    if demos.annotator == "oracle":
        check_progress(env, task_ids, "demos.annotator is 'oracle'")
    recorded = recorded_episodes(demos.recorded, task_ids, None if config is None else config.env)
    imitated, others = own_episodes(env, demos.episodes, task_ids)
    rng = np.random.default_rng(name_key(seed, "demos"))
    order = [task_ids[i] for i in rng.permutation(len(task_ids))]
    collection = _Collection(env, demos, order, seed, rng, hooks)
    collection.resume()
    try:
        experts = [*collection.experts(), *collection.wandering(), *imitated]
        labelled = [*collection.noisy(), *recorded, *others]
        collection.warn_of_broken()
    finally:
        collection.close()
    to_label = [trajectory for trajectory in (*experts, *labelled) if trajectory.reflection is None]
    if hooks.on_to_label is not None and isinstance(annotator, BatchAnnotator):
        hooks.on_to_label(len(to_label))
    context = AnnotationContext(env.instructions, rng, config, hooks.on_label, hooks.notes)
    annotate_all(to_label, demos.annotator, context)
    return experts, labelled


class _Row(TypedDict):
    """An episode of an unfinished collection, and where the collection stands after it."""

    kind: Literal["expert", "unsolved", "wandering", "noisy"]
    tasks: Count
    attempts: Count
    rng: dict[str, Any]  # state of the random generator, whose integers have 128 bits
    episode: TrajectoryRecord


@dataclass(slots=True)
class _Collection:
    """Plays the episodes of one collection, task after task in ``order``, from its start again at the end."""

    env: TextEnv
    demos: DemosSection
    order: Sequence[str]
    seed: int
    rng: np.random.Generator
    hooks: CollectHooks
    tasks: int = 0  # taken from ``order`` so far
    broken: Counter[str] = field(default_factory=Counter)  # episodes that broke off, by reason
    attempts: int = 0  # of the noisy expert so far
    played: dict[str, list[Trajectory]] = field(default_factory=lambda: {kind: [] for kind in KINDS})

    def resume(self) -> None:
        """Continue after the episodes that an earlier command has played with the same settings."""
        unfinished = self.hooks.unfinished
        if unfinished is None:
            return
        rows = unfinished.rows()
        unfinished.open()  # a folder that cannot be written is noticed before anything is played
        try:
            for row in rows:
                check_record(_Row, row)
                trajectory = trajectory_from_record(row["episode"])
                self._note(trajectory)
                self.played[row["kind"]].append(trajectory)
                if row["kind"] != "unsolved":
                    self._done()
            if rows:
                self.tasks, self.attempts = int(rows[-1]["tasks"]), int(rows[-1]["attempts"])
                self.rng.bit_generator.state = rows[-1]["rng"]
                if self.hooks.on_resumed is not None:
                    self.hooks.on_resumed(len(rows) - len(self.played["unsolved"]))
        except (DataError, KeyError, TypeError, ValueError, OverflowError) as error:
            found = error if isinstance(error, DataError) else repr(error)
            raise DataError(
                f"not episodes as this command keeps them ({found}); delete it to play them again",
                file=unfinished.path,
            ) from error

    def close(self) -> None:
        """Stop writing."""
        if self.hooks.unfinished is not None:
            self.hooks.unfinished.close()

    def _keep(self, kind: str, trajectory: Trajectory) -> None:
        """An episode was played that is asked for; or the expert has left a task unsolved."""
        self.played[kind].append(trajectory)
        if self.hooks.unfinished is not None:
            state = {"tasks": self.tasks, "attempts": self.attempts, "rng": self.rng.bit_generator.state}
            self.hooks.unfinished.add({"kind": kind, **state, "episode": trajectory_record(trajectory, 0)})
        if kind != "unsolved":
            self._done()

    def experts(self) -> list[Trajectory]:
        """``demos.expert`` solved episodes. Raises DataError when the expert fails too often."""
        experts, unsolved = self.played["expert"], self.played["unsolved"]
        while len(experts) < self.demos.expert:
            task_id = self._next_task()
            trajectory = self._expert(task_id, self.demos.mistakes[len(experts) % len(self.demos.mistakes)])
            # Some tasks have no solution, such as WebShop goals that nothing matches fully.
            if self._note(trajectory) or not trajectory.won:
                self._keep("unsolved", trajectory)
                if len(unsolved) > max(10, 3 * len(experts)):
                    raise self._failure(len(experts), unsolved)
                continue
            self._keep("expert", trajectory)
        return experts

    def wandering(self) -> list[Trajectory]:
        """``demos.wandering_episodes`` full of mistakes, with the expert's answers; won or not."""
        demos, episodes = self.demos, self.played["wandering"]
        while len(episodes) < demos.wandering_episodes:
            rate = float(demos.labelled_mistakes[len(episodes) % len(demos.labelled_mistakes)])
            task_id = self._next_task()
            seed = self._episode_seed(task_id)
            trajectory = demonstrate(self.env, task_id, demos.agent, rate, seed)
            self._note(trajectory)
            self._keep("wandering", trajectory)
        return [episode for episode in episodes if not episode.failed]

    def noisy(self) -> list[Trajectory]:
        """The episodes to judge. Raises DataError when too few attempts give such episodes."""
        demos, order = self.demos, self.order
        first = self.tasks % len(order)
        episodes = self.played["noisy"]
        missing = {True: demos.winning, False: demos.failing}
        for episode in episodes:
            missing[episode.won] -= 1
        while any(missing.values()):
            attempts = self.attempts
            if attempts > 50 * (demos.winning + demos.failing) + 1000:
                raise self._too_few(missing)
            noise = float(demos.labelled_mistakes[attempts % len(demos.labelled_mistakes)])
            task_id = order[(first + attempts) % len(order)]
            if demos.agent == "planner":
                trajectory = play(self.env, task_id, noise, self.rng)
            else:
                key = name_key(self.seed, "noisy", task_id, attempts)
                trajectory = play_with_mistakes(self.env, task_id, demos.agent, noise, key)
            self.attempts += 1
            if self._note(trajectory) or not missing[trajectory.won]:
                continue
            missing[trajectory.won] -= 1
            self._keep("noisy", trajectory)
        return episodes

    def _expert(self, task_id: str, mistakes: float) -> Trajectory:
        demos = self.demos
        if demos.agent == "planner" and not any(demos.mistakes):
            return play(self.env, task_id, 0.0, self.rng)
        return demonstrate(self.env, task_id, demos.agent, mistakes, self._episode_seed(task_id))

    def _next_task(self) -> str:
        self.tasks += 1
        return self.order[(self.tasks - 1) % len(self.order)]

    def _episode_seed(self, task_id: str) -> int:
        return name_key(self.seed, "demonstration", task_id, self.tasks)

    def _done(self) -> None:
        if self.hooks.on_done is not None:
            self.hooks.on_done(1)

    def _note(self, trajectory: Trajectory) -> bool:
        """Whether an episode broke off, which is counted; it is no demonstration."""
        if trajectory.failed:
            self.broken[str(trajectory.error)] += 1
        return trajectory.failed

    def warn_of_broken(self) -> None:
        """Say how many episodes the environment broke off, and why."""
        if self.broken:
            warnings.warn(
                f"{counted(self.broken.total(), 'episode')} broke off, left out: {common(self.broken)}.",
                stacklevel=3,
            )

    def _too_few(self, missing: dict[bool, int]) -> DataError:
        """The error where attempts do not end as asked; ``missing``: winning (True) and failing ones."""
        change = "change demos.labelled_mistakes, demos.winning or demos.failing"
        start = checked_reset(self.env.reset(options={"task": self.order[0]}))[1]
        if missing[False] and not start["admissible"]:
            change = (
                "info['admissible'] of the environment is empty, so there are hardly any mistakes to draw: "
                "list the possible actions there, or set demos.failing=0"
            )
        change += f"; {OWN_EPISODES}"
        broken = f"; {self.broken.total()} broke off: {common(self.broken)}" if self.broken else ""
        return DataError(
            f"{missing[True]} winning and {missing[False]} failing episodes could not be played in "
            f"{self.attempts} tries; {change}{broken}"
        )

    def _failure(self, solved: int, unsolved: Sequence[Trajectory]) -> DataError:
        """The error of an expert that fails, with what may be changed."""
        if self.broken:
            return DataError(
                f"the environment breaks off: {common(self.broken)}; run 'repro-rl doctor'",
                record=unsolved[0].task_id,
            )
        remedy = "run 'repro-rl doctor'"
        if any(self.demos.mistakes):
            limit = self.env.max_steps
            remedy = f"lower demos.mistakes, raise the environment's max_steps ({limit}), or {remedy}"
        if self.demos.agent == "reader":
            remedy += "; demos.agent=planner decides by the true state instead"
        remedy += f"; {OWN_EPISODES}"
        firsts = [trajectory.steps[0].advice for trajectory in unsolved if trajectory.steps]
        silent = sum(advice is not None and not advice.action for advice in firsts)
        lost = f" (in {silent} it had no answer to the first observation)" if silent else ""
        return DataError(
            f"the expert solves {solved} of {solved + len(unsolved)} tasks{lost}; {remedy}",
            record=unsolved[0].task_id,
        )


def summary(demos: Sequence[Trajectory]) -> dict[str, Any]:
    """Counts for the manifest and the terminal."""
    return {
        "episodes": len(demos),
        "won": sum(d.won for d in demos),
        "steps": sum(len(d.steps) for d in demos),
        "tasks": len({d.task_id for d in demos}),
        "unlabelled": sum(d.reflection is None or d.reflection.values is None for d in demos),
    }
