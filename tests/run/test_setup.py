"""From settings to objects: the context, its token budgets, prompts, panels and sampling of a run."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from repro_rl.config import load_config
from repro_rl.dist.ranks import ALONE
from repro_rl.errors import PreflightError, TaskError
from repro_rl.policy.base import SamplingSettings
from repro_rl.rollout.context import ChatContext, ContextLimits, WindowContext
from repro_rl.run.setup import set_up
from support.small import SMALL


@dataclass
class OfSize:
    """A codec of a model that can hold so many tokens."""

    positions: int | None


BUDGETS = [
    "prompt.max_prompt_tokens=900",
    "prompt.max_reflect_tokens=800",
    "prompt.max_chat_tokens=700",
    "prompt.action_tokens=3",
    "prompt.reflect_new_tokens=34",
    "policy.max_cache_tokens=5000",
]


def setup_of(*more):
    return set_up(load_config(None, [*SMALL, *more]))


@pytest.mark.parametrize(("mode", "kind"), [("window", WindowContext), ("chat", ChatContext)])
def test_the_context_is_that_of_the_settings(mode, kind):
    setup = setup_of(*BUDGETS, f"prompt.context={mode}")
    context = setup.context(OfSize(None))
    assert type(context) is kind
    assert context.name == mode
    assert context.pool is setup.pool
    assert context.limits == ContextLimits(
        prompt=900, reflect_prompt=800, conversation=700, action=3, reflection=34, cache=5000
    )


def test_token_budgets_are_bounded_by_what_the_model_can_hold():
    setup = setup_of(*BUDGETS)
    limits = setup.context(OfSize(256)).limits
    assert (limits.prompt, limits.reflect_prompt, limits.conversation) == (253, 222, 256)
    assert (limits.action, limits.reflection, limits.cache) == (3, 34, 5000)
    assert setup.context(OfSize(4096)).limits == setup.context(OfSize(None)).limits
    assert setup_of(*BUDGETS, "method=gigpo").context(OfSize(20)).limits.reflect_prompt == 1  # not needed
    with pytest.raises(PreflightError, match=r"prompt\.reflect_new_tokens is 34, and the model holds 20"):
        setup.context(OfSize(20))
    with pytest.raises(PreflightError, match=r"prompt\.action_tokens is 3, and the model holds 3 tokens"):
        setup.context(OfSize(3))


@pytest.mark.parametrize(("method", "progress"), [("repro", True), ("gigpo", False)])
def test_prompts_are_those_of_the_method(method, progress):
    setup = setup_of(f"method={method}", "prompt.resolution=20")
    assert setup.prompts.fmt.progress is progress
    assert setup.prompts.resolution == 20
    for asked in (False, True):  # a warmup teaches both, whatever the method does
        assert setup.prompts_with(asked).fmt.progress is asked


@pytest.mark.parametrize(
    ("value", "listed", "tagged"), [("off", False, False), ("on", True, False), ("tagged", True, True)]
)
def test_actions_are_listed_as_the_settings_say(value, listed, tagged):
    prompts = setup_of("prompt.style=full", f"prompt.admissible={value}").prompts
    assert (prompts.shows_admissible, prompts.tagged) == (listed, tagged)


def test_panels_are_the_fixed_tasks_of_a_split():
    setup = setup_of("eval.validation_tasks=5")
    assert len(setup.panel("train")) == 16
    assert setup.panel("train", 3).ids == setup.panel("train").ids[:3]
    assert setup.validation_panel().ids == setup.panel("validation").ids[:5]
    with pytest.raises(TaskError, match="has 8 tasks, 9 were asked for"):
        setup.panel("test", 9)


def test_sampling_has_the_budgets_of_the_settings():
    setup = setup_of()
    assert setup.action_sampling(0.7) == SamplingSettings(3, 0.7)
    assert setup.reflection_sampling(0.0) == SamplingSettings(34, 0.0)


def test_which_reflections_are_trained_on():
    assert setup_of("method.reflect_share=0.5", "seed=4").reflection_choice().share == 0.5
    assert setup_of("method.reflect_coef=0", "seed=4").reflection_choice().share == 0
    assert setup_of("seed=4").reflection_choice().seed == 4


def test_a_lone_process_shares_with_nobody(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    assert setup_of().ranks is ALONE


def test_words_of_demonstrations_join_those_of_the_environment():
    setup = setup_of()
    words = setup.tiny_words()
    assert words >= set(setup.pool.first.vocabulary())
    assert "reflect" in words
