"""verl's synchronous trainer with repro_rl's credit, its K updates an iteration, panels and records."""

from __future__ import annotations

import math
import pickle
import time
from typing import Any

import torch
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf
from tensordict import NonTensorData, TensorDict
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync

from repro_rl.dist.ranks import ALONE
from repro_rl.errors import TrainingStopped
from repro_rl.integrations.verl.credit import BatchCredit, SampleKey, Session
from repro_rl.integrations.verl.data import AGENT, FIELD, check_rows
from repro_rl.integrations.verl.recipe import SECTION, our_settings
from repro_rl.rollout import write_trajectories
from repro_rl.rollout.record import training_file
from repro_rl.rollout.samples import SampleFormat
from repro_rl.run.folder import MetricsLog
from repro_rl.run.preflight import check_model_text
from repro_rl.run.setup import set_up
from repro_rl.types import Trajectory

# What our own run folders call verl's figures, for the report.
UPDATE = {
    "actor/pg_loss": "update/policy_loss",
    "actor/loss": "update/loss",
    "actor/kl_loss": "update/kl",
    "actor/grad_norm": "update/grad_norm",
    "actor/pg_clipfrac": "update/clip_fraction",
    "actor/lr": "update/lr",
    "actor/entropy": "rollout/entropy",
}


@register_trainer(AGENT)
class ReproTrainer(PPOTrainerSync):
    """``PPOTrainerSync``; what differs is in the overridden methods and nowhere else."""

    def __init__(self, config: DictConfig):
        config.trainer.v1.trainer_mode = "sync"  # verl compares the literal
        section = OmegaConf.to_container(config[SECTION], resolve=True)
        assert isinstance(section, dict)
        self.ours, self.out = our_settings({str(k): v for k, v in section.items()})
        self.setup = set_up(self.ours, ALONE)
        method = self.ours.method
        codec = self.setup.codec(str(config.actor_rollout_ref.model.path))
        check_model_text(self.ours.prompt, codec)
        self.credit = BatchCredit(
            method,
            self.setup.reflection_choice(),
            self.ours.train.group_size,
            self.setup.context(codec),
            SampleFormat(self.setup.prompts.fmt, codec.decode, method.advantage_on),
        )
        self._log: MetricsLog | None = None
        self._begin = time.perf_counter()
        super().__init__(config)

    def _init_dataloader(self) -> None:
        super()._init_dataloader()
        labels = check_rows(self.setup, self.train_dataset.dataframe[0], self.val_dataset.dataframe[0])
        print("repro_rl panels: train {}, validation {}".format(*labels))

    def _get_required_batch_multiple(self, dp_size: int) -> int:
        """K equal mini-batches on every rank; verl counts a mini-batch in groups of ``rollout.n``."""
        return math.lcm(dp_size, int(self.config.actor_rollout_ref.rollout.n)) * self.ours.train.minibatches

    def _update_actor(self, batch: Any, metrics: dict[str, Any]) -> Any:
        """The number of samples varies with the length of the episodes; that of the updates does not."""
        rows = len(batch) // self.ours.train.minibatches
        self.config.actor_rollout_ref.actor.ppo_mini_batch_size = rows // int(
            self.config.actor_rollout_ref.rollout.n
        )
        return super()._update_actor(batch, metrics)

    def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
        """verl's own first, for its rollout correction and its figures; ours then replaces it."""
        batch = super()._compute_advantage(batch, metrics)
        data = tq.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=["response_mask", "extra_fields"]
        )
        keys = [_row_key(key) for key in batch.keys]
        sessions: dict[Session, Trajectory] = {}
        for key, tag, extra in zip(keys, batch.tags, list(data["extra_fields"]), strict=True):
            # Some backends wrap what is no tensor.
            record = (extra.data if isinstance(extra, NonTensorData) else extra)[FIELD]
            if "trajectory" in record and not tag.get("is_padding", False):
                sessions[key[:2]] = pickle.loads(record["trajectory"])
        if not sessions:
            raise TrainingStopped(f"No session of iteration {self.global_steps} came back; see verl's log.")
        credited = self.credit.credit(sessions, self.global_steps)
        rows, matched = [], 0
        for key, mask in zip(keys, data["response_mask"].unbind(), strict=True):
            values = credited.advantages.get(key)
            matched += values is not None
            row = torch.zeros(len(mask)) if values is None else torch.from_numpy(values.copy())
            rows.append(row * mask)
        if matched != len(credited.advantages):
            raise TrainingStopped(
                f"verl returned {matched} of {len(credited.advantages)} samples of iteration "
                f"{self.global_steps}; see verl's log for failed sessions."
            )
        nested = torch.nested.as_nested_tensor(rows, layout=torch.jagged)
        fields = TensorDict({"advantages": nested, "returns": nested.clone()}, batch_size=len(batch))
        batch = tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=fields)
        metrics.update(credited.metrics)
        metrics["samples/padding"] = float(sum(tag.get("is_padding", False) for tag in batch.tags))
        if self.ours.train.records(self.global_steps):
            played = [t for group in credited.groups for t in group.trajectories]
            write_trajectories(training_file(self.out, self.global_steps), played, self.global_steps)
        return batch

    def _compute_metrics(
        self, batch: Any, metrics: dict[str, Any], timing_raw: Any, global_steps: int, epoch: int
    ) -> None:
        """verl's own, and a line of metrics.jsonl in our run folder."""
        super()._compute_metrics(batch, metrics, timing_raw, global_steps, epoch)
        if self._log is None:
            self._log = MetricsLog(self.out, global_steps - 1)
        before = self._log.rows[-1] if self._log.rows else {}
        row: dict[str, Any] = {
            "iteration": global_steps,
            "env_steps": int(before.get("env_steps", 0) + metrics["samples/env_steps"]),
            "seconds": round(float(before.get("seconds", 0.0)) + float(timing_raw["step"]), 3),
        }
        row |= {name: float(value) for name, value in metrics.items() if _is_number(value)}
        row |= {ours: row[theirs] for theirs, ours in UPDATE.items() if theirs in row}
        success = [v for k, v in row.items() if k.startswith("val-core/") and "/acc/mean" in k]
        if success:
            row |= {"validation/success": success[0], "validation/tasks": self.ours.eval.validation_tasks}
        self._log.add(row)


def _row_key(key: str) -> SampleKey:
    """``uid_session_index``, verl's key of a sample."""
    uid, session, index = key.rsplit("_", 2)
    return uid, int(session), int(index)


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
