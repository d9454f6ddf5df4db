"""Demonstrations as samples to imitate, one prompt a step or one conversation an episode."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repro_rl.config import load_config
from repro_rl.demos import load_demos
from repro_rl.errors import DataError, PreflightError
from repro_rl.run.models import load_policy
from repro_rl.run.setup import set_up
from repro_rl.text import PromptBuilder, TextFormat
from repro_rl.train import (
    Collation,
    ImitationData,
    PromptModes,
    imitation_batches,
    imitation_data,
    single_row,
)
from repro_rl.train.batch import TreeInputs
from repro_rl.train.loss import imitation_terms
from repro_rl.train.sft import untaught
from repro_rl.types import Reflection, TokenKind, no_completion


def encoded(config, model, experts, labelled):
    """The data of a warmup with these settings, and the tokenizer they were encoded with."""
    setup = set_up(config)
    text = load_policy(config.policy, model).codec
    modes = PromptModes(
        config.warmup.forward_modes,
        act=setup.prompts_with(progress=False),
        progress=setup.prompts_with(progress=True),
        demonstrations=config.prompt.demonstrations,
        seed=config.seed,
        reflect_on_acted=config.warmup.reflect_on_acted,
    )
    return imitation_data(setup.context(text), text, modes, experts, labelled), text


def chat_context(warm, *more):
    """A chat context, and the tokenizer of its model."""
    config = load_config(None, [*warm.settings, *CHAT, *more])
    text = load_policy(config.policy, warm.model).codec
    return set_up(config).context(text), text


def words_of(text, ids):
    return text.tokenizer.convert_ids_to_tokens(list(ids))


def test_demonstrations_without_labels_are_named(warm):
    config = load_config(None, warm.settings)
    experts, labelled = load_demos(warm.demos)
    data, text = encoded(config, warm.model, experts, labelled)
    steps = sum(len(t.steps) for t in experts)
    assert len(data.actions) == 2 * steps  # action prompts and progress prompts
    assert len(data.won) == 8 + 16
    assert len(data.lost) == 48
    for sample in data.actions:
        target = text.decode(tuple(sample.ids[sample.trained].tolist()))
        asked = text.decode(tuple(sample.ids[~sample.trained].tolist())).split()[-1]
        assert (target[0] == "p" and len(target.split()) == 2) == (asked == "progress")
        assert sample.ids[-1] == 1
        assert set(sample.kind.tolist()) == {TokenKind.CONTEXT, TokenKind.ACT}
    for sample in (*data.won, *data.lost):
        assert set(sample.kind.tolist()) == {TokenKind.CONTEXT, TokenKind.REFLECT}
    short = load_config(None, [*warm.settings, "prompt.action_tokens=2"])
    with pytest.raises(PreflightError, match=r"prompt\.action_tokens is 2"):
        encoded(short, warm.model, experts, [])
    labelled[3].reflection.values = labelled[3].reflection.values[:-1]
    with pytest.raises(DataError, match=r"\d labels for"):
        encoded(config, warm.model, experts, labelled)


def test_unlabelled_episodes_teach_only_to_act(warm):
    """A batch annotator may leave some without labels."""
    config = load_config(None, warm.settings)
    experts, labelled = load_demos(warm.demos)
    whole, _ = encoded(config, warm.model, experts, labelled)
    steps = len(experts[0].steps)
    for step in experts[0].steps:
        step.online = None
    experts[0].reflection = labelled[3].reflection = Reflection("", no_completion(), None, ("no_answer",))
    data, _ = encoded(config, warm.model, experts, labelled)
    assert len(data.actions) == len(whole.actions) - steps  # its prompts without progress stay
    assert len(data.won) + len(data.lost) == len(whole.won) + len(whole.lost) - 2


def test_draws_are_half_of_won_and_half_of_lost_episodes():
    rng = np.random.default_rng(0)
    data = ImitationData(actions=["a"], won=["w"], lost=["l"])
    acts = ("action",)
    assert untaught(data, True, acts) == []
    assert "no reflection is taught" in " ".join(untaught(ImitationData(actions=["a"]), True, acts))
    assert untaught(ImitationData(actions=["a"]), False, acts) == []
    assert "no action is taught" in " ".join(untaught(ImitationData(won=["w"]), True, acts))
    for modes in ([], ["privileged-end"]):  # whatever the demonstrations hold
        (line,) = untaught(data, True, modes)
        assert line.startswith(
            f"no prompt that acts is taught, as warmup.forward_modes is [{', '.join(modes)}];"
        )
    assert data.draw(2, 4, rng) == (["a", "a"], ["w", "w", "l", "l"])
    # of an odd count chance decides: a count of 1 has both kinds in time
    for count in (1, 5):
        won = [data.draw(0, count, rng)[1].count("w") for _ in range(400)]
        assert set(won) == {count // 2, count // 2 + 1}
        assert abs(np.mean(won) - count / 2) < 0.1
    assert ImitationData(won=["w"]).draw(2, 3, rng) == ([], ["w"] * 3)
    assert ImitationData(lost=["l"]).draw(0, 3, rng) == ([], ["l"] * 3)
    assert not ImitationData()


def test_a_conversation_that_acts_is_drawn_with_its_own_reflection_once():
    data = ImitationData(actions=["a", "b"], won=["w"], lost=["l"], on_acted={1: "on b"})
    for seed in range(20):
        acting, reflecting = data.draw(3, 2, np.random.default_rng(seed))
        assert reflecting == ["w", "l"] + ["on b"] * ("b" in acting)


CHAT = ["prompt.context=chat"]


def test_demonstrations_become_conversations(warm):
    config = load_config(None, [*warm.settings, *CHAT])
    experts, labelled = load_demos(warm.demos)
    data, text = encoded(config, warm.model, experts, labelled)
    assert len(data.actions) == 2 * len(experts)  # with and without progress
    assert len(data.won) + len(data.lost) == len(experts) + len(labelled)
    expert, prompts = experts[0], PromptBuilder(TextFormat("compact"), resolution=50)
    (sample,) = set_up(config).context(text).action_demos(expert, prompts, text)
    words = words_of(text, sample.ids.tolist())
    answers = words_of(text, sample.ids[sample.trained].tolist())
    targets = []
    for step in expert.steps:
        targets += [*prompts.action_target(step.online, step.action).split(), "<eos>"]
    assert answers == targets
    assert [w for w in words if w not in answers][:3] == expert.steps[0].observation.split()[:3]


def test_reflections_on_what_acts_begin_with_its_conversation(warm):
    """So the token tree of an update computes the conversation once for both."""
    experts, labelled = load_demos(warm.demos)
    config = load_config(None, [*warm.settings, *CHAT, "warmup.reflect_on_acted=true"])
    data, _ = encoded(config, warm.model, experts, labelled)
    assert sorted(data.on_acted) == list(range(len(experts)))  # the prompts without progress come first
    for index, reflection in data.on_acted.items():
        acting = data.actions[index]
        assert reflection.ids[: len(acting.ids)].tolist() == acting.ids.tolist()
        assert set(reflection.kind.tolist()) == {TokenKind.CONTEXT, TokenKind.REFLECT}
    both = [data.actions[0], data.on_acted[0]]
    collation = Collation(0, torch.device("cpu"), as_tree=True)
    batch = collation.collate([single_row(sample) for sample in both], {TokenKind.ACT: 1.0})
    assert isinstance(batch.inputs, TreeInputs)
    assert len(batch.inputs.tree.token) == len(both[1].ids) - 1  # no more than the reflection has alone


def test_losses_of_both_kinds_are_those_of_separate_batches(warm):
    experts, labelled = load_demos(warm.demos)
    config = load_config(None, [*warm.settings, *CHAT, "warmup.reflect_on_acted=true"])
    data, _ = encoded(config, warm.model, experts, labelled)
    model = load_policy(config.policy, warm.model).model
    acting, reflecting = data.actions[:3], [data.won[0], data.lost[0], data.on_acted[1]]
    coefs = {TokenKind.ACT: 1.0, TokenKind.REFLECT: 0.5}
    results = []
    for as_tree, parts in ((True, [[*acting, *reflecting]]), (False, [acting, reflecting])):
        collation = Collation(0, torch.device("cpu"), as_tree)
        sums = dict.fromkeys(coefs, 0.0)
        model.zero_grad()
        for samples in parts:
            for batch in imitation_batches(samples, coefs, collation, 512):
                terms, _ = imitation_terms(model, batch)
                terms.sum().backward()
                for kind in coefs:
                    sums[kind] += terms[batch.targets.of_kind(kind)].sum().item()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        results.append((sums, gradient))
    (together, one), (apart, two) = results
    assert together == pytest.approx(apart, rel=1e-4)
    assert torch.allclose(one, two, atol=1e-5)


def test_a_reflection_follows_random_online_progress(warm):
    """Only the reflection is trained, and the progress of the answers is not the label."""
    context, text = chat_context(warm)
    expert = load_demos(warm.demos)[0][0]
    prompts = PromptBuilder(TextFormat("compact"), resolution=50)
    sample = context.reflection_demo(expert, prompts, text, 0)
    words = words_of(text, sample.ids.tolist())
    assert expert.reflection is not None
    target = [*prompts.reflection_target(expert.reflection.values or ()).split(), "<eos>"]
    assert words[-len(target) :] == target
    assert sample.trained.tolist() == [False] * (len(words) - len(target)) + [True] * len(target)
    drawn = set()
    for n in range(8):
        ids = context.reflection_demo(expert, prompts, text, n).ids.tolist()[: -len(target)]
        drawn.add(tuple(w for w in words_of(text, ids) if w.startswith("p") and w[1:].isdigit()))
    assert len(drawn) > 2
    assert all(len(progress) == len(expert.steps) for progress in drawn)
    # the same names, the same numbers
    again = [context.reflection_demo(expert, prompts, text, 3).ids for _ in range(2)]
    assert np.array_equal(*again)


def test_the_pilots_prompts_become_conversations_too(warm):
    modes = "warmup.forward_modes=[action, demos-retrospective]"
    config = load_config(None, [*warm.settings, *CHAT, modes, "prompt.demonstrations=1"])
    experts, labelled = load_demos(warm.demos)
    data, _ = encoded(config, warm.model, experts, labelled)
    without, with_one = data.actions[: len(experts)], data.actions[len(experts) :]
    for one, two in zip(without, with_one, strict=True):
        assert len(two.ids) > len(one.ids)
        assert two.trained.sum() == one.trained.sum()
        answers = [sample.ids[sample.trained].tolist() for sample in (one, two)]
        assert answers[0] == answers[1]  # the demonstration is context; the answers are the same


def test_demonstrations_say_what_is_too_small(warm):
    experts, _ = load_demos(warm.demos)
    long = max(experts, key=lambda t: t.length)
    prompts = PromptBuilder(TextFormat("compact"), resolution=50)

    def reflection(*more):
        context, text = chat_context(warm, *more)
        return context.reflection_demo(long, prompts, text, 0)

    def actions(*more):
        context, text = chat_context(warm, *more)
        (sample,) = context.action_demos(long, prompts, text)
        return sample

    with pytest.raises(PreflightError, match=r"room for \d+ of its \d+ steps; raise prompt.max_chat_tokens"):
        reflection("prompt.max_chat_tokens=75")
    assert 0 < actions("prompt.max_chat_tokens=75").trained.sum() < actions().trained.sum()
    with pytest.raises(PreflightError, match=r"The first turn of"):
        actions("prompt.max_chat_tokens=40")
    with pytest.raises(PreflightError, match=r"action_tokens is 2, but a demonstration needs 3"):
        actions("prompt.action_tokens=2")
    with pytest.raises(PreflightError, match=r"reflect_new_tokens is 2, but a demonstration needs"):
        reflection("prompt.reflect_new_tokens=2")


def test_prompts_of_held_out_episodes_show_trained_ones(warm):
    """A single held-out episode has no other one to show; the trained ones are shown."""
    config = load_config(None, [*warm.settings, "warmup.forward_modes=[demos-plain]"])
    experts, _ = load_demos(warm.demos)
    setup, text = set_up(config), load_policy(config.policy, warm.model).codec
    prompts = setup.prompts_with(progress=False)
    modes = PromptModes(("demos-plain",), act=prompts, progress=prompts, demonstrations=1, seed=0)
    held_out, trained = experts[:1], experts[1:]
    context = setup.context(text)
    with pytest.raises(DataError, match="1 demonstrations a prompt need"):
        imitation_data(context, text, modes, held_out, ())
    showing = imitation_data(context, text, modes, held_out, (), trained).actions
    acting = PromptModes(("action",), act=prompts, progress=prompts, demonstrations=1, seed=0)
    plain = imitation_data(context, text, acting, held_out, ()).actions
    assert all(len(one.ids) > len(other.ids) for one, other in zip(showing, plain, strict=True))
