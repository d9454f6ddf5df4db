"""What each shortcut of the RL update saves: ``python benchmarks/update.py``.

One rollout of a recipe is trained on again and again, with all shortcuts and with one of them off, in turn.
The learning rate is so small that the weights stay. One thread, no GPU.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from side_by_side import alternate, median_ms, ratio, versions
from warm_start import warm_start

from repro_rl.config import load_config
from repro_rl.policy.model import linear
from repro_rl.run.setup import set_up
from repro_rl.train import (
    Batch,
    RLRun,
    Row,
    SampleFormat,
    Updater,
    batch as batch_module,
    merge,
    reference_values,
    update as update_module,
)
from repro_rl.train.batch import split_rows, split_tree
from repro_rl.types import Sample


def never_merged(samples: list[Sample]) -> list[Row]:
    return [row for sample in samples for row in merge([sample])]


def shuffled(rows: list[Row], max_cells: int) -> list[list[Row]]:
    """Micro-batches of rows in any order: what ``split_rows`` would cut without sorting."""
    order = np.random.default_rng(0).permutation(len(rows))
    batches: list[list[Row]] = [[]]
    for row in (rows[i] for i in order):
        widest = max((len(other.ids) for other in (*batches[-1], row)), default=0)
        if batches[-1] and (len(batches[-1]) + 1) * widest > max_cells:
            batches.append([])
        batches[-1].append(row)
    return batches


def with_old_pass(original: Callable[[Updater, Batch], Batch]) -> Callable[[Updater, Batch], Batch]:
    """A no-grad pass of the policy beside every batch, as trainers do that do not keep sampled log-probs."""

    def with_reference(self: Updater, batch: Batch) -> Batch:
        with torch.no_grad():
            reference_values(self.trained.model, batch, "exact", 1.0)
        return original(self, batch)

    return with_reference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--recipe", default="sokoban-tiny", help="sokoban-tiny, alfworld-tiny, webshop-tiny")
    parser.add_argument("--init", type=Path, help="a warm start of the recipe  [default: made here, minutes]")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="seconds: a small rollout, a short warm start")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    repetitions = 2 if arguments.quick else arguments.repetitions
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        init = warm_start(arguments.recipe, folder, arguments.quick, arguments.init)
        settings = [f"train.init={init}", "method=repro", "method.rehearsal=0", "train.lr=1e-12"]
        if arguments.quick:
            settings += ["train.groups=4", "train.group_size=4", "train.minibatches=2"]
        config = load_config(arguments.recipe, settings)
        run = RLRun(set_up(config), folder / "run")
        groups = run.rollout(1)
        run.credit(groups, 1)
        how = SampleFormat(run.setup.prompts.fmt, run.policy.codec.decode, config.method.advantage_on)
        samples = run.context.samples(groups, how)
        updater = run.updater

        def work(packed: bool = True, context: Callable[[], Any] = nullcontext) -> Callable[[], Any]:
            def once() -> None:
                updater.trained.packed = packed
                with context():
                    updater.update(samples, groups=len(groups), iteration=1, seed=config.seed)

            return once

        everything = work()
        padded = work(packed=False)
        cases = [
            (
                "equal rows merged",
                everything,
                work(context=lambda: patch.object(update_module, "merge", never_merged)),
            ),
            ("equal beginnings computed once", everything, padded),
            (
                "  and kept together in a batch",
                everything,
                work(context=lambda: patch.object(batch_module, "split_tree", split_rows)),
            ),
            (
                "padded rows: sorted by length",
                padded,
                work(False, lambda: patch.object(batch_module, "split_rows", shuffled)),
            ),
            (
                "sampled log-probs kept, no old pass",
                everything,
                work(
                    context=lambda: patch.object(
                        Updater, "_with_reference", with_old_pass(Updater._with_reference)
                    )
                ),
            ),
            (
                "float32 products by oneDNN (AMD)",
                everything,
                work(context=lambda: patch.object(linear, "mkl_leaves_avx512", lambda: False)),
            ),
        ]
        rows, cells, nodes = sizes(samples, config.train.micro_tokens)
        print(
            f"{arguments.recipe}: {len(samples):,} samples, {rows:,} distinct, {cells:,} tokens of these, "
            f"{nodes:,} tree nodes; {versions('torch', 'transformers')}"
        )
        print(f"{'processor milliseconds of an update':<38}{'on':>8}{'off':>8}  off / on (range)")
        for title, on, off in cases:
            fast, slow = alternate(on, off, repetitions)
            print(
                f"{title:<38}{median_ms(fast.cpu):>8}{median_ms(slow.cpu):>8}  {ratio(slow.cpu, fast.cpu)}",
                flush=True,
            )


def sizes(samples: list[Sample], max_nodes: int) -> tuple[int, int, int]:
    """(distinct rows, their tokens, nodes of the trees they make): all groups as one mini-batch."""
    from repro_rl.policy.forward.tree import build_tree

    rows = merge(samples)
    trees = [build_tree([row.ids for row in chunk]) for chunk in split_tree(rows, max_nodes)]
    return len(rows), sum(len(row.ids) for row in rows), sum(len(tree.token) for tree in trees)


if __name__ == "__main__":
    main()
