"""Forward-then-reflect: act in all live episodes at once, then judge the finished ones."""

from repro_rl.rollout.forward import EnvPool, Job, run_episodes
from repro_rl.rollout.record import read_trajectories, trajectory_record, write_trajectories
from repro_rl.rollout.reflect import reflect

__all__ = [
    "EnvPool",
    "Job",
    "read_trajectories",
    "reflect",
    "run_episodes",
    "trajectory_record",
    "write_trajectories",
]
