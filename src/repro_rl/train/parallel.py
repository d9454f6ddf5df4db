"""Several processes, one run: who plays which groups, who computes which rows, and what is summed.

Every process holds the whole model. It plays its share of the task groups; the finished episodes go to all
processes, which each compute rewards and advantages of the whole batch, so that no statistic depends on the
number of processes. Before an update the distinct rows of each mini-batch are put together and dealt out
again by length. Losses are sums weighted by the token counts of the whole mini-batch, so gradients are summed
over processes, never averaged. Random streams are named by task and episode: the result is that of one
process, up to the order of floating-point sums.

In one process every function here hands back what it was given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from repro_rl.config import RunConfig, dump_config
from repro_rl.errors import ConfigError, PeerLostError
from repro_rl.processes import place
from repro_rl.rollout.episode import with_completions
from repro_rl.train.batch import Row, RowKey, row_key
from repro_rl.train.peers import Peers
from repro_rl.train.sharded import check_sharding, resharding, sharded_copy
from repro_rl.types import Completion, Group, Trajectory

T = TypeVar("T")
BUCKET_BYTES = 64 << 20  # gradients are summed in pieces of about this size
NOTHING = np.zeros(0, np.float32)


@dataclass(slots=True)
class Ranks:
    """The processes of a run, seen from one of them."""

    rank: int = 0
    world: int = 1
    peers: Peers | None = None  # who they are, and what became of them; None when alone
    objects: Any = None  # process group on the CPU for everything but gradients
    reshard: bool | None = None  # None: every process trains a whole model; else see ``sharded.resharding``

    @property
    def first(self) -> bool:
        """Whether this process writes the files and talks to the person."""
        return self.rank == 0

    @property
    def names(self) -> tuple[int, ...]:
        """Names to add to a random stream that should differ between processes; none for the first."""
        return (self.rank,) if self.rank else ()

    @property
    def loss_factor(self) -> float:
        """What a loss is multiplied by before its backward pass: split weights average their gradients."""
        return 1.0 if self.reshard is None else float(self.world)

    def trained(self, model: Any) -> Any:
        """The model to train: ``model`` itself, or a copy of it that is split over the processes."""
        return model if self.reshard is None else sharded_copy(model, self.reshard, self.world)

    def guard(self) -> AbstractContextManager[None]:
        """A context in which a failure of this process is told to the others before it ends."""
        return nullcontext() if self.peers is None else self.peers.guard()

    def hold(self) -> AbstractContextManager[None]:
        """A context, such as writing a checkpoint, that is finished even when another process is lost."""
        return nullcontext() if self.peers is None else self.peers.hold()

    def mine(self, items: Sequence[T]) -> list[T]:
        """Every ``world``-th item, from this process's rank on."""
        return list(items[self.rank :: self.world])

    def gather(self, value: T) -> list[T]:
        """The value of every process, in the order of their ranks, in every process."""
        if self.peers is None:
            return [value]
        values: list[Any] = [None] * self.world
        with self.peers.watch():
            dist.all_gather_object(values, value, group=self.objects)
        return values

    def by_first(self, work: Callable[[], T]) -> T:
        """``work()``, done by the first process alone while the others wait; all get its result.

        When it raises, the others raise PeerLostError with the same message.
        """
        if self.peers is None:
            return work()
        with self.peers.guard():
            box = [work() if self.first else None]
        with self.peers.watch():
            dist.broadcast_object_list(box, src=0, group=self.objects)
        return box[0]  # type: ignore[return-value]

    def sums(self, values: dict[str, float]) -> dict[str, float]:
        """Sum over processes of every name that any of them has, added in the order of ranks."""
        if self.peers is None:
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
        if self.peers is None or self.reshard is not None:
            return
        bucket: list[torch.Tensor] = []
        size = 0
        for parameter in parameters:
            if not parameter.requires_grad:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            grad = parameter.grad
            if bucket and (size > BUCKET_BYTES or grad.dtype != bucket[0].dtype):
                self._sum(bucket)
                bucket, size = [], 0
            bucket.append(grad)
            size += grad.numel() * grad.element_size()
        if bucket:
            self._sum(bucket)

    def _sum(self, tensors: list[torch.Tensor]) -> None:
        assert self.peers is not None
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with self.peers.watch():
            dist.all_reduce(flat)
        for tensor, part in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def check_same_weights(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Raises PeerLostError when the processes no longer hold the same weights (a broken network)."""
        if self.peers is None:
            return
        with torch.no_grad():
            total = torch.stack([p.double().abs().sum() for p in parameters if p.requires_grad])
        sums = self.gather(total.cpu().numpy())
        different = [rank for rank, other in enumerate(sums) if not np.array_equal(other, sums[0])]
        if different:
            raise PeerLostError(
                f"The weights of process {different[0]} differ from those of process 0: a sum of gradients "
                "was not the same everywhere. No checkpoint was written; repeat the command to continue from "
                "the last one."
            )

    def spread(
        self, owners: Sequence[int], play: Callable[[list[int]], list[list[Trajectory]]], *, prompts: bool
    ) -> list[list[Trajectory]]:
        """Episodes of every place, in the order of places; place i is played by process ``owners[i]``.

        ``play`` gets the places of this process and returns the episodes of each. Those of others come
        without token ids (see ``slim``) and, unless ``prompts``, without the texts put to the policy.
        """
        if self.peers is None:
            return play(list(range(len(owners))))
        places = [index for index, owner in enumerate(owners) if owner == self.rank]
        with self.peers.guard():
            own = dict(zip(places, play(places), strict=True))
        light = {index: [slim(t, prompts=prompts) for t in played] for index, played in own.items()}
        everything: dict[int, list[Trajectory]] = {}
        for part in self.gather(light):
            everything |= part
        everything |= own
        return [everything[index] for index in range(len(owners))]

    def over_tasks(
        self, tasks: Sequence[str], play: Callable[[list[str]], list[Trajectory]], *, prompts: bool = False
    ) -> list[Trajectory]:
        """Episodes of all ``tasks`` in their order; ``play`` gives equally many for each of those it gets."""

        def of_places(places: list[int]) -> list[list[Trajectory]]:
            played = play([tasks[index] for index in places]) if places else []
            size = len(played) // max(len(places), 1)
            return [played[i * size : (i + 1) * size] for i in range(len(places))]

        owners = [index % self.world for index in range(len(tasks))]
        return [t for played in self.spread(owners, of_places, prompts=prompts) for t in played]

    def own_groups(self, groups: Sequence[Group], owners: Sequence[int]) -> list[Group]:
        """The same groups in the same places, those of other processes without their episodes."""
        if self.peers is None:
            return list(groups)
        return [
            group if owner == self.rank else Group(group.task_id, [])
            for group, owner in zip(groups, owners, strict=True)
        ]

    def merged(self, buckets: list[list[Row]]) -> list[list[Row]]:
        """The distinct rows of every mini-batch over all processes, the same list in each of them."""
        if self.peers is None:
            return buckets
        parts = self.gather([[pack(row) for row in rows] for rows in buckets])
        return [
            merge_rows([unpack(packed) for part in parts for packed in part[index]])
            for index in range(len(buckets))
        ]

    def share_rows(self, rows: list[Row]) -> list[Row]:
        """This process's part of the rows: alike in number and in lengths everywhere."""
        if self.peers is None:
            return rows
        return self.mine(sorted(rows, key=lambda row: len(row.ids)))

    def even(self, chunks: list[list[Row]], kind: str = "forward") -> list[list[Row]]:
        """With split weights, as many micro-batches as any process has: the added ones have no weight."""
        if self.reshard is None:
            return chunks
        zeros = np.zeros(2, np.float32)
        nothing = Row(np.zeros(2, np.int64), np.zeros(2, np.bool_), zeros, zeros, zeros, 1, kind)
        return chunks + [[nothing]] * (max(self.gather(len(chunks))) - len(chunks))


ALONE = Ranks()


def join(config: RunConfig) -> Ranks:
    """Meet the other processes that the launcher started; alone when there are none. May be repeated.

    Raises ConfigError when they were started with different settings.
    """
    rank, world = place()
    if world == 1:
        return ALONE
    global _met
    if _met is None:
        _met = _meet(config, rank, world)
    return _met


_met: Ranks | None = None  # the process group is one for the whole process, and so is this


def _meet(config: RunConfig, rank: int, world: int) -> Ranks:
    from accelerate import PartialState

    reshard = resharding()
    if reshard is not None:
        check_sharding(config)
    if config.policy.device.startswith("cuda:"):
        raise ConfigError(
            f"policy.device is {config.policy.device}: that would put {world} processes on one GPU; use auto."
        )
    timeout = timedelta(seconds=config.train.peer_timeout)
    PartialState(cpu=on_cpu(config), timeout=timeout)
    objects = None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo", timeout=timeout)
    peers = Peers(rank, config.train.peer_timeout)
    ranks = Ranks(rank, world, peers, objects, reshard)
    peers.meet(ranks.gather(Peers.describe()))
    settings = ranks.gather(dump_config(config))
    different = [other for other, text in enumerate(settings) if text != settings[0]]
    if different:
        raise ConfigError(
            f"Process {different[0]} was started with other settings than process 0; start all of them with "
            "the same command."
        )
    return ranks


def on_cpu(config: RunConfig) -> bool:
    """Whether the run's model lies on the CPU."""
    device = config.policy.device
    return device == "cpu" or (device == "auto" and not torch.cuda.is_available())


def owners_of(order: Sequence[int], world: int) -> list[int]:
    """Which process plays which group: groups are dealt out in the ``order`` that fills the mini-batches.

    So every mini-batch is made by all processes alike, up to one group.
    """
    owners = [0] * len(order)
    for position, group in enumerate(order):
        owners[group] = position % world
    return owners


def check_share(groups: int, world: int) -> None:
    """Raises ConfigError when a process would have no group to play."""
    if groups < world:
        raise ConfigError(
            f"train.groups is {groups}, but {world} processes were started: some would have nothing to play. "
            "Start fewer processes or raise train.groups."
        )


def slim(trajectory: Trajectory, *, prompts: bool) -> Trajectory:
    """A copy without token ids and log-probs, whose counts stay; ``prompts``: keep the texts as well."""

    def light(completion: Completion) -> Completion:
        counted = (completion.prompt_tokens, completion.tokens)
        return replace(completion, prompt_ids=(), token_ids=(), logprobs=NOTHING, counted=counted)

    copy = with_completions(trajectory, light)
    if not prompts:
        for step in copy.steps:
            step.prompt = ""
        if copy.reflection is not None:
            copy.reflection.prompt = ""
    return copy


TAILS = ("trained", "positive", "negative", "logprob")  # 0 before the first trained position


def pack(row: Row) -> tuple[int, Row]:
    """A row in a fraction of the bytes: 32-bit ids, and its values from the first trained position on."""
    first = int(row.trained.argmax()) if row.trained.any() else len(row.trained)
    tails: dict[str, Any] = {name: getattr(row, name)[first:] for name in TAILS}
    return first, replace(row, ids=row.ids.astype(np.int32), **tails)


def unpack(packed: tuple[int, Row]) -> Row:
    """The row that ``pack`` was given."""
    first, row = packed
    whole: dict[str, Any] = {}
    for name in TAILS:
        tail = getattr(row, name)
        whole[name] = np.concatenate([np.zeros(first, tail.dtype), tail])
    return replace(row, ids=row.ids.astype(np.int64), **whole)


def merge_rows(rows: Iterable[Row]) -> list[Row]:
    """As ``batch.merge``, for rows that stand for several copies already. Changes the rows it keeps."""
    found: dict[RowKey, Row] = {}
    for row in rows:
        kept = found.setdefault(row_key(row), row)
        if kept is row:
            continue
        count = kept.count + row.count
        kept.positive += row.positive
        kept.negative += row.negative
        kept.logprob = (kept.logprob * kept.count + row.logprob * row.count) / np.float32(count)
        kept.count = count
    return list(found.values())
