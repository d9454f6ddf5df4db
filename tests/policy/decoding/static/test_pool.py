"""What decoders over a static KV cache keep and free, and how large batches may become."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from repro_rl.policy import SamplingSettings, TransformersPolicy
from repro_rl.policy.decoding.static.cache import bucket_cells, fitting_rows
from repro_rl.policy.decoding.static.pool import token_bytes
from repro_rl.policy.decoding.static.step import EagerSteps
from support.models import keys_of, load_cpu
from support.prompts import LONG


@pytest.fixture
def policy(tiny_folder) -> TransformersPolicy:
    return load_cpu(tiny_folder, static_cache="on")


def test_freed_decoders_give_their_memory_back_at_once(policy):
    """No reference leads back to a cache: memory would stay until the next collection."""
    policy.generate(LONG, keys_of(len(LONG)), SamplingSettings(4))
    layer = policy.decoders._idle[0]._cache.layers[0]
    assert layer.keys is not None
    stored = weakref.ref(layer.keys)
    del layer
    gc.disable()
    try:
        policy.decoders.clear()
        assert stored() is None
    finally:
        gc.enable()


def test_a_graph_serves_all_temperatures_but_zero(policy):
    decoder = policy.decoders.acquire(policy.model)
    shapes: list[set] = []

    class Watched(EagerSteps):
        def run(self, shape, step, count):
            shapes[-1].add(shape)
            super().run(shape, step, count)

    decoder.runner = Watched()
    for temperature in (1.0, 0.4, 0.0):
        shapes.append(set())
        logits = decoder.begin({0: (3, 4, 5), 1: (3, 4)})
        decoder.sample([0, 1], logits, keys_of(2), SamplingSettings(6, temperature))
        decoder.clear()
    assert shapes[0] == shapes[1]
    assert not shapes[0] & shapes[2]


def test_passes_over_neighbouring_rows_read_the_cache_in_place(policy):
    """Blocks of different lengths, in two passes: rows of a pass are in order, whatever their lengths."""
    decoder = policy.decoders.acquire(policy.model)
    blocks = {0: (3, 4, 5), 1: (6, 3), 2: (4, 5, 6), 3: (5, 4, 3, 6), 4: (3, 6, 4, 5, 6), 5: (6,) * 4}
    expected = [decoder.begin({0: block}) for block in blocks.values()]
    decoder.clear()
    firsts = []
    read = decoder._read

    def watched(rows, given):
        logits = read(rows, given)
        firsts.append((rows, decoder._cache.now.first))
        return logits

    decoder._read = watched
    decoder.settings = type(decoder.settings)(
        decoder.settings.tokens, decoder.settings.pad_id, decoder.settings.mixed, 12
    )
    logits = decoder.begin(blocks)
    assert firsts == [([0, 1, 2], 0), ([3, 5], None), ([4], 4)]
    assert torch.allclose(logits, torch.cat(expected), atol=1e-5)


def test_a_pass_may_see_columns_behind_its_rows(policy):
    """On a GPU the width is a multiple of 64: what lies behind a row's end has no effect."""
    decoder = policy.decoders.acquire(policy.model)
    logits = decoder.begin({0: (3, 4, 5), 1: (6, 3)})
    decoder.clear()
    decoder._width_step = 64
    wide = decoder.begin({0: (3, 4, 5), 1: (6, 3)})
    assert decoder._cache.now.width == 64
    assert torch.allclose(wide, logits, atol=1e-6)


def test_a_new_decoder_begins_with_the_largest_shape_so_far(policy):
    """Growing would drop its graphs. A shape is one that a cache really had."""
    decoders = policy.decoders
    first, second = decoders.acquire(policy.model), decoders.acquire(policy.model)
    first.begin({row: (3, 4, row + 3) for row in range(6)})  # 8 rows of 128
    second.begin({0: (3, 4) * 90})  # one row of 192
    for decoder in (first, second):
        decoders.release(decoder)
    decoders._idle.clear()
    third = decoders.acquire(policy.model)
    assert third.shape == (8, 128)
    third.begin({0: (3, 4)})
    assert third._cache.layers[0].keys.shape[0] == 8
    decoders.release(third)
    decoders.clear()
    assert decoders.acquire(policy.model).shape == (0, 0)


class Card:
    """Stands for a GPU of ``total`` bytes, of which some are free and some are in the allocator's hands."""

    def __init__(self, monkeypatch, total: int, free: int, cached: int = 0):
        values = {
            "mem_get_info": lambda device: (free, total),
            "memory_reserved": lambda device: cached,
            "memory_allocated": lambda device: 0,
            "empty_cache": lambda: None,
        }
        for name, value in values.items():
            monkeypatch.setattr(torch.cuda, name, value)


class OnCard:
    """A model's parameters on a GPU, as far as one looks at their device."""

    def __init__(self, model):
        self.config, self.dtype = model.config, model.dtype

    def parameters(self):
        return iter([type("Weight", (), {"device": torch.device("cuda")})()])


def test_before_an_update_memory_is_freed_above_a_share_of_the_card(policy, monkeypatch):
    policy.generate(LONG, keys_of(len(LONG)), SamplingSettings(4))
    decoder = policy.decoders._idle[0]
    decoder.device = torch.device("cuda")
    held = decoder.bytes()
    Card(monkeypatch, total=4 * held, free=held)
    policy.before_update()
    assert policy.decoders._idle == [decoder]  # a quarter of the card
    monkeypatch.setattr(decoder.runner, "bytes", lambda: held, raising=False)  # graphs count as well
    policy.before_update()
    assert policy.decoders._idle == []
    assert policy.decoders.acquire(policy.model).shape == decoder.shape
    policy.decoders._idle.append(decoder)
    Card(monkeypatch, total=400 * held, free=held)
    policy.decoders.free_for_update(share=0)  # the frozen judge's
    assert policy.decoders._idle == []


def test_batches_are_as_large_as_memory_allows(policy, monkeypatch):
    model = OnCard(policy.model)
    token = token_bytes(policy.model)
    policy.decoders.pass_tokens = 128
    Card(monkeypatch, total=10**9, free=1000 * token, cached=600 * token)
    assert policy.decoders.batch_cells(model) == 800
    policy.generate(LONG, keys_of(len(LONG)), SamplingSettings(4))
    rows, columns = policy.decoders._idle[0].shape
    # The next batch lies in the buffers that are there.
    assert policy.decoders.batch_cells(model) == 800 + rows * columns // 2
    session = policy.open_chat()
    session.model = model
    assert session.most_rows(100) == fitting_rows(800 + rows * columns // 2, 100) == 8


@pytest.mark.parametrize(
    ("cells", "columns", "rows"),
    [(1, 1, 1), (128 * 8, 100, 8), (128 * 15, 100, 8), (128 * 127, 128, 96), (384 * 200, 300, 192)],
)
def test_rows_that_fit_once_they_are_rounded_up(cells, columns, rows):
    assert fitting_rows(cells, columns) == rows
    assert rows == 1 or bucket_cells(rows, columns) <= cells
    assert bucket_cells(rows + 1, columns) > cells
