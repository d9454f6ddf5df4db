"""Which tokens of a demonstration are trained, by hand: answers, mistakes, branches."""

from __future__ import annotations

import re

import numpy as np
import pytest

from repro_rl.demos.annotators import AnnotationContext, annotate_all
from repro_rl.demos.mistakes import demonstrate
from repro_rl.policy.tokens.codec import TextCodec
from repro_rl.rollout.context import ContextLimits, make_context
from repro_rl.rollout.context.targets import branch_answer, executed_answer, expert_answer
from repro_rl.rollout.samples import branch_samples
from repro_rl.text import PromptBuilder, TextFormat
from repro_rl.types import Advice, AnswerPart, TokenKind
from support.chat_families import FAMILIES, family_tokenizer
from support.episodes import hand_step, sokoban_pool
from support.scripted import word_codec

BEFORE = PromptBuilder(TextFormat("compact", think="off"))
AFTER = PromptBuilder(TextFormat("compact", think="off", report="after"))
NONE = PromptBuilder(TextFormat("compact", think="off", progress=False))
TEXT = word_codec({"up", "down", "left", "right", *(f"p{n}" for n in range(101))})
P, A, N = AnswerPart.PROGRESS, AnswerPart.ACTION, AnswerPart.OTHER

RIGHT = hand_step(1, action="up", online=20, advice=Advice("up", 0.2, 20))
WRONG = hand_step(1, action="up", online=20, advice=Advice("left", 0.5, 50))
DEAD_END = hand_step(1, action="up", online=20, advice=Advice(""))
SILENT = hand_step(1, action="", online=20, advice=Advice("left", 0.5, 50))
PLAIN = hand_step(1, action="up", online=20)  # a demonstration without advice


def written(pieces):
    """(words, trained, part) of each piece."""
    return [
        (" ".join(TEXT.tokenizer.convert_ids_to_tokens(list(piece.ids))), bool(piece.kind), piece.part)
        for piece in pieces
    ]


@pytest.mark.parametrize(
    ("step", "prompts", "executed", "branch"),
    [
        # No mistake: all is trained, and there is no branch.
        (RIGHT, BEFORE, [("p20", True, P), ("up <eos>", True, A)], []),
        (RIGHT, AFTER, [("up", True, A), ("p20 <eos>", True, P)], []),
        (PLAIN, NONE, [("up <eos>", True, A)], []),
        # A mistake: before the action the expert's progress, after it the true one; never the action.
        (
            WRONG,
            BEFORE,
            [("p50", True, P), ("up <eos>", False, N)],
            [("p50", False, N), ("left <eos>", True, A)],
        ),
        (
            WRONG,
            AFTER,
            [("up", False, N), ("p20 <eos>", True, P)],
            [("left", True, A), ("p50 <eos>", True, P)],
        ),
        (WRONG, NONE, [("up <eos>", False, N)], [("left <eos>", True, A)]),
        # The expert had no answer: only what follows from the executed action is known.
        (DEAD_END, BEFORE, [("p20", False, N), ("up <eos>", False, N)], []),
        (DEAD_END, AFTER, [("up", False, N), ("p20 <eos>", True, P)], []),
        (DEAD_END, NONE, [("up <eos>", False, N)], []),
        # No action could be drawn.
        (SILENT, BEFORE, [("<eos>", False, N)], [("p50", False, N), ("left <eos>", True, A)]),
    ],
)
def test_pieces_by_hand(step, prompts, executed, branch):
    assert written(executed_answer(step, prompts, TEXT)) == executed
    assert written(branch_answer(step, prompts, TEXT)) == branch


def test_the_experts_answer_by_hand():
    assert written(expert_answer(WRONG, BEFORE, TEXT)) == [("p50", True, P), ("left <eos>", True, A)]
    assert written(expert_answer(WRONG, AFTER, TEXT)) == [("left", True, A), ("p50 <eos>", True, P)]
    assert expert_answer(DEAD_END, BEFORE, TEXT) == []


def test_full_style_by_characters():
    """The mask follows the text: the number is trained, the action and its tags are not."""
    prompts = PromptBuilder(TextFormat("full", think="off"))

    class Letters:
        """A codec in which every character is a token."""

        def encode_target(self, text):
            return (*map(ord, text), 0)

        def decode(self, ids):
            return "".join(chr(i) for i in ids if i)

    pieces = executed_answer(WRONG, prompts, Letters())
    texts = [(Letters().decode(piece.ids), bool(piece.kind)) for piece in pieces]
    assert texts == [("<progress>50</progress>", True), ("<action>up</action>", False)]


FULL = [
    PromptBuilder(TextFormat("full", progress=progress, think=think, report=report))
    for progress, report in ((True, "before"), (True, "after"), (False, "before"))
    for think in ("required", "optional")
]


@pytest.mark.parametrize("prompts", FULL)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("thinking", [False, True])
def test_the_parts_are_where_their_tags_are(prompts, family, thinking):
    """Whatever a chat template adds to the beginning of an answer, or takes from it, and whatever ends it."""
    codec = TextCodec(family_tokenizer(family), thinking=thinking)
    opened = codec.template.thought == "open"
    begin = "</think>" if opened else "<think></think>" if prompts.fmt.think == "required" else ""

    def texts(pieces):
        found = [(codec.decode(p.ids).strip(), bool(p.kind), p.part) for p in pieces]
        assert sum(len(p.ids) for p in pieces) == 0 or pieces[-1].ids[-1] in codec.eos_ids
        return found

    def answer(action, number, trained, part):
        act, report = f"<action>{action}</action>", f"<progress>{number}</progress>"
        if not prompts.fmt.progress:
            return [(begin + act, trained[0], part[0])]
        if prompts.fmt.report == "after":
            return [(begin + act, trained[0], part[0]), (report, trained[1], part[1])]
        return [(begin + report, trained[1], part[1]), (act, trained[0], part[0])]

    assert texts(expert_answer(WRONG, prompts, codec)) == answer("left", 50, (True, True), (A, P))
    number = 20 if prompts.fmt.report == "after" else 50
    assert texts(executed_answer(WRONG, prompts, codec)) == answer("up", number, (False, True), (N, P))
    again = prompts.fmt.progress and prompts.fmt.report == "before"
    wanted = answer("left", 50, (True, not again), (A, N if again else P))
    assert texts(branch_answer(WRONG, prompts, codec)) == wanted


@pytest.mark.parametrize("prompts", FULL[::2])
@pytest.mark.parametrize("mode", ["window", "chat"])
def test_no_character_of_an_executed_mistake_is_trained(episode, prompts, mode):
    """In both contexts, behind a template that opens a thought before every answer."""
    pool, trajectory, _ = episode
    codec = TextCodec(family_tokenizer("deepseek-v3.1"), thinking=True)
    limits = ContextLimits(
        prompt=4000, reflect_prompt=4000, conversation=40_000, action=60, reflection=40, cache=10**6
    )
    samples = make_context(mode, pool, limits).action_demos(trajectory, prompts, codec)
    trained = "".join(
        codec.decode(tuple(sample.ids[sample.trained].tolist()))
        for whole in samples
        for sample in (whole, *branch_samples(whole))
    )
    actions = re.findall("<action>(.*?)</action>", trained)
    known = [step for step in trajectory.steps if step.advice.action]
    assert sorted(actions) == sorted(step.advice.action for step in known)
    rest = re.sub(r"</think>|<action>\w+( \w+)*</action>|<progress>\d+</progress>|<.end.>", "", trained)
    assert rest == ""  # no half tag


LIMITS = ContextLimits(
    prompt=200, reflect_prompt=400, conversation=1000, action=3, reflection=40, cache=10**6
)


SEED = 2  # with which the episode has mistakes, and answers that were executed


@pytest.fixture(scope="module")
def episode():
    """A labelled episode with mistakes, and the codec of its words."""
    pool = sokoban_pool()
    env = pool.first
    trajectory = demonstrate(env, env.panel("train").ids[0], "planner", 0.5, seed=SEED)
    annotate_all([trajectory], "oracle", AnnotationContext(env.instructions, np.random.default_rng(0)))
    assert 0 < sum(step.mistake for step in trajectory.steps) < len(trajectory.steps)
    return pool, trajectory, word_codec({*env.vocabulary(), *BEFORE.words(env.max_steps)})


def words(text, ids):
    return text.tokenizer.convert_ids_to_tokens(list(ids))


@pytest.mark.parametrize("prompts", [BEFORE, AFTER, NONE])
def test_a_conversation_trains_no_mistake_and_its_branches_all_answers(episode, prompts):
    pool, trajectory, text = episode
    (sample,) = make_context("chat", pool, LIMITS).action_demos(trajectory, prompts, text)
    trained = words(text, sample.ids[sample.trained])
    expected = []
    for step in trajectory.steps:
        expected += [
            word
            for piece in executed_answer(step, prompts, text)
            if piece.kind
            for word in words(text, piece.ids)
        ]
    assert trained == expected
    branches = branch_samples(sample)
    wrong = [step for step in trajectory.steps if step.mistake and step.advice.action]
    assert len(branches) == len(wrong) > 0
    for branch, step in zip(branches, wrong, strict=True):
        own = int(branch.trained.argmax())
        shared = own - (prompts is BEFORE)  # the progress before the action is in both
        assert np.array_equal(branch.ids[:shared], sample.ids[:shared])
        assert step.advice.action in words(text, branch.ids[branch.trained])
        assert branch.ids[-1] == text.end_id


def test_a_window_trains_the_experts_answer_everywhere(episode):
    pool, trajectory, text = episode
    samples = make_context("window", pool, LIMITS).action_demos(trajectory, BEFORE, text)
    answered = [step for step in trajectory.steps if step.advice.action]
    assert len(samples) == len(answered)
    for sample, step in zip(samples, answered, strict=True):
        target = BEFORE.action_target(step.advice.online, step.advice.action)
        assert words(text, sample.ids[sample.trained]) == [*target.split(), "<eos>"]
        assert not sample.branches


def test_parts_are_numbered(episode):
    pool, trajectory, text = episode
    (sample,) = make_context("chat", pool, LIMITS).action_demos(trajectory, BEFORE, text)
    assert sample.parts is not None
    numbers = [int(n) for n in dict.fromkeys(sample.parts[sample.parts > 0])]
    actions = sum(not step.mistake for step in trajectory.steps)
    reports = sum(bool(step.advice.action) for step in trajectory.steps)
    assert sum(n % 4 == A for n in numbers) == actions
    assert sum(n % 4 == P for n in numbers) == reports
    assert not sample.parts[sample.kind == TokenKind.CONTEXT].any()
