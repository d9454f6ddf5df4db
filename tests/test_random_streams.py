"""Random numbers that are a function of names."""

from __future__ import annotations

import subprocess
import sys
from hashlib import blake2b

import numpy as np
from hypothesis import given, strategies as st
from scipy.stats import kstest

from repro_rl.random_streams import name_key, stream_keys, uniforms
from support.models import keys_of


def test_the_numbers_of_older_versions_stand() -> None:
    # Written down once: results that were published must come out again.
    assert name_key(7, "reflections", 3, 0) == 3267913224399169190
    assert stream_keys(5, np.arange(2), 9).tolist() == [10931310199815773393, 17803938326720146429]
    assert uniforms(np.arange(3, dtype=np.uint64), 4).tolist() == [
        0.6263198237992851,
        0.7254922597640515,
        0.484371800028246,
    ]


def test_a_name_is_the_same_in_every_process() -> None:
    code = "from repro_rl.random_streams import name_key; print(name_key('a', 1, None))"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(there.stdout) == name_key("a", 1, None)


def test_names_do_not_run_together() -> None:
    assert name_key("ab", "c") != name_key("a", "bc")
    assert name_key(1, 2) != name_key(12)
    assert name_key("1") == name_key(1)  # by what is printed


@given(st.integers(0, 2**70), st.lists(st.integers(0, 2**31), min_size=1, max_size=9), st.integers(0, 999))
def test_a_key_does_not_depend_on_the_others(base: int, column: list[int], scalar: int) -> None:
    keys = stream_keys(base, np.array(column), scalar)
    alone = [int(stream_keys(base, np.array([value]), scalar)[0]) for value in column]
    assert keys.tolist() == alone
    draws = uniforms(keys, 3)
    assert ((draws >= 0) & (draws < 1)).all()
    assert draws.tolist() == [float(uniforms(keys[i : i + 1], 3)[0]) for i in range(len(keys))]


def test_scalars_need_a_count_to_be_many() -> None:
    assert stream_keys(1, 2, 3).shape == (1,)
    keys = stream_keys(1, 2, 3, count=4)
    assert keys.shape == (4,)
    assert len(set(keys.tolist())) == 1


def test_each_key_may_have_a_position_of_its_own() -> None:
    keys, positions = keys_of(5), np.array([3, 0, 3, 7, 1])
    each = [float(uniforms(keys[i : i + 1], int(at))[0]) for i, at in enumerate(positions)]
    assert uniforms(keys, positions).tolist() == each


def test_uniforms_are_uniform_and_stateless():
    keys = keys_of(20_000)
    values = uniforms(keys, 3)
    assert kstest(values, "uniform").pvalue > 1e-4
    assert values.min() >= 0
    assert values.max() < 1
    order = np.random.default_rng(0).permutation(len(keys))
    assert np.array_equal(uniforms(keys[order], 3), values[order])
    # neighbouring keys, positions and steps are unrelated
    small = np.arange(20_000, dtype=np.uint64)
    assert kstest(uniforms(small, 0), "uniform").pvalue > 1e-4
    for one, two in (
        (uniforms(small, 0)[:-1], uniforms(small, 0)[1:]),
        (uniforms(keys, 0), uniforms(keys, 1)),
        (uniforms(stream_keys(0, keys, 1), 0), uniforms(stream_keys(0, keys, 2), 0)),
    ):
        assert abs(np.corrcoef(one, two)[0, 1]) < 4.5 / np.sqrt(len(one))


def test_keys():
    digest = blake2b(b"train\x1f0\x1f1", digest_size=8).digest()
    assert name_key("train", 0, 1) == int.from_bytes(digest, "little")
    assert name_key("a", "b") != name_key("ab")
    assert name_key("a", 1) == name_key("a", "1")
    assert 0 <= name_key() < 2**64
    keys = stream_keys(0, keys_of(1000), 5)
    assert len(set(keys.tolist())) == 1000
    assert stream_keys(7, 1, count=3).tolist() == [int(stream_keys(7, 1)[0])] * 3
    assert not np.array_equal(stream_keys(0, keys_of(5), 1), stream_keys(0, keys_of(5), 2))
