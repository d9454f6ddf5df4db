"""Training: the two stages, and the parts of another loop. Other packages import from here only."""

from repro_rl.rollout.samples import SampleFormat, make_sample
from repro_rl.train.batch import Batch, Collation, Row, merge, single_row, trained_tokens
from repro_rl.train.imitation import (
    ImitationData,
    PromptModes,
    hold_out,
    imitation_batches,
    imitation_data,
)
from repro_rl.train.loop import run_training
from repro_rl.train.loss import LossSettings, LossTerms, imitation_loss, policy_loss, reference_values
from repro_rl.train.mismatch import IMPORTANCE_CAP
from repro_rl.train.optimizers import build_optimizer
from repro_rl.train.rl import RLRun
from repro_rl.train.schedule import ReflectionSampling, minibatch_order, task_schedule
from repro_rl.train.sft import WarmupRun, run_warmup
from repro_rl.train.update import TrainedModel, Updater

__all__ = [
    "IMPORTANCE_CAP",
    "Batch",
    "Collation",
    "ImitationData",
    "LossSettings",
    "LossTerms",
    "PromptModes",
    "RLRun",
    "ReflectionSampling",
    "Row",
    "SampleFormat",
    "TrainedModel",
    "Updater",
    "WarmupRun",
    "build_optimizer",
    "hold_out",
    "imitation_batches",
    "imitation_data",
    "imitation_loss",
    "make_sample",
    "merge",
    "minibatch_order",
    "policy_loss",
    "reference_values",
    "run_training",
    "run_warmup",
    "single_row",
    "task_schedule",
    "trained_tokens",
]
