"""What decoders over a static KV cache keep and free, and how large batches may become."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from repro_rl.policy import SamplingSettings, TransformersPolicy
from repro_rl.policy.decode_step import EagerSteps
from support.models import keys_of, load_cpu
from support.prompts import LONG


@pytest.fixture
def policy(tiny_folder) -> TransformersPolicy:
    return load_cpu(tiny_folder, static_cache="on")


def test_freed_decoders_give_their_memory_back_at_once(policy):
    """No reference leads back to a cache: memory would stay until the next collection."""
    policy.generate(LONG, keys_of(len(LONG)), SamplingSettings(4))
    layer = policy.decoders._idle[0]._cache._layers[0]
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
