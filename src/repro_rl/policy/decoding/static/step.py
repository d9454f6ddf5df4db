"""One decode step that never waits for the device: forward pass, sampling and stop tokens in one piece.

Everything a step reads and writes lies at fixed addresses (``StepState``, ``StaticCache``). So on a GPU a
step is captured once as a CUDA graph and then replayed: hundreds of kernels for one launch from Python.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
import torch.nn.functional as F

from repro_rl.policy.base import AnswerTokens, SamplingSettings
from repro_rl.policy.decoding.sampling import sorted_top_p_filter

MAX_GRAPHS = 128  # kept; the least recently used one goes first
STEPS_A_CHECK = 4  # decode steps queued between two looks at whether all rows have ended
EMPTY = "Graph is empty"  # in torch's warning of a capture that saw no work
GROUPED = "repro_grouped_sdpa"  # its name in transformers' registry
UNGROUPED = ("softcap", "position_bias", "s_aux", "cache")  # arguments of layers that grouping does not serve


class StepState:
    """What decode steps read and write: up to B rows, up to T sampled tokens each."""

    def __init__(self, rows: int, tokens: int, allowed: AnswerTokens, device: torch.device):
        def zeros(*shape: int, dtype: torch.dtype) -> torch.Tensor:
            return torch.zeros(*shape, dtype=dtype, device=device)

        self.rows, self.limit = rows, tokens
        self.row = torch.arange(rows, device=device)  # [B]
        self.stop = torch.tensor(sorted(allowed.stop), device=device)  # [S]
        self.vocabulary = allowed.limit  # ids from here on have no token
        self.holes = torch.tensor(allowed.holes, dtype=torch.int64, device=device)  # others without one
        self.temperature = torch.ones(1, dtype=torch.float32, device=device)  # 1 for greedy answers
        self.index = zeros(1, dtype=torch.int64)  # tokens sampled so far
        self.token = zeros(rows, dtype=torch.int64)  # [B] the newest token, not yet in the cache
        self.length = zeros(rows, dtype=torch.int64)  # [B] tokens in the cache
        self.live = zeros(rows, dtype=torch.bool)  # [B] rows that still sample
        self.uniform = zeros(tokens, rows, dtype=torch.float64)  # [T, B] in [0, 1)
        self.tokens = zeros(tokens, rows, dtype=torch.int64)  # [T, B] sampled
        self.logprobs = zeros(tokens, rows, dtype=torch.float32)  # [T, B] of those
        self.entropy = zeros(tokens, rows, dtype=torch.float32)  # [T, B] of their distributions

    def record(self, logits: torch.Tensor, settings: SamplingSettings) -> None:
        """Sample from logits [R, V] of the first R rows, as ``sampling.sample_tokens`` does.

        Of the temperature in ``settings`` only whether it is 0 matters: a graph serves all others.
        """
        rows = len(logits)
        # As few passes over [R, V] as can be: for a small model they cost as much as its weights. Dividing
        # by a float32 tensor also turns lower precisions into float32.
        logprobs = torch.log_softmax((logits / self.temperature).float(), dim=-1)
        probs = logprobs.exp()
        entropy = torch.special.entr(probs).sum(-1)
        if settings.temperature == 0:
            chosen = self._with_token(logprobs, -torch.inf).argmax(-1)
        else:
            weights = self._with_token(probs, 0.0)
            if settings.top_p < 1:
                weights = sorted_top_p_filter(weights, settings.top_p)
            cumulative = weights.cumsum(-1, dtype=torch.float64)
            uniform = self.uniform.index_select(0, self.index)[0, :rows, None]
            chosen = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)[:, 0]
            chosen = chosen.clamp(max=weights.shape[-1] - 1)
        picked = logprobs.gather(1, chosen[:, None])[:, 0]
        self.tokens[:, :rows].index_copy_(0, self.index, chosen[None])
        self.logprobs[:, :rows].index_copy_(0, self.index, picked[None])
        self.entropy[:, :rows].index_copy_(0, self.index, entropy[None])
        self.token[:rows] = chosen
        self.live[:rows].logical_and_((chosen[:, None] != self.stop).all(-1))
        self.index += 1

    def _with_token(self, values: torch.Tensor, fill: float) -> torch.Tensor:
        """See ``sampling.with_token``; nothing here is copied from Python while a graph is captured."""
        values = values[:, : self.vocabulary]
        return values.index_fill(1, self.holes, fill) if len(self.holes) else values

    def mask(self, rows: int, width: int, dtype: torch.dtype) -> torch.Tensor:
        """[rows, 1, 1, width] added to the scores: a row sees its own columns and the one it writes."""
        unseen = torch.arange(width, device=self.length.device) > self.length[:rows, None]
        mask = torch.zeros(unseen.shape, dtype=dtype, device=unseen.device)
        return mask.masked_fill_(unseen, torch.finfo(dtype).min)[:, None, None]


class StepRunner(Protocol):
    """Runs decode steps of one shape again and again."""

    def run(self, shape: Hashable, step: Callable[[], None], count: int) -> None:
        """``step`` ``count`` times. Steps with an equal ``shape`` do the same to the same addresses."""
        ...

    def ended(self, live: torch.Tensor) -> bool:
        """Whether no row was live, now or some steps ago; asked after every ``run``."""
        ...

    def forget(self) -> None:
        """Addresses have changed, or an answer has ended that the next must not see."""
        ...

    def bytes(self) -> int:
        """Scratch memory that stays reserved between answers."""
        ...


class EagerSteps:
    """Runs every step from Python."""

    def run(self, shape: Hashable, step: Callable[[], None], count: int) -> None:
        for _ in range(count):
            step()

    def ended(self, live: torch.Tensor) -> bool:
        return not bool(live.any())

    def forget(self) -> None:
        """Nothing is kept."""

    def bytes(self) -> int:
        return 0


class GraphedSteps:
    """Captures the second step of every shape as a CUDA graph and replays it; needs a GPU.

    A model whose forward pass waits for the device cannot be captured. It is run from Python instead, and a
    warning says why. ``captured``, ``replayed``: counts of graphs and steps, for reports. The model's device
    is to be the current one in all calls: only its streams are captured.
    """

    def __init__(self) -> None:
        self.captured = self.replayed = 0
        self.refused = ""  # why graphs are given up
        self._graphs: OrderedDict[Hashable, torch.cuda.CUDAGraph] = OrderedDict()
        self._pool: Any = None  # the graphs' scratch memory is shared: they run one after another
        self._pool_bytes = 0
        self._stream: Any = None  # that steps are warmed up and captured on
        self._looks: deque[tuple[torch.cuda.Event, torch.Tensor]] = deque()

    def run(self, shape: Hashable, step: Callable[[], None], count: int) -> None:
        graph = self._graphs.get(shape)
        if graph is None and not self.refused:
            self._warm_up(step)
            count -= 1
            graph = self._capture(shape, step) if count else None
        if graph is None:
            for _ in range(count):
                step()
            return
        self._graphs.move_to_end(shape)
        for _ in range(count):
            graph.replay()
        self.replayed += count

    def ended(self, live: torch.Tensor) -> bool:
        """As of one call ago, so that the device always has steps to run while Python looks."""
        answer = torch.empty((), dtype=torch.bool, pin_memory=True)
        answer.copy_(live.any(), non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._looks.append((event, answer))
        if len(self._looks) < 2:
            return False
        event, answer = self._looks.popleft()
        event.synchronize()
        return not bool(answer)

    def forget(self) -> None:
        self._looks.clear()

    def drop(self) -> None:
        """Delete the graphs and free their memory."""
        self._graphs.clear()
        self._pool, self._pool_bytes = None, 0

    def bytes(self) -> int:
        """See StepRunner: what was reserved while graphs were captured."""
        return self._pool_bytes

    def _warm_up(self, step: Callable[[], None]) -> None:
        """A real step on the stream of captures: libraries allocate at their first call on a stream.

        No capture allows that.
        """
        if self._stream is None:
            self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            step()
        torch.cuda.current_stream().wait_stream(self._stream)

    def _capture(self, shape: Hashable, step: Callable[[], None]) -> torch.cuda.CUDAGraph | None:
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # Work of other threads, such as copies from pinned memory, is none of a capture's business.
        capture = torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        )
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                with capture:
                    before = torch.cuda.memory_reserved()
                    step()
                    reserved = torch.cuda.memory_reserved() - before
        except RuntimeError as error:  # a forward pass that synchronises; nothing was executed
            self._refuse(str(error).splitlines()[0])
            return None
        if any(EMPTY in str(warning.message) for warning in caught):
            self._refuse("the captured graph is empty, since the model computes on another device")
            return None
        self._pool_bytes += max(0, reserved)
        self._graphs[shape] = graph
        self.captured += 1
        if len(self._graphs) > MAX_GRAPHS:
            self._graphs.popitem(last=False)
        return graph

    def _refuse(self, reason: str) -> None:
        """Give up graphs for good."""
        self.refused = reason
        warnings.warn(f"Decoding without CUDA graphs: {reason}", stacklevel=3)


def build_runner(device: torch.device) -> StepRunner:
    """Graphs on a GPU, plain steps elsewhere."""
    return GraphedSteps() if device.type == "cuda" else EagerSteps()


def grouped_sdpa(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of one query a row over the key heads as they are; see AttentionInterface of transformers.

    Query heads that share a key head are queries of that head. Repeating the keys for them instead, as
    transformers 5.17 does, moves several times the bytes of the whole cache in every layer and step. For
    query [R, heads, 1, D] and ``attention_mask`` [R, 1, 1, W]; whatever else is left to transformers.
    """
    rows, heads, queries, size = query.shape
    if queries != 1 or any(more.get(name) is not None for name in UNGROUPED):
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        out, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **more)
        return out, None
    groups = query.view(rows, key.shape[1], heads // key.shape[1], size)
    out = F.scaled_dot_product_attention(groups, key, value, attn_mask=attention_mask, scale=scaling)
    return out.reshape(rows, 1, heads, value.shape[-1]), None


@contextmanager
def grouped_attention(model: Any) -> Iterator[None]:
    """Inside, layers whose attention is "sdpa" run ``grouped_sdpa``."""
    from transformers import AttentionInterface

    AttentionInterface.register(GROUPED, grouped_sdpa)
    configs = {
        id(module.config): module.config
        for module in model.modules()
        # Set by every attention layer that looks its function up; others have no such attributes.
        if hasattr(module, "num_key_value_groups") and hasattr(module, "config")
    }
    changed = [c for c in configs.values() if c._attn_implementation == "sdpa"]
    for config in changed:
        config._attn_implementation = GROUPED
    try:
        yield
    finally:
        for config in changed:
            config._attn_implementation = "sdpa"
