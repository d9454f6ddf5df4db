"""A warmup teaches the prompts that hcapo and self-distillation score with, token for token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st

from repro_rl.config import RunConfig, load_config
from repro_rl.config.sections import PRIVILEGED_MODES
from repro_rl.demos import load_demos
from repro_rl.errors import ConfigError, PreflightError
from repro_rl.policy.token_policy import TokenPolicy
from repro_rl.policy.tokens.codec import TextCodec
from repro_rl.policy.tokens.guide import token_guide
from repro_rl.rollout import Actor, Judge, PlayOptions, RolloutRequest
from repro_rl.rollout.context.base import replayed
from repro_rl.rollout.context.targets import expert_text
from repro_rl.rollout.fit import MARK
from repro_rl.rollout.privileged import END, REFLECTION
from repro_rl.run.models import load_policy
from repro_rl.run.setup import Setup, set_up
from repro_rl.train import PromptModes, RLRun, imitation_data
from repro_rl.train.parts import build_scorer
from repro_rl.train.scoring import Scorer
from repro_rl.train.sft import WarmupRun
from repro_rl.types import Completion, Group, Ids, Reflection, Sample, Trajectory
from support.demos import collect
from support.scripted import scripted_completion, word_codec
from support.small import SMALL

SCORED = {
    "privileged-end": "method=hcapo",
    "privileged-reflection": "method=self-distill",
}  # who scores with it


class Retold(TokenPolicy):
    """Plays an episode once more: its answers, then the labels as its reflection."""

    def __init__(self, codec: TextCodec, setup: Setup, episode: Trajectory):
        self.codec, self.setup, self.episode = codec, setup, episode
        acts = [setup.prompts.action_target(None, step.action) for step in episode.steps]
        self.answers: Iterator[str] = iter([*acts, setup.prompts.reflection_target(episode.judged)])

    def generate_ids(self, encoded, keys, settings, forms=None) -> list[Completion]:
        (prompt,) = encoded
        if forms:
            prompts = self.setup.prompts
            values = [prompts.round_progress(value) for value in self.episode.judged]
            ids, allowed = token_guide(self.codec, forms[0]).encode(values)
            answer = scripted_completion(prompt, ids, self.codec.decode(ids))
            return [replace(answer, allowed=allowed)]
        answer = next(self.answers)
        return [scripted_completion(prompt, self.codec.encode_target(answer), answer)]


def played(setup: Setup, codec: TextCodec, episode: Trajectory, *, judged: bool) -> Trajectory:
    policy = Retold(codec, setup, episode)
    sampling = setup.reflection_sampling(1.0)
    (again,) = setup.context(codec).play(
        [RolloutRequest(episode.task_id, 0)],
        Actor(policy, setup.prompts, setup.action_sampling(1.0)),
        Judge(sampling) if judged else None,
        PlayOptions("again"),
    )
    assert [step.action for step in again.steps] == [step.action for step in episode.steps]
    assert (again.won, again.final_observation) == (episode.won, episode.final_observation)
    return again


def scored_prompts(setup: Setup, codec: TextCodec, episode: Trajectory) -> dict[int, Ids]:
    """The prompts that a second scoring has, by the number of their step."""
    found: list[tuple[Ids, Completion]] = []

    def listen(self: Scorer, requests: Sequence[tuple[Ids, Completion]], name: str, model: Any) -> None:
        found.extend(requests)
        for _, completion in requests:
            completion.scored[name] = completion.logprobs.copy()

    scorer = build_scorer(setup, setup.context(codec), SimpleNamespace(codec=codec), None)
    assert scorer is not None
    scorer = replace(scorer, policy=SimpleNamespace(codec=codec, model=None))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scorer, "_score", listen)
        scorer.score([Group(episode.task_id, [episode])], setup.config.method)
    numbers = {id(step.completion): step.t for step in episode.steps}
    return {numbers[id(completion)]: ids for ids, completion in found}


def taught(setup: Setup, codec: TextCodec, episodes: Sequence[Trajectory], *modes: str) -> list[Sample]:
    act, progress = (setup.prompts_with(progress=asked) for asked in (False, True))
    prompts = PromptModes(modes, act, progress, demonstrations=1, seed=0)
    return imitation_data(setup.context(codec), codec, prompts, episodes, []).actions


def prompt_of(sample: Sample) -> Ids:
    return tuple(sample.ids[~sample.trained].tolist())


def answer_of(sample: Sample) -> Ids:
    return tuple(sample.ids[sample.trained].tolist())


@pytest.mark.parametrize("form", ["free", "guided"])
@pytest.mark.parametrize("mode", SCORED)
def test_a_taught_prompt_is_the_one_that_is_scored(warm, mode: str, form: str) -> None:
    """The whole way: the episode is played again and judged, and its answers are scored."""
    config = load_config(None, [*warm.settings, SCORED[mode], f"prompt.reflect_form={form}"])
    setup, codec = set_up(config), load_policy(config.policy, warm.model).codec
    for episode in load_demos(warm.demos)[0][:4]:
        again = played(setup, codec, episode, judged=mode == "privileged-reflection")
        scored = scored_prompts(setup, codec, again)
        samples = taught(setup, codec, [episode], mode)
        assert list(scored) == list(range(1, episode.length + 1))
        assert [prompt_of(sample) for sample in samples] == list(scored.values())
        assert [answer_of(sample) for sample in samples] == [s.completion.token_ids for s in again.steps]
        text = codec.decode(prompt_of(samples[0]))
        told = " ".join(episode.final_observation.split()) if mode == "privileged-end" else "t1 p"
        assert text.startswith(told)
        assert text.endswith(" act")


@pytest.mark.parametrize("mode", ["privileged-end", "privileged-reflection"])
def test_what_is_told_before_a_step_worked_by_hand(warm, mode: str) -> None:
    """Labels 33 and 100 of two steps at a resolution of 50: ``t1 p50 t2 p100``."""
    config = load_config(None, warm.settings)
    setup, codec = set_up(config), load_policy(config.policy, warm.model).codec
    episode = next(t for t in load_demos(warm.demos)[0] if t.length == 2)
    episode.reflection.values = (33, 100)
    told = "t1 p50 t2 p100" if mode == "privileged-reflection" else episode.final_observation
    expected = [codec.encode(f"{told} {step.observation} act") for step in episode.steps]
    assert [prompt_of(sample) for sample in taught(setup, codec, [episode], mode)] == expected


@cache
def wrong_and_right() -> tuple[Trajectory, ...]:
    """Expert episodes, some with mistakes; labelled."""
    with closing(set_up(load_config(None, SMALL))) as setup:
        experts, _ = collect(setup.pool.first, expert=6, mistakes=(0.0, 0.25), winning=0, failing=0)
    assert any(step.mistake for episode in experts for step in episode.steps)
    return tuple(experts)


def varied(style: str, resolution: int, limits: tuple[int, int], method: str) -> RunConfig:
    full = ["prompt.style=full", "prompt.think=off", "prompt.history=2", "prompt.action_tokens=9"]
    return load_config(
        None,
        [
            *SMALL,
            *(full if style == "full" else ()),
            f"prompt.resolution={resolution}",
            f"prompt.max_prompt_tokens={limits[0]}",
            f"prompt.max_reflect_tokens={limits[1]}",
            method,
        ],
    )


def spelled(setup: Setup, episode: Trajectory) -> TextCodec:
    """A tokenizer of the words that the prompts and answers of an episode hold; shortening may cut others."""
    texts = [
        END,
        REFLECTION,
        MARK,
        episode.final_observation,
        setup.prompts.reflection_target(episode.judged),
    ]
    for inputs, step in replayed(setup.pool.first, episode):
        texts += [setup.prompts.act(inputs), expert_text(step, setup.prompts) or ""]
        texts.append(setup.prompts.action_target(None, step.action))
    return word_codec({word for text in texts for word in text.split()})


@given(data=st.data())
@hypothesis_settings(max_examples=25)
def test_taught_and_scored_prompts_agree_whatever_the_settings(data: st.DataObject) -> None:
    """Where a prompt has no room for the text, it is neither scored nor taught."""
    mode = data.draw(st.sampled_from(list(SCORED)))
    style = data.draw(st.sampled_from(["compact", "full"]))
    least = 40 if style == "compact" else 260
    limits = data.draw(st.integers(least, least + 60)), data.draw(st.integers(1, 90))
    resolution = data.draw(st.sampled_from([1, 10, 50]))
    config = varied(style, resolution, limits, SCORED[mode])
    if mode == "privileged-reflection":
        config.method.distill.text = data.draw(st.sampled_from(["reflection", "values"]))
    episode = data.draw(st.sampled_from(wrong_and_right()))
    with closing(set_up(config)) as setup:
        codec = spelled(setup, episode)
        again = played(setup, codec, episode, judged=False)
        written = setup.prompts.reflection_target(episode.judged)
        again.reflection = Reflection("", scripted_completion((), (), written), episode.judged, ())
        scored = scored_prompts(setup, codec, again)
        answers = {step.t: expert_text(step, setup.prompts) for step in episode.steps}
        expected = [(ids, codec.encode_target(answers[t])) for t, ids in scored.items() if answers[t]]
        context = setup.context(codec)
        samples = context.privileged_demos(episode, setup.prompts, codec, PRIVILEGED_MODES[mode])
        assert [(prompt_of(sample), answer_of(sample)) for sample in samples] == expected
        assert all(len(ids) <= sum(limits) for ids, _ in expected)


def test_modes_mix_as_asked(warm) -> None:
    """The other modes' samples are those of a warmup without these; an update draws from all alike."""
    config = load_config(None, warm.settings)
    setup, codec = set_up(config), load_policy(config.policy, warm.model).codec
    experts = load_demos(warm.demos)[0]
    steps = sum(episode.length for episode in experts)
    before = taught(setup, codec, experts, "action", "progress")
    mixed = taught(setup, codec, experts, "action", "progress", "privileged-end", "privileged-reflection")
    assert len(before) == 2 * steps
    assert len(mixed) == 4 * steps
    assert [one.ids.tolist() for one in mixed[: 2 * steps]] == [one.ids.tolist() for one in before]
    alone = [taught(setup, codec, experts, mode) for mode in SCORED]
    assert [one.ids.tolist() for one in mixed[2 * steps :]] == [
        one.ids.tolist() for part in alone for one in part
    ]
    for plain, *told in zip(before[:steps], *alone, strict=True):
        for one in told:  # the plain prompt stands last, and the answer is the same
            assert prompt_of(one)[-len(prompt_of(plain)) :] == prompt_of(plain)
            assert answer_of(one) == answer_of(plain)


def test_an_episode_without_the_text_is_not_taught_with_it(warm) -> None:
    config = load_config(None, warm.settings)
    setup, codec = set_up(config), load_policy(config.policy, warm.model).codec
    one, other = load_demos(warm.demos)[0][:2]
    one.reflection = Reflection("", scripted_completion((), (), ""), None, ("no_answer",))
    one.final_observation = ""
    for mode in SCORED:
        assert len(taught(setup, codec, [one, other], mode)) == other.length
        with pytest.raises(PreflightError, match=rf"has '{mode}', but no episode to imitate has"):
            taught(setup, codec, [one], mode)


@pytest.mark.parametrize("mode", SCORED)
def test_a_conversation_refuses_them_by_name(warm, mode: str) -> None:
    words = rf"warmup\.forward_modes={mode} needs prompt\.context=window; it is chat"
    with pytest.raises(ConfigError, match=words):
        load_config(None, [*warm.settings, f"warmup.forward_modes=[action, {mode}]", "prompt.context=chat"])
    config = load_config(None, [*warm.settings, "prompt.context=chat"])
    setup, codec = set_up(config), load_policy(config.policy, warm.model).codec
    with pytest.raises(NotImplementedError, match=r"context 'chat' has no prompts that tell the"):
        taught(setup, codec, load_demos(warm.demos)[0][:1], mode)


def test_a_warmup_that_teaches_them_raises_the_log_prob_behind_them(warm, tmp_path) -> None:
    """And RL from it rehearses as from any other warm start."""
    modes = "warmup.forward_modes=[action, progress, privileged-end, privileged-reflection]"
    config = load_config(None, [*warm.settings, modes, "warmup.forward_batch=32"])
    with closing(set_up(config)) as setup:
        run = WarmupRun(setup, warm.demos, tmp_path / "warm")
        run.train()
        model = run.write_model()
    gains: dict[str, dict[str, float]] = {}
    for name, start in (("with", model), ("without", warm.model)):
        gains[name] = {}
        for method in SCORED.values():
            small = ["train.groups=4", "train.group_size=2", "train.minibatches=2", "method.rehearsal=3"]
            config = load_config(None, [*warm.settings, *small, f"train.init={start}", method])
            with closing(set_up(config)) as setup:
                row = RLRun(setup, tmp_path / name / method).step()
            gains[name] |= {key: value for key, value in row.items() if key.endswith("_gain")}
            assert ("update/rehearsal_loss" in row) == (method == "method=self-distill")
    for name, gain in gains["with"].items():
        assert gain > gains["without"][name] + 0.3
