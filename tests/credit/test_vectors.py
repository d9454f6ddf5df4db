"""Numbers of public programs, where this machine has them: every rule and loss agrees within 2e-6."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from conftest import shared_data
from repro_rl.credit import advantages
from repro_rl.losses import evaluate

RULES = (
    *("graphgpo", "maxrl", "g2po", "bipace", "gagpo", "hcapo", "dr_grpo", "reinforce_pp"),
    *("reinforce_pp_baseline", "proxmo", "mt_grpo", "mt_grpo_multi", "progress_advantage", "dapo_extras"),
)
LOSSES = (
    *("ppo_clip", "cispo", "gspo", "sapo", "dppo_tv", "dppo_kl", "gated_distillation", "opid"),
    *("loss_aggregation", "kl_estimators"),
)


def differences(got: Any, want: Any, where: str = "") -> list[str]:
    """What differs by more than the rounding of the public programs; None in ``want``: not defined there."""
    if want is None:
        return []
    if isinstance(want, dict):
        return [text for key in want for text in differences(got[key], want[key], f"{where}.{key}")]
    if isinstance(want, list):
        if len(got) != len(want):
            return [f"{where}: {len(got)} entries, not {len(want)}"]
        return [
            text
            for i, (a, b) in enumerate(zip(got, want, strict=True))
            for text in differences(a, b, f"{where}[{i}]")
        ]
    if isinstance(want, bool | str):
        return [] if got == want else [f"{where}: {got}, not {want}"]
    return [] if abs(got - want) <= 2e-6 * max(1, abs(want)) else [f"{where}: {got}, not {want}"]


@pytest.mark.parametrize("name", [*RULES, *LOSSES])
def test_the_numbers_of_a_public_program(name: str) -> None:
    path = shared_data() / "credit" / f"{name}.json.gz"
    if not path.is_file():
        pytest.skip("the numbers are not here; set REPRO_RL_SHARED_DATA to the folder that has them")
    cases = json.loads(gzip.decompress(path.read_bytes()))["cases"]
    assert cases
    for case in cases:
        apply = evaluate if name in LOSSES else advantages
        got = apply(name, settings=case["settings"], **case["inputs"])
        assert differences(got, case["expected"], f"case {case['id']}") == []
