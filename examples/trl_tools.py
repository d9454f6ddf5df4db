"""Sokoban in TRL's GRPOTrainer: the model moves by calling a tool. In the checkout: `pip install '.[trl]'`

python examples/trl_tools.py Qwen/Qwen3-0.6B
"""

import sys

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from repro_rl.integrations.trl import SokobanTools, progress, won

settings = GRPOConfig(
    output_dir="runs/trl",
    max_steps=2,
    per_device_train_batch_size=4,
    num_generations=4,
    max_completion_length=1024,
    reward_weights=[0.0, 0.0],  # won and progress are only recorded; the environment has its own reward
    use_cpu=not torch.cuda.is_available(),
    bf16=torch.cuda.is_available(),
    report_to="none",
)
trainer = GRPOTrainer(
    model=sys.argv[1],
    args=settings,
    train_dataset=Dataset.from_list(SokobanTools.rows(64)),
    reward_funcs=[won, progress],
    environment_factory=SokobanTools,
)
trainer.train()
for row in trainer.state.log_history:
    print({name: value for name, value in row.items() if name.startswith(("rewards/", "tools/"))})
