"""Whitening over all tokens of a batch, for both forms of REINFORCE++ (arXiv 2501.03262)."""

from __future__ import annotations

import numpy as np

from repro_rl.credit.baseline import Floats
from repro_rl.credit.inputs import CreditInputs, Indices

EPSILON = 1e-8  # added to the variance (verl)


def token_counts_of(inputs: CreditInputs) -> Indices:
    """[R], tokens of each step's answer, at least 1; without the input, 1."""
    if inputs.token_counts is None:
        return np.ones(len(inputs.trajectory), dtype=np.intp)
    return np.maximum(np.asarray([n for row in inputs.token_counts for n in row], dtype=np.intp), 1)


def whitened(values: Floats, of: Floats, counts: Indices) -> Floats:
    """``values`` less the mean of all tokens, over their spread; ``of`` [n] stand for ``counts`` [n] each."""
    total = counts.sum()
    mean = (of * counts).sum() / max(total, 1)
    variance = (counts * (of - mean) ** 2).sum() / max(total - 1, 1)
    result: Floats = (values - mean) / np.sqrt(variance + EPSILON)
    return result
