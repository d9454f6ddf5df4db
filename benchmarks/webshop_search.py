"""Speed and size of the search index: ``python benchmarks/webshop_search.py items_shuffle_1000.json``.

The products are repeated to reach the wanted size, each copy with one word of its own (one core, no GPU).
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from repro_rl.envs.webshop.data.products import document_text
from repro_rl.envs.webshop.data.reader import read_products
from repro_rl.envs.webshop.search.index import SearchIndex


def repeated(texts: list[str], count: int) -> Iterator[str]:
    rng = random.Random(0)
    for i in range(count):
        yield f"{texts[i % len(texts)]} {rng.getrandbits(32):x}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("products", type=Path, help="a products file in WebShop's format")
    parser.add_argument("--documents", type=int, nargs="+", default=[1_000, 100_000, 1_180_000])
    parser.add_argument("--queries", type=int, default=200)
    arguments = parser.parse_args()

    texts = [document_text(product) for product in read_products(arguments.products)]
    rng = random.Random(1)
    kinds = {  # random words: as frequent in queries as in the texts, which is the slow case
        words: [" ".join(rng.choices(rng.choice(texts).split(), k=words)) for _ in range(arguments.queries)]
        for words in (3, 20)
    }
    for count in arguments.documents:
        start = time.perf_counter()
        built = SearchIndex.build(repeated(texts, count))
        seconds, size = time.perf_counter() - start, built.nbytes
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        with tempfile.TemporaryDirectory() as folder:
            built.save(Path(folder))
            del built
            start = time.perf_counter()
            loaded = SearchIndex.load(Path(folder))
            opening = time.perf_counter() - start
            print(
                f"{count:,} documents: built in {seconds:.1f} s ({peak:,.0f} MiB at most), "
                f"{size / 1e6:,.1f} MB, opened in {1e3 * opening:.1f} ms"
            )
            for words, queries in kinds.items():
                loaded.search(queries[0])
                taken = []
                for query in queries:
                    start = time.perf_counter()
                    loaded.search(query)
                    taken.append(1e3 * (time.perf_counter() - start))
                print(f"  {words} words: {statistics.median(taken):.3f} ms a query, slowest {max(taken):.2f}")


if __name__ == "__main__":
    main()
