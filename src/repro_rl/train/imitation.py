"""Demonstrations as samples to imitate, drawn as a pure function of names, and as micro-batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from repro_rl.config.sections import PRIVILEGED_MODES
from repro_rl.demos.incontext import InContextDemos, mode_labels
from repro_rl.demos.store import is_labelled
from repro_rl.dist.ranks import ALONE, Ranks
from repro_rl.errors import PreflightError
from repro_rl.policy.tokens.codec import TextCodec
from repro_rl.rollout.context import Context
from repro_rl.rollout.samples import branch_samples
from repro_rl.text.prompts import PromptBuilder
from repro_rl.train.batch import Batch, Collation, single_row, split_rows, trained_tokens
from repro_rl.train.rank_rows import equal_counts, share_rows
from repro_rl.types import AnswerPart, Sample, TokenKind, Trajectory, part_of

T = TypeVar("T")
PARTS = {"action": AnswerPart.ACTION, "progress": AnswerPart.PROGRESS}


@dataclass(slots=True)
class ImitationData:
    """Samples to imitate: of experts that act, and reflections on won and on lost episodes."""

    actions: list[Sample] = field(default_factory=list)  # answers of experts: one a step, or a conversation
    won: list[Sample] = field(default_factory=list)  # reflections on won episodes
    lost: list[Sample] = field(default_factory=list)  # reflections on lost episodes
    on_acted: dict[int, Sample] = field(default_factory=dict)  # of an index of ``actions``: its reflection

    def __bool__(self) -> bool:
        return bool(self.actions or self.won or self.lost)

    def draw(
        self, actions: int, reflections: int, rng: np.random.Generator
    ) -> tuple[list[Sample], list[Sample]]:
        """``actions`` samples that act, and reflections, half on won, half on lost episodes.

        Behind these, the reflections of ``on_acted`` on what acts here, one a conversation.
        """
        acting = draw(range(len(self.actions)), actions, rng)
        reflecting = draw_halves(self.won, self.lost, reflections, rng)
        reflecting += [self.on_acted[index] for index in dict.fromkeys(acting) if index in self.on_acted]
        return [self.actions[index] for index in acting], reflecting


@dataclass(slots=True, frozen=True)
class PromptModes:
    """The prompts that a warmup teaches, by the names of ``warmup.forward_modes``."""

    modes: Sequence[str]
    act: PromptBuilder  # without progress
    progress: PromptBuilder  # with progress
    demonstrations: int  # in a prompt of the modes "demos-..."
    seed: int  # of their choice
    reflect_on_acted: bool = False  # see warmup.reflect_on_acted

    def builder(self, mode: str) -> PromptBuilder:
        """The prompts of a mode."""
        return self.progress if mode == "progress" else self.act


def imitation_data(
    context: Context,
    codec: TextCodec,
    modes: PromptModes,
    experts: Sequence[Trajectory],
    labelled: Sequence[Trajectory],
    shown: Sequence[Trajectory] | None = None,
) -> ImitationData:
    """Encode everything once.

    Unlabelled episodes are left out where labels are taught: in reflections and in prompts with progress. In
    chat mode reflections follow answers with and without progress in turn, as far as both are taught. Raises
    PreflightError when a prompt or a completion exceeds its limit, or a mode "privileged-..." has no sample
    at all; DataError for incomplete labels.
    ``shown``: where the demonstrations in prompts come from; None: ``experts``.
    """
    data = ImitationData()
    for mode in modes.modes:
        prompts = modes.builder(mode)
        if mode in PRIVILEGED_MODES:
            rows = _privileged(context, codec, prompts, experts, mode)
            if experts and not rows and shown is None:
                raise PreflightError(
                    f"warmup.forward_modes has {mode!r}, but no episode to imitate has the "
                    f"{PRIVILEGED_MODES[mode]} that its prompts tell, or room for it. Leave the mode out, "
                    "label the episodes (repro-rl demos), or raise prompt.max_prompt_tokens."
                )
            data.actions += rows
            continue
        in_context = _in_context(context, modes, experts if shown is None else shown, mode)
        for trajectory in filter(is_labelled, experts) if mode == "progress" else experts:
            texts: Sequence[str] = [""]
            if in_context is not None:
                first = trajectory.steps[0].observation
                texts = in_context.texts(prompts)(trajectory.task_id, trajectory.goal, first)
            acting = context.action_demos(trajectory, prompts, codec, texts)
            if modes.reflect_on_acted and mode == "action" and acting and is_labelled(trajectory):
                reflection = context.reflection_demo(trajectory, prompts, codec, modes.seed, "acted")
                data.on_acted[len(data.actions)] = reflection
            data.actions += acting
    builders = context.reflection_prompts(modes.act, modes.progress, modes.modes)
    for number, trajectory in enumerate(filter(is_labelled, (*experts, *labelled))):
        prompts = builders[number % len(builders)]
        sample = context.reflection_demo(trajectory, prompts, codec, modes.seed, number)
        (data.won if trajectory.won else data.lost).append(sample)
    return data


def imitation_batches(
    samples: Sequence[Sample],
    coefs: Mapping[TokenKind, float],
    collation: Collation,
    micro_tokens: int,
    ranks: Ranks = ALONE,
) -> list[Batch]:
    """This rank's micro-batches of samples, of at most ``micro_tokens`` cells each.

    The losses of the tokens of each kind add up, over all ranks, to its ``coefs`` times the mean over them.
    None for no samples.
    """
    if not samples:
        return []
    rows = [single_row(sample) for sample in samples]
    counts = {kind: trained_tokens(rows, kind) for kind in coefs}
    scales = {kind: coefs[kind] / count for kind, count in counts.items() if count}
    # Branches stay with the conversation that they belong to.
    split = collation.split if any(sample.branches for sample in samples) else split_rows
    chunks = split(share_rows(ranks, rows), micro_tokens)
    return [collation.collate(chunk, scales) for chunk in equal_counts(ranks, chunks)]


def hold_out(experts: Sequence[Trajectory], count: int) -> tuple[list[Trajectory], list[Trajectory]]:
    """(trained, held out): at least ``count`` episodes are held out, all those of evenly spread tasks.

    Raises PreflightError when none would be left to train on.
    """
    tasks = list(dict.fromkeys(trajectory.task_id for trajectory in experts))
    sizes = Counter(trajectory.task_id for trajectory in experts)
    order = [tasks[index] for index in evenly_spread(len(tasks))]
    held: set[str] = set()
    for task in order:
        if sum(sizes[name] for name in held) >= count:
            break
        held.add(task)
    trained = [trajectory for trajectory in experts if trajectory.task_id not in held]
    if held and not trained:
        raise PreflightError(
            f"warmup.held_out is {count}, but there are {len(experts)} episodes of {len(tasks)} tasks to "
            "imitate; lower it, or raise demos.expert."
        )
    return trained, [trajectory for trajectory in experts if trajectory.task_id in held]


def evenly_spread(count: int) -> list[int]:
    """0..count-1 in an order whose every beginning is spread over the range."""
    bits = max(count - 1, 1).bit_length()
    reversed_bits = (int(f"{index:0{bits}b}"[::-1], 2) for index in range(2**bits))
    return [index for index in reversed_bits if index < count]


def with_branches(samples: Sequence[Sample], most: int, rng: np.random.Generator) -> list[Sample]:
    """Samples, each with at most ``most`` of its branches, drawn without replacement, behind it."""
    rows: list[Sample] = []
    for sample in samples:
        count = min(most, len(sample.branches))
        drawn = sorted(rng.choice(len(sample.branches), size=count, replace=False)) if count else []
        chosen = replace(sample, branches=tuple(sample.branches[index] for index in drawn))
        rows += [row for row in (chosen, *branch_samples(chosen)) if row.trained.any()]
    return rows


def part_counts(parts: NDArray[np.int64], right: NDArray[np.bool_]) -> dict[str, float]:
    """How many actions and reports of progress there are in a batch, and how many have every token right.

    ``parts``: [T], see ``Batch.parts``; ``right``: [T], of ``loss.imitation_terms``.
    """
    numbers, index = np.unique(parts, return_inverse=True)
    whole = np.bincount(index, weights=~right, minlength=len(numbers)) == 0
    counts: dict[str, float] = {}
    for name, part in PARTS.items():
        those = part_of(numbers) == part
        counts[name] = float(those.sum())
        counts[f"{name}_right"] = float(whole[those].sum())
    return counts


def part_names() -> list[str]:
    """The keys of ``part_counts``."""
    return [key for name in PARTS for key in (name, f"{name}_right")]


def accuracies(counts: Mapping[str, float]) -> dict[str, float]:
    """``action_accuracy`` and ``progress_accuracy`` from summed counts, of those that were demonstrated."""
    return {f"{name}_accuracy": counts[f"{name}_right"] / counts[name] for name in PARTS if counts.get(name)}


def _privileged(
    context: Context, codec: TextCodec, prompts: PromptBuilder, experts: Sequence[Trajectory], mode: str
) -> list[Sample]:
    """The samples of a mode of ``PRIVILEGED_MODES``; an episode without the text has none."""
    what = PRIVILEGED_MODES[mode]
    return [
        sample for episode in experts for sample in context.privileged_demos(episode, prompts, codec, what)
    ]


def _in_context(
    context: Context, modes: PromptModes, experts: Sequence[Trajectory], mode: str
) -> InContextDemos | None:
    """The demonstrations that prompts of ``mode`` contain; None for a mode without any."""
    labels = mode_labels(mode)
    if labels is None:
        return None
    task_type = context.pool.task_type
    return InContextDemos(experts, labels, count=modes.demonstrations, seed=modes.seed, task_type=task_type)


def draw_halves(won: Sequence[T], lost: Sequence[T], count: int, rng: np.random.Generator) -> list[T]:
    """``count`` items with replacement, half of each kind, or all of one where there is no other.

    Of an odd count, chance decides which kind has one more; else a count of 1 would never be of a won one.
    """
    half = count // 2
    if count % 2 and won and lost:
        half += int(rng.integers(2))
    first = draw(won, half if lost else count, rng)
    return first + draw(lost, count - half if won else count, rng)


def draw(items: Sequence[T], count: int, rng: np.random.Generator) -> list[T]:
    """``count`` items with replacement; none where there are none."""
    return [items[i] for i in rng.integers(len(items), size=count)] if items and count else []
