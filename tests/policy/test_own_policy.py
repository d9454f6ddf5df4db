"""docs/own-policy.md: the policy of the page plays, reflects and converses, and gives samples to train on."""

from __future__ import annotations

import inspect
import math
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import repro_rl as rr
from repro_rl.policy import Sampler, TokenPolicy
from repro_rl.rollout.samples import TrainedPart, make_sample
from support.small import SMALL

PAGE = (Path(__file__).parents[2] / "docs" / "own-policy.md").read_text()


@pytest.fixture(scope="module")
def policy(warm) -> Any:
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    page: dict[str, Any] = {}
    exec(compile(code, "own-policy.md", "exec"), page)
    return page["AnyToken"](rr.load_codec(warm.model))


def play(policy: Any, *settings: str) -> list[rr.Trajectory]:
    setup = rr.set_up(rr.load_config(None, [*SMALL, *settings]))
    context = setup.context(policy.codec)
    actor = rr.Actor(policy, setup.prompts, setup.action_sampling(1.0))
    judge = rr.Judge(setup.reflection_sampling(1.0))
    tasks = setup.panel("train").ids[:2]
    groups = rr.play(context, tasks, actor, judge, group_size=2, stream="own")
    setup.close()
    return [trajectory for group in groups for trajectory in group.trajectories]


@pytest.mark.parametrize("context", ["window", "chat"])
def test_it_plays_and_reflects_and_does_so_again(policy, context: str) -> None:
    first, second = (play(policy, f"prompt.context={context}") for _ in range(2))
    assert [t.error for t in first] == [None] * 4
    for one, other in zip(first, second, strict=True):
        assert one.reflection.defects, "a reflection of any tokens cannot be read"
        for a, b in zip(
            [*(step.completion for step in one.steps), one.reflection.completion],
            [*(step.completion for step in other.steps), other.reflection.completion],
            strict=True,
        ):
            assert (a.token_ids, a.text) == (b.token_ids, b.text)
    completion = first[0].steps[0].completion
    assert completion.finished == (completion.token_ids[-1] in policy.codec.eos_ids)
    assert completion.logprobs == pytest.approx(-math.log(len(policy.ids)))
    assert completion.entropy == pytest.approx(math.log(len(policy.ids)))
    sample = make_sample([TrainedPart(completion, 1.0, rr.TokenKind.ACT)], 0)
    assert sample.ids[sample.trained].tolist() == list(completion.token_ids)


def test_a_row_does_not_depend_on_its_batch_and_what_cannot_be_done_is_said(policy) -> None:
    settings = rr.SamplingSettings(max_new_tokens=5)
    keys = np.array([3, 4], np.uint64)
    prompts = [policy.codec.encode("left"), policy.codec.encode("right act")]
    both = policy.generate_ids(prompts, keys, settings)
    alone = policy.generate_ids(prompts[1:], keys[1:], settings)
    assert both[1].token_ids == alone[0].token_ids != both[0].token_ids
    (long,) = policy.generate_ids([prompts[0] * 999], keys[:1], settings)
    assert long.error is not None
    assert long.error.startswith("prompt_too_long")
    assert (long.token_ids, long.finished) == ((), False)
    with pytest.raises(rr.ConfigError, match="reflect_form=free"):
        play(policy, "prompt.reflect_form=guided")


def test_the_page_names_the_members_as_they_are() -> None:
    assert TokenPolicy.__abstractmethods__ == {"generate_ids"}
    arguments = [*inspect.signature(TokenPolicy.generate_ids).parameters][1:]
    assert f"`generate_ids({', '.join(arguments)})`" in PAGE
    own = [name for name in vars(TokenPolicy) if not name.startswith("_")]
    assert [name for name in own if f"| `{name}(" not in PAGE] == []
    sampler = {name for name in vars(Sampler) if not name.startswith("_")}
    assert [name for name in sampler if f"`{name}`" not in PAGE] == []
    left_out = {"counted", "scored"}  # of servers of text; of second scorings
    listed = re.findall(r"^\| `(\w+)` \| ", PAGE.partition("the fields of `Completion`")[2], re.MULTILINE)
    assert {field.name for field in fields(rr.Completion)} - left_out == set(listed)
