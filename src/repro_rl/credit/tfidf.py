"""TF-IDF of short texts, as scikit-learn's ``TfidfVectorizer`` with its defaults; numpy alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from repro_rl.credit.baseline import Floats

WORD = re.compile(r"\b\w\w+\b")  # words of two or more word characters


def tfidf(texts: Sequence[str], max_features: int) -> Floats:
    """[n, F] rows of length 1 (0 for a text without a word), F at most ``max_features``.

    A word weighs its count times ``ln((1 + n) / (1 + texts with it)) + 1``. Words are in lower case; of too
    many, the most frequent are kept, and among equally frequent ones the first in the alphabet.
    """
    counts = [Counter(WORD.findall(text.lower())) for text in texts]
    total: Counter[str] = Counter()
    for row in counts:
        total.update(row)
    kept = sorted(total, key=lambda word: (-total[word], word))[:max_features]
    column = {word: i for i, word in enumerate(sorted(kept))}
    table = np.zeros((len(texts), len(column)), dtype=np.float64)
    for i, row in enumerate(counts):
        for word, times in row.items():
            if word in column:
                table[i, column[word]] = times
    idf = np.log((1 + len(texts)) / (1 + (table > 0).sum(axis=0))) + 1
    table *= idf
    norm = np.linalg.norm(table, axis=1, keepdims=True)
    result: Floats = np.divide(table, norm, out=np.zeros_like(table), where=norm > 0)
    return result
