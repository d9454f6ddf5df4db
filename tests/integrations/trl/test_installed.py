"""What needs TRL itself: its trainer on a tiny Qwen3 that acts by tool calls (``make adapters-check``)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="TRL is not installed: make adapters-check has an environment with it")

import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer
from trl.chat_template_utils import qwen3_chat_template

from repro_rl.integrations.trl import ALFWorldTools, SokobanTools, WebShopTools, progress, won
from support.tool_model import teach_calls

EXAMPLE = Path(__file__).parents[3] / "examples" / "trl_tools.py"


def call(tool: str, **arguments: str) -> str:
    return json.dumps({"name": tool, "arguments": arguments})


@pytest.fixture(scope="module")
def sokoban_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It moves up, down, left or right, each as likely, and never says anything else."""
    calls = [call("move", direction=way) for way in ("up", "down", "left", "right")]
    return teach_calls(tmp_path_factory.mktemp("sokoban") / "model", calls, qwen3_chat_template)


def trained(model: Path, folder: Path, factory, rows: int, **more):
    """A trainer after two steps of two tasks, two rollouts each."""
    settings = GRPOConfig(
        output_dir=str(folder),
        max_steps=2,
        per_device_train_batch_size=4,
        num_generations=2,
        max_completion_length=700,
        max_tool_calling_iterations=4,
        learning_rate=1e-3,
        logging_steps=1,
        use_cpu=True,
        bf16=False,
        report_to="none",
        save_strategy="no",
        seed=1,
        **more,
    )
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        processing_class=AutoTokenizer.from_pretrained(model, padding_side="left"),
        args=settings,
        train_dataset=Dataset.from_list(factory.rows(rows)),
        reward_funcs=[won, progress],
        environment_factory=factory,
    )
    trainer.train()
    return trainer


def test_two_steps_of_grpo_by_tool_calls(sokoban_model: Path, tmp_path: Path) -> None:
    """Rooms that one or two pushes solve: some rollouts win, their reward comes through, weights change."""
    rooms = SokobanTools.configured(train_rooms=4, solution=(1, 2), max_steps=4)
    trainer = trained(sokoban_model, tmp_path, rooms, 4, reward_weights=[0.0, 0.0])
    rows = [row for row in trainer.state.log_history if "reward" in row]
    assert len(rows) == 2
    assert all(row["tools/call_frequency"] > 0 and row["tools/failure_frequency"] == 0 for row in rows)
    for row in rows:
        assert row["rewards/SokobanTools/mean"] == pytest.approx(10 * row["rewards/won/mean"])
        assert row["reward"] == pytest.approx(row["rewards/SokobanTools/mean"])
        assert 0 <= row["rewards/won/mean"] <= row["rewards/progress/mean"] <= 1
    assert max(row["rewards/won/mean"] for row in rows) > 0
    before = load_file(sokoban_model / "model.safetensors")
    after = trainer.model.state_dict()
    if any(row["reward_std"] > 0 for row in rows):
        assert any(not torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        (ALFWorldTools.configured(games=12, max_steps=3), [call("act", command="look")]),
        (
            WebShopTools.configured(generated=(120, 0), max_steps=3),
            [call("search", query="shoes"), call("click", name="next >")],
        ),
    ],
    ids=["alfworld", "webshop"],
)
def test_the_other_environments_answer_tool_calls(factory, words, tmp_path: Path) -> None:
    model = teach_calls(tmp_path / "model", words, qwen3_chat_template)
    trainer = trained(model, tmp_path / "run", factory, 2)
    rows = [row for row in trainer.state.log_history if "reward" in row]
    assert len(rows) == 2
    assert all(row["tools/call_frequency"] > 0 and row["tools/failure_frequency"] == 0 for row in rows)


def test_the_example_runs(sokoban_model: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), str(sokoban_model)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "rewards/SokobanTools/mean" in done.stdout
