"""Success on the validation panel."""

from __future__ import annotations

from repro_rl.config import load_config
from repro_rl.policy import TransformersPolicy
from repro_rl.rollout import RolloutRequest
from repro_rl.run.setup import set_up
from repro_rl.run.validation import panel_requests, validation_success
from support.scripted import ScriptedPolicy
from support.small import SMALL


def test_requests_are_in_panel_order():
    assert panel_requests(["b", "a"], 2) == [RolloutRequest(t, n) for t in ("b", "a") for n in (0, 1)]


def test_validation_is_a_share_of_the_panel_and_the_same_again(warm):
    config = load_config(None, [*warm.settings, "eval.validation_temperature=1"])
    setup = set_up(config)
    policy = TransformersPolicy.load(warm.model, config.policy)
    context = setup.context(policy.codec)
    first, again = (validation_success(setup, context, policy, setup.prompts) for _ in range(2))
    assert first == again
    assert first * 8 == round(first * 8)


def test_validation_has_a_temperature_of_its_own():
    seen = []

    class Policy(ScriptedPolicy):
        def generate(self, prompts, keys, settings, forms=None):
            seen.append(settings.temperature)
            return super().generate(prompts, keys, settings, forms)

    more = "eval={temperature: 0, validation_temperature: 0.9, validation_tasks: 2}"
    setup = set_up(load_config(None, [*SMALL, more]))
    policy = Policy("p0 up")
    validation_success(setup, setup.context(policy.codec), policy, setup.prompts)
    assert set(seen) == {0.9}
