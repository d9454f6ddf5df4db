"""Several ranks, one run: which rank plays which groups, and what is exchanged and summed.

Every rank holds the whole model. It plays its share of the task groups. The finished episodes go to all
ranks, which each compute rewards and advantages of the whole batch. So no statistic depends on the number of
ranks. Losses are sums weighted by the token counts of the whole mini-batch, so gradients are summed over
ranks, never averaged. Random streams are named by task and episode: the result is that of one rank, up to the
order of floating-point sums.

With one rank every method here returns what it was given, and torch is not imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from repro_rl.dist.failures import RankMonitor
from repro_rl.dist.launcher import rank_and_world
from repro_rl.errors import ConfigError, RankLostError
from repro_rl.rollout.episode import with_completions
from repro_rl.types import Completion, Group, Trajectory

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
NO_LOGPROBS = np.zeros(0, np.float32)


@dataclass(slots=True, frozen=True)
class Ranks:
    """The ranks of a run, seen from one of them. The default is the null object: one rank, nothing shared."""

    rank: int = 0
    world: int = 1
    monitor: RankMonitor | None = None  # of their failures; None when alone
    objects: Any = None  # process group on the CPU for everything but gradients
    reshard: bool | None = None  # None: every rank trains a whole model; else see ``sharding.resharding``

    @property
    def alone(self) -> bool:
        """Whether this process is the only one of its run."""
        return self.monitor is None

    @property
    def first(self) -> bool:
        """Whether this process writes the files and reports to the user."""
        return self.rank == 0

    @property
    def stream_names(self) -> tuple[int, ...]:
        """Names to add to a random stream that should differ between ranks; none for the first."""
        return (self.rank,) if self.rank else ()

    @property
    def loss_factor(self) -> float:
        """What a loss is multiplied by before its backward pass: split weights average their gradients."""
        return 1.0 if self.reshard is None else float(self.world)

    def trainable(self, model: Any) -> Any:
        """The model to train: ``model`` itself, or a copy of it that is split over the processes."""
        if self.reshard is None:
            return model
        from repro_rl.dist.sharding import sharded_copy

        return sharded_copy(model, self.reshard, self.world)

    def guard(self) -> AbstractContextManager[None]:
        """A context in which a failure of this process is reported to the others before it ends."""
        return nullcontext() if self.monitor is None else self.monitor.guard()

    def defer_termination(self) -> AbstractContextManager[None]:
        """A context, such as writing a checkpoint, that is finished even when another process is lost."""
        return nullcontext() if self.monitor is None else self.monitor.defer_termination()

    @property
    def saves_alone(self) -> bool:
        """Whether this process can write a checkpoint without the others: the first one, its model whole."""
        return self.first and self.reshard is None

    @contextmanager
    def alone_on_first(self, context: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
        """``context()``, entered by the first process alone; when it raises there, all of them end."""
        with ExitStack() as stack:
            self.on_first(lambda: (stack.enter_context(context()), None)[1])
            yield

    def own_share(self, items: Sequence[T]) -> list[T]:
        """Every ``world``-th item, from this process's rank on."""
        return list(items[self.rank :: self.world])

    def gather(self, value: T) -> list[T]:
        """The value of every process, in the order of their ranks, in every process.

        Raises RankLostError, as all that is collective here, when another process failed or was lost.
        """
        if self.monitor is None:
            return [value]
        from repro_rl.dist.collectives import gather_objects

        with self.monitor.watch():
            return gather_objects(value, self.world, self.objects)

    def on_first(self, work: Callable[[], T]) -> T:
        """``work()``, done by the first process alone while the others wait; all get its result.

        When it raises, the others raise RankLostError with the same message.
        """
        if self.monitor is None:
            return work()
        from repro_rl.dist.collectives import broadcast_object

        with self.monitor.guard():
            result = work() if self.first else None
        with self.monitor.watch():
            return cast(T, broadcast_object(result, self.objects))

    def sums(self, values: dict[str, float]) -> dict[str, float]:
        """Sum over processes of every name that any of them has, added in the order of ranks."""
        if self.monitor is None:
            return values
        total: dict[str, float] = {}
        for part in self.gather(values):
            for name, value in part.items():
                total[name] = total.get(name, 0.0) + value
        return total

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace every gradient by its sum over processes; a process without one adds zero.

        Split weights have done so in the backward pass.
        """
        if self.monitor is None or self.reshard is not None:
            return
        from repro_rl.dist.collectives import sum_buckets

        sum_buckets(parameters, self.monitor.watch)

    def check_same_weights(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Raises RankLostError when the processes no longer hold the same weights (a broken network)."""
        if self.monitor is None:
            return
        from repro_rl.dist.collectives import absolute_sums

        sums = self.gather(absolute_sums(parameters))
        different = [rank for rank, other in enumerate(sums) if not np.array_equal(other, sums[0])]
        if different:
            raise RankLostError(
                f"The weights of process {different[0]} differ from those of process 0: a sum of gradients "
                "was not the same everywhere. No checkpoint was written; repeat the command to continue from "
                "the last one."
            )

    def spread(
        self, owners: Sequence[int], play: Callable[[list[int]], list[list[Trajectory]]], *, prompts: bool
    ) -> list[list[Trajectory]]:
        """Episodes of every group, in order; group i is played by rank ``owners[i]``.

        ``play`` gets the indices of this rank's groups and returns the episodes of each. Those of others come
        without token ids (see ``without_ids``) and, unless ``prompts``, without the texts put to the policy.
        """
        if self.monitor is None:
            return play(list(range(len(owners))))
        own_groups = [index for index, owner in enumerate(owners) if owner == self.rank]
        with self.monitor.guard():
            own = dict(zip(own_groups, play(own_groups), strict=True))
        stripped = {index: [without_ids(t, prompts=prompts) for t in played] for index, played in own.items()}
        everything: dict[int, list[Trajectory]] = {}
        for part in self.gather(stripped):
            everything |= part
        everything |= own
        return [everything[index] for index in range(len(owners))]

    def play_tasks(
        self, tasks: Sequence[str], play: Callable[[list[str]], list[Trajectory]], *, prompts: bool = False
    ) -> list[Trajectory]:
        """Episodes of all ``tasks`` in their order; ``play`` gives equally many for each of those it gets."""

        def play_indices(indices: list[int]) -> list[list[Trajectory]]:
            played = play([tasks[index] for index in indices]) if indices else []
            size = len(played) // max(len(indices), 1)
            return [played[i * size : (i + 1) * size] for i in range(len(indices))]

        owners = [index % self.world for index in range(len(tasks))]
        return [t for played in self.spread(owners, play_indices, prompts=prompts) for t in played]

    def own_groups(self, groups: Sequence[Group], owners: Sequence[int]) -> list[Group]:
        """The same groups in the same order, those of other ranks without their episodes."""
        if self.monitor is None:
            return list(groups)
        return [
            group if owner == self.rank else Group(group.task_id, [])
            for group, owner in zip(groups, owners, strict=True)
        ]


ALONE = Ranks()


@dataclass(frozen=True, slots=True)
class JoinSettings:
    """What ranks must agree on before they work together."""

    settings: str  # all of the run's settings as text: equal on every rank
    device: str  # ``policy.device``
    timeout: float  # longest wait for another rank, seconds
    lora_rank: int
    optimizer: str


def join(settings: JoinSettings) -> Ranks:
    """Connect to the other ranks that the launcher started; alone when there are none. May be repeated.

    Raises ConfigError when they were started with different settings, and for one GPU named for all of them.
    It does so too for settings that do not go with sharded weights.
    """
    rank, world = rank_and_world()
    if world == 1:
        return ALONE
    global _joined
    if _joined is None:
        _joined = _connect(settings, rank, world)
    return _joined


_joined: Ranks | None = None  # torch has one process group a process, and so have we


def _connect(settings: JoinSettings, rank: int, world: int) -> Ranks:
    from accelerate import PartialState

    from repro_rl.dist.collectives import object_group, on_cpu
    from repro_rl.dist.sharding import check_sharding, resharding

    reshard = resharding()
    if reshard is not None:
        check_sharding(lora_rank=settings.lora_rank, optimizer=settings.optimizer)
    if settings.device.startswith("cuda:"):
        raise ConfigError(
            f"policy.device is {settings.device}: that would put {world} processes on one GPU; use auto."
        )
    timeout = timedelta(seconds=settings.timeout)
    PartialState(cpu=on_cpu(settings.device), timeout=timeout)
    objects = object_group(timeout)
    monitor = RankMonitor(rank, settings.timeout)
    ranks = Ranks(rank, world, monitor, objects, reshard)
    monitor.start(ranks.gather(RankMonitor.own_process()))
    texts = ranks.gather(settings.settings)
    different = [other for other, text in enumerate(texts) if text != texts[0]]
    if different:
        raise ConfigError(
            f"Process {different[0]} was started with other settings than process 0; start all of them with "
            "the same command."
        )
    return ranks


def without_ids(trajectory: Trajectory, *, prompts: bool) -> Trajectory:
    """A copy without token ids and log-probs, whose counts stay; ``prompts``: keep the texts as well."""

    def strip(completion: Completion) -> Completion:
        counted = (completion.prompt_tokens, completion.tokens)
        return replace(completion, prompt_ids=(), token_ids=(), logprobs=NO_LOGPROBS, counted=counted)

    copy = with_completions(trajectory, strip)
    if not prompts:
        for step in copy.steps:
            step.prompt = ""
        if copy.reflection is not None:
            copy.reflection.prompt = ""
    return copy
