"""From observations and ``info`` of an environment to steps and trajectories; no other module does this."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

from repro_rl.envs.base import TextEnv
from repro_rl.envs.contract import StepResult, checked_reset, checked_step, overdue
from repro_rl.errors import DataError, EnvError, ReproError, place_of
from repro_rl.text.prompts import Notice, StepInputs
from repro_rl.types import Completion, Status, Step, Trajectory, no_completion

T = TypeVar("T")


class Decision(NamedTuple):
    """One decision of an agent: the fields of its ``Step`` that are known before it is played."""

    observation: str  # before acting
    anchor: Hashable  # key of the state before acting
    action: str  # as sent to the environment
    completion: Completion
    prompt: str = ""  # text put to the policy
    shortened: str = ""  # what the prompt lost, see ``Step.shortened``
    online: int | None = None  # q_t, 0..100
    defects: tuple[str, ...] = ()  # named parse defects of the completion


def step_inputs(
    env: TextEnv,
    goal: str,
    observation: str,
    admissible: Sequence[str],
    steps: Sequence[Step],
    history: Sequence[tuple[str, str]] = (),
) -> StepInputs:
    """What the prompt of the step after ``steps`` shows, with what the environment says of itself."""
    state = (goal, observation, admissible, len(steps) + 1, env.max_steps)
    notice = _notice_of(steps[-1]) if steps else ""
    return StepInputs(env.instructions, *state, history=history, example=env.example_action, notice=notice)


def _notice_of(step: Step) -> Notice:
    """Why a step had no effect."""
    if step.valid:
        return ""
    return "impossible" if step.action.strip() else "no_action"


def begin_trajectory(task_id: str, rollout: int, observation: str, info: dict[str, Any]) -> Trajectory:
    """An episode without steps, from what ``reset`` returned."""
    return Trajectory(
        task_id=task_id,
        rollout=rollout,
        goal=info["goal"],
        steps=[],
        won=bool(info["won"]),
        score=float(info["score"]),
        final_observation=observation,
    )


def add_step(trajectory: Trajectory, decision: Decision, result: StepResult) -> bool:
    """Append the step whose ``env.step`` returned ``result``; True when it ended the episode."""
    observation, reward, terminated, truncated, info = result
    trajectory.steps.append(
        Step(
            t=len(trajectory.steps) + 1,
            **decision._asdict(),
            brief=str(info.get("brief", observation)),
            valid=bool(info["valid"]),
            env_reward=float(reward),
            truth=None if info["progress"] is None else float(info["progress"]),
            feedback=observation,
            reached=info.get("anchor"),
        )
    )
    trajectory.won, trajectory.score = bool(info["won"]), float(info["score"])
    if terminated or truncated:
        trajectory.status = Status.TERMINATED if terminated else Status.TRUNCATED
    trajectory.final_observation = observation
    return bool(terminated or truncated)


def play_actions(env: TextEnv, task_id: str, choose: Callable[[dict[str, Any]], str | None]) -> Trajectory:
    """A whole episode of an agent without a language model: ``choose`` maps ``info`` to the next action.

    None ends the episode where it is, ``Status.RUNNING``.
    An environment that fails or does not end, fails the episode. Raises what concerns all of them: an unknown
    task, or broken data.
    """
    try:
        observation, info = checked_reset(env.reset(options={"task": task_id}))
        trajectory = begin_trajectory(task_id, 0, observation, info)
    except Exception as error:
        if concerns_all(error):
            raise
        return failed_trajectory(task_id, 0, error)
    nothing, ended = no_completion(), False
    while not ended:
        try:
            action = choose(info)
            if action is None:
                break
            decision = Decision(observation, info["anchor"], action, nothing)
            result = checked_step(env.step(decision.action))
        except Exception as error:
            if concerns_all(error):
                raise
            trajectory.fail(reason_of(error, len(trajectory.steps) + 1))
            return trajectory
        ended = add_step(trajectory, decision, result)
        late = None if ended else overdue(env.max_steps, len(trajectory.steps))
        if late is not None:
            trajectory.fail(late)
            return trajectory
        observation, info = result[0], result[4]
    return trajectory


def concerns_all(error: Exception) -> bool:
    """Whether an error of an environment's concerns every episode: an unknown task, or a broken data file."""
    return isinstance(error, ReproError) and not isinstance(error, EnvError)


def failed_trajectory(task_id: str, rollout: int, error: Exception) -> Trajectory:
    """An episode that could not begin."""
    failed = Trajectory(task_id, rollout, "", [], False, 0.0)
    failed.fail(reason_of(error, 0))
    return failed


def reason_of(error: Exception, t: int) -> str:
    """Why an episode failed at step ``t``; 0: at its reset."""
    return f"{type(error).__name__} at step {t}: {error}"


def guarded(t: int, call: Callable[[], T]) -> T:
    """What ``call`` of an environment returns, at step ``t``; 0: at its reset.

    An environment may raise anything: EnvError, where it is not an error of ours.
    """
    try:
        return call()
    except Exception as error:
        if concerns_all(error) or isinstance(error, EnvError):
            raise
        raise EnvError(f"The environment failed: {reason_of(error, t)}{place_of(error)}") from error


def with_completions(trajectory: Trajectory, change: Callable[[Completion], Completion]) -> Trajectory:
    """A copy whose steps and reflection hold ``change`` of their completions."""
    reflection = trajectory.reflection
    return replace(
        trajectory,
        steps=[replace(step, completion=change(step.completion)) for step in trajectory.steps],
        reflection=None
        if reflection is None
        else replace(reflection, completion=change(reflection.completion)),
    )


def completions_of(trajectory: Trajectory) -> list[Completion]:
    """The completions of an episode in order, its reflection's last."""
    reflection = trajectory.reflection
    return [step.completion for step in trajectory.steps] + (
        [reflection.completion] if reflection is not None else []
    )


def labels_of(trajectory: Trajectory) -> tuple[int, ...]:
    """P_1..P_T of a labelled episode. Raises DataError without T of them."""
    if trajectory.judged is None:
        values = None if trajectory.reflection is None else trajectory.reflection.values
        raise DataError(
            f"{len(values or ())} labels for {len(trajectory.steps)} steps; annotate the demonstrations "
            "again",
            record=trajectory.task_id,
            field="reflection.values",
        )
    return trajectory.judged
