"""One command for a short time on a GPU: correctness, speed, training; JSON after every step.

``python benchmarks/gpu_run --model smollm2-135m.gguf --out results --work /tmp/gpu_run`` on the card,
``python benchmarks/gpu_run --toy --out results --work scratch`` to rehearse it on a CPU. Repeated with the
same folders it goes on where it was cut off. See docs/gpu-run.md.
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import sys
from pathlib import Path

# Stages are forked, so nothing in this process may start CUDA: torch is to count devices without it.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")

import card
import correctness
import speed
import training
from job import Job, full_job, toy_job
from journal import DONE, Journal
from stages import Stage, run_stages


def stages_of(job: Job, work: Path) -> list[Stage]:
    """The stages in order, the most valuable first; their shares add up to one."""
    rates = [
        Stage(name, functools.partial(speed.measure, shape), 0.26 / len(job.shapes()))
        for name, shape in job.shapes().items()
    ]
    return [
        Stage("card", card.measure, 0.04),
        Stage("correctness", functools.partial(correctness.measure, work=work), 0.14),
        *rates,
        Stage("warmup", functools.partial(training.warm_up, work=work), 0.18),
        Stage("train-repro", functools.partial(training.train, "repro", work=work), 0.21, ("warmup",)),
        Stage("train-gigpo", functools.partial(training.train, "gigpo", work=work), 0.17, ("warmup",)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder that gets gpu_run.json")
    parser.add_argument("--work", type=Path, required=True, help="folder for models and checkpoints, large")
    parser.add_argument("--model", help="pretrained model: a folder, a hub name or a GGUF file")
    parser.add_argument(
        "--demos", type=Path, help="demonstrations to warm up with  [default: collected here]"
    )
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--toy", action="store_true", help="small sizes, on the CPU")
    parser.add_argument("--device", help="cpu or cuda  [default: cuda, with --toy cpu]")
    parser.add_argument("--only", help="names of stages, with commas between them")
    arguments = parser.parse_args()
    if not arguments.toy and arguments.model is None:
        parser.error("--model is needed, or --toy")
    device = arguments.device or ("cpu" if arguments.toy else "cuda")
    job = toy_job(device) if arguments.toy else full_job(arguments.model, device)
    arguments.out.mkdir(parents=True, exist_ok=True)
    journal = Journal(arguments.out)
    if journal.content.get("job", job.describe()) != job.describe():
        sys.exit(f"{journal.path} is of another job; give another --out.")
    journal.note(format=1, job=job.describe())
    if arguments.demos is not None and not (arguments.work / "demos").exists():
        shutil.copytree(arguments.demos, arguments.work / "demos")
    stages = stages_of(job, arguments.work)
    if arguments.only:
        names = arguments.only.split(",")
        stages = [stage for stage in stages if stage.name in names]
    after = run_stages(job, stages, arguments.out, arguments.minutes)
    sys.exit(0 if all(after.status(stage.name) == DONE for stage in stages) else 1)


if __name__ == "__main__":
    main()
