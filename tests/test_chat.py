"""Chat mode: turns as ids, the cache between turns, room, packed samples, and a model behind an API."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from repro_rl import make
from repro_rl.config import load_config
from repro_rl.errors import ConfigError
from repro_rl.policy import SamplingSettings, TransformersPolicy, build_tiny, packed
from repro_rl.policy.chat import TokenChat, open_chat
from repro_rl.policy.chat_cache import CachedChat
from repro_rl.policy.http.answers import Answer
from repro_rl.policy.http.chat import MessageChat
from repro_rl.policy.http.client import Failure, Question
from repro_rl.policy.qwen_shapes import Shape, model_config
from repro_rl.policy.qwen_tokenizer import build_tokenizer
from repro_rl.policy.tiny import TinySize
from repro_rl.policy.turns import Conversation, Turns
from repro_rl.rollout import EnvPool, Job
from repro_rl.rollout.chat import ChatRoom, chat_metrics, conversation_of, fitting_question, run_chats
from repro_rl.text import PromptBuilder, TextFormat
from repro_rl.text.chat import ChatPrompts
from repro_rl.text.parse import parse_forward
from repro_rl.train.batch import collate, merge, trained_tokens
from repro_rl.train.chat_samples import build_packed, pack
from repro_rl.train.forward import trained_logits
from repro_rl.train.loop import credit_groups
from repro_rl.train.loss import pick, policy_loss
from repro_rl.train.samples import build_samples
from repro_rl.types import Completion, Group, Reflection, Sample, Step, Trajectory

CPU = torch.device("cpu")
OPEN, END = "<|im_start|>assistant\n", "<|im_end|>\n"


# Turns as ids -------------------------------------------------------------------------------------

LONGER = (b"ab", b"abc", b"th", b"the", b" the")


class Talker:
    """What ``Turns`` needs of a policy: a family's tokenizer over a small vocabulary."""

    def __init__(self, family: str, thinking: bool = False, chat: bool = True):
        tokens = [*(bytes([b]) for b in range(256)), *LONGER]
        self.tokenizer = build_tokenizer({token: rank for rank, token in enumerate(tokens)}, family)
        self.family, self.thinking, self.chat = family, thinking, chat

    def encode(self, prompt: str) -> tuple[int, ...]:
        text = self.template([{"role": "user", "content": prompt}]) if self.chat else prompt
        return self.plain(text)

    def template(self, messages: list[dict[str, str]], **more: Any) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=False, enable_thinking=self.thinking, **more
            )
        )

    def plain(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def encode_target(self, text: str) -> tuple[int, ...]:
        return (*self.plain(text), self.tokenizer.convert_tokens_to_ids("<|im_end|>"))


TALKERS = {
    "qwen2.5": Talker("qwen2.5"),
    "qwen3": Talker("qwen3"),
    "qwen3 thinking": Talker("qwen3", thinking=True),
    "no template": Talker("qwen3", chat=False),
}
TEXTS = st.text(alphabet=st.sampled_from("ab the\n<|_>é1."), max_size=12)


def messages_of(users: list[str], answers: list[str]) -> list[dict[str, str]]:
    turns = []
    for i, user in enumerate(users):
        turns.append({"role": "user", "content": user})
        if i < len(answers):
            turns.append({"role": "assistant", "content": answers[i]})
    return turns


@given(
    st.sampled_from(["qwen2.5", "qwen3", "qwen3 thinking"]),
    st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4),
    TEXTS,
)
@settings(max_examples=60, deadline=None)
def test_a_conversation_is_what_the_template_makes_of_it(name, pairs, last):
    """Turn by turn, with answers as ids, gives the ids of the template's text of all messages."""
    talker = TALKERS[name]
    talk = Conversation(Turns(talker))
    for user, answer in pairs:
        talk.add(talk.turn(user), talker.encode_target(answer))
    ids = (*talk.ids, *talk.turn(last))
    users, answers = [*(user for user, _ in pairs), last], [answer for _, answer in pairs]
    whole = talker.template(messages_of(users, answers), keep_thoughts=True)
    assert ids == talker.plain(whole)


def test_qwen3_keeps_the_thoughts_that_its_template_takes_out_later():
    """The one difference to the model's own rule: what was sampled, or closed by the prompt, stays."""
    talker, thought = TALKERS["qwen3 thinking"], "<think>\nab\n</think>\n\n"
    talk = Conversation(Turns(talker))
    for answer in ("the", "abc"):
        talk.add(talk.turn("ask"), talker.encode_target(thought + answer))
    ours = talker.tokenizer.decode([*talk.ids, *talk.turn("end")])
    theirs = talker.template(messages_of(["ask", "ask", "end"], [thought + "the", thought + "abc"]))
    assert ours.count(thought) == 2
    assert theirs.count(thought) == 0
    assert ours.replace(thought, "") == theirs
    quiet = TALKERS["qwen3"]
    talk = Conversation(Turns(quiet))
    talk.add(talk.turn("ask"), quiet.encode_target("the"))
    ours = quiet.tokenizer.decode([*talk.ids, *talk.turn("end")])
    shut = "<think>\n\n</think>\n\n"
    theirs = quiet.template(messages_of(["ask", "end"], ["the"]))
    assert ours == theirs.replace("assistant\nthe", f"assistant\n{shut}the")


@pytest.mark.parametrize("name", TALKERS)
def test_an_answer_without_its_end_gets_one_that_is_not_its_own(name):
    talker = TALKERS[name]
    turns, end = Turns(talker), talker.encode_target("")[0]
    answer = talker.plain("abc")
    for sampled, shown in ((answer, (*answer, end)), ((*answer, 261), (*answer, 261, end))):
        talk = Conversation(turns)
        talk.add(talk.turn("the"), sampled)  # 261: <|endoftext|>, an end token but not a turn's
        assert talk.turn("ab")[0] == end
        closed = Conversation(turns)
        closed.add(closed.turn("the"), (*answer, end))
        assert talk.turn("ab")[1:] == closed.turn("ab")
        assert tuple(talk.ids[len(turns.first("the")) :]) + talk.turn("ab")[:1] == shown


def test_a_template_without_earlier_answers_is_refused():
    talker = Talker("qwen3")
    talker.tokenizer.chat_template = "{{ messages[-1].content }}"
    with pytest.raises(ConfigError, match="a conversation cannot grow"):
        Turns(talker).following("x")


# The cache between turns --------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[True, False], ids=["packed", "the model's own pass"])
def policy(tmp_path_factory, request) -> TransformersPolicy:
    env = make("sokoban", **SOKOBAN)
    words = {*env.vocabulary(), *COMPACT.words(env.max_steps)}
    size = TinySize(hidden=32, layers=2, heads=2, kv_heads=1, ffn=64, positions=512)
    folder = build_tiny(tmp_path_factory.mktemp("chat") / "tiny", words, size, seed=5)
    return TransformersPolicy.load(folder, device="cpu", packed=request.param)


SOKOBAN: dict[str, Any] = {
    "style": "relative", "train_rooms": 6, "validation_rooms": 2, "test_rooms": 2, "solution": (3, 6),
    "max_steps": 6,
}  # fmt: skip
COMPACT = PromptBuilder(TextFormat("compact", progress=True, think="off"))
FULL = PromptBuilder(TextFormat("full", progress=True, think="off"))
ROOM = ChatRoom(conversation=500, turn=400, answer=3, reflection=13, together=10**6)


def play(
    policy: Any,
    session: Any = None,
    *,
    room: ChatRoom = ROOM,
    copies: int = 4,
    tasks: int = 2,
    prompts: PromptBuilder = COMPACT,
    live: int = 512,
    greedy: bool = False,
) -> list[Trajectory]:
    pool = EnvPool("sokoban", SOKOBAN)
    jobs = [Job(task, k) for task in pool.first.panel("train").ids[:tasks] for k in range(copies)]
    if session is not None:
        policy = Door(policy, session)
    heat = 0.0 if greedy else 1.0
    return run_chats(
        pool, jobs, policy, prompts, SamplingSettings(room.answer, heat), stream="t", room=room,
        judge=SamplingSettings(room.reflection, heat), live=live,
    )  # fmt: skip


class Door:
    """A policy whose conversations are held by ``session``."""

    def __init__(self, policy: Any, session: Any):
        self.open_chat = lambda: session(policy)


def training_logps(policy: TransformersPolicy, sample: Sample) -> np.ndarray:
    """Log-probs of all ids but the first, by the forward pass that training makes."""
    batch = collate(merge([replace(sample, trained=np.ones_like(sample.trained))]), SCALES, 0, CPU)
    with torch.no_grad():
        logits, place = trained_logits(policy.model, batch, 1.0)
    return pick(torch.log_softmax(logits, -1), batch, place).numpy()


SCALES = {"forward": 1.0, "reflect": 1.0}


def test_cached_turns_sample_what_reading_everything_again_samples(policy):
    assert isinstance(open_chat(policy), CachedChat)
    cached, plain = play(policy), play(policy, TokenChat)
    assert len({c.token_ids for t in cached for c in conversation_of(t)}) > 20
    for one, two in zip(cached, plain, strict=True):
        assert len(conversation_of(one)) == len(one.steps) + 1
        for left, right in zip(conversation_of(one), conversation_of(two), strict=True):
            assert (left.prompt_ids, left.token_ids) == (right.prompt_ids, right.token_ids)
            assert left.finished == right.finished
            assert np.allclose(left.logprobs, right.logprobs, atol=2e-6)
            assert left.entropy == pytest.approx(right.entropy, abs=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_behaviours_log_probs_are_those_of_the_training_pass(policy, attention):
    before = policy.model.config._attn_implementation
    policy.model.set_attn_implementation(attention)
    try:
        trajectories = play(policy)
        for t in trajectories:
            sample = pack([(c, 0.0, False) for c in conversation_of(t)], 0)
            told = training_logps(policy, sample)
            mask = sample.trained[1:]
            assert mask.sum() == sum(len(c.token_ids) for c in conversation_of(t))
            assert np.allclose(told[mask], sample.logprob[1:][mask], atol=2e-6)
    finally:
        policy.model.set_attn_implementation(before)


def test_the_result_does_not_depend_on_who_plays_beside(policy):
    alone, together = play(policy, live=1), play(policy)
    pressed = play(policy, room=replace(ROOM, together=1000))  # two at once
    for one, two, three in zip(alone, together, pressed, strict=True):
        ids = [c.token_ids for c in conversation_of(two)]
        assert [c.token_ids for c in conversation_of(one)] == ids
        assert [c.token_ids for c in conversation_of(three)] == ids


def test_a_turn_runs_only_new_tokens_and_equal_conversations_run_once(policy, monkeypatch):
    """Greedy copies of a task never differ: each token of theirs goes through the weights once."""
    counted: list[int] = []
    go_on = packed.go_on

    def counting(model: Any, cache: Any, ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        counted.append(ids.numel())
        return go_on(model, cache, ids, *rest)

    monkeypatch.setattr(packed, "go_on", counting)
    hook = policy.model.register_forward_pre_hook(
        lambda module, args, kwargs: counted.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    try:
        trajectories = play(policy, tasks=1, copies=8, greedy=True)
    finally:
        hook.remove()
    assert len({conversation_of(t)[0].token_ids for t in trajectories}) == 1
    length = sum(len(c.prompt_ids) + len(c.token_ids) for c in conversation_of(trajectories[0]))
    assert sum(counted) == length - 1  # nothing follows the last token


def test_slots_are_used_again(policy):
    session = CachedChat(policy)
    keys = np.arange(8, dtype=np.uint64)
    for wave in range(3):
        rows = list(range(8 * wave, 8 * wave + 8))
        texts = [f"t{1 + k % 5} act" for k in range(8)]
        for _ in range(3):
            session.answer(rows, texts, keys, SamplingSettings(3))
        for row in rows:
            session.close(row)
    assert len(session._length) <= 8
    assert sorted(session._free) == list(range(len(session._length)))


@given(st.integers(0, 10_000))
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_of_turns_gives_the_same_answers(policy, seed):
    """Rows answer in any company, some wait, some go: always what a session of their own would say."""
    rng = np.random.default_rng(seed)
    together, apart = CachedChat(policy), {row: TokenChat(policy) for row in range(5)}
    open_rows = list(range(5))
    for _ in range(4):
        rows = [row for row in open_rows if rng.random() < 0.7]
        if not rows:
            continue
        texts = [" ".join(f"t{v}" for v in rng.integers(1, 3, size=rng.integers(1, 9))) for _ in rows]
        keys = rng.integers(0, 3, size=len(rows)).astype(np.uint64)
        answers = together.answer(rows, texts, keys, SamplingSettings(3))
        for i, row in enumerate(rows):
            (own,) = apart[row].answer([row], [texts[i]], keys[i : i + 1], SamplingSettings(3))
            assert (answers[i].prompt_ids, answers[i].token_ids) == (own.prompt_ids, own.token_ids)
            assert np.allclose(answers[i].logprobs, own.logprobs, atol=2e-6)
        if rng.random() < 0.3:
            gone = open_rows.pop(int(rng.integers(len(open_rows))))
            together.close(gone)


def test_other_kinds_of_attention_read_everything_again(policy):
    config = policy.model.config
    kinds, config.layer_types = config.layer_types, ["sliding_attention"] * 2
    try:
        assert type(open_chat(policy)) is TokenChat
    finally:
        config.layer_types = kinds
    with pytest.raises(ConfigError, match="cannot hold a conversation"):
        open_chat(object())  # type: ignore[arg-type]


@pytest.mark.parametrize(("family", "thinking"), [("qwen2.5", False), ("qwen3", False), ("qwen3", True)])
def test_full_conversations_of_both_families(family, thinking):
    """Real templates, long turns, answers cut off: sampled as trained, glued as the template says."""
    from transformers import AutoModelForCausalLM

    talker = TALKERS["qwen3 thinking" if thinking else family]
    config = model_config(Shape(family, 32, 2, 2, 1, 64, vocab=320, positions=16_384))
    config.bos_token_id = config.pad_token_id = None
    config.eos_token_id = 261
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    policy = TransformersPolicy(model, talker.tokenizer, thinking=thinking)
    assert isinstance(open_chat(policy), CachedChat)
    room = ChatRoom(conversation=16_000, turn=8000, answer=5, reflection=8, together=10**6)
    for t in play(policy, prompts=FULL, room=room, tasks=1, copies=2):
        sample = pack([(c, 0.0, False) for c in conversation_of(t)], 0)
        mask = sample.trained[1:]
        assert np.allclose(training_logps(policy, sample)[mask], sample.logprob[1:][mask], atol=5e-6)
        talk, turns = Conversation(Turns(policy)), [s.prompt for s in t.steps]
        assert t.reflection is not None
        for text, c in zip([*turns, t.reflection.prompt], conversation_of(t), strict=True):
            assert c.prompt_ids == talk.turn(text)
            talk.add(c.prompt_ids, c.token_ids)
        assert talk.ids == sample.ids.tolist()


# Room ---------------------------------------------------------------------------------------------


def test_a_full_conversation_ends_as_truncated_with_its_reflection_in_the_room(policy):
    whole = play(policy)
    longest = max(sum(len(c.prompt_ids) + len(c.token_ids) for c in conversation_of(t)) for t in whole)
    assert chat_metrics(whole)["rollout/context_full"] == 0
    assert longest > 60
    for limit in (40, 60):
        room = replace(ROOM, conversation=limit)
        cut = play(policy, room=room)
        for one, two in zip(whole, cut, strict=True):
            parts = conversation_of(two)
            used = sum(len(c.prompt_ids) for c in parts) + ROOM.reflection
            used += sum(len(step.completion.token_ids) for step in two.steps)
            assert used <= limit  # even if the reflection had been as long as it may be
            assert two.reflection is not None
            assert parts[-1].token_ids
            assert two.context_full is (two.length < one.length)
            if two.context_full:
                assert (two.truncated, two.won, two.error) == (True, False, None)
            # up to there, the same episode: room changes nothing before it ends
            assert [s.completion.token_ids for s in two.steps] == [
                s.completion.token_ids for s in one.steps[: two.length]
            ]
        full = chat_metrics(cut)["rollout/context_full"]
        assert full == sum(t.context_full for t in cut) / len(cut)
        assert full > 0


def test_a_first_turn_without_room_is_an_error_not_a_crash(policy):
    for room in (replace(ROOM, conversation=25), replace(ROOM, turn=4)):
        for t in play(policy, room=room):
            assert t.error is not None
            assert "first turn" in t.error
            assert (t.steps, t.reflection, t.context_full) == ([], None, False)


class Words:
    """A policy whose tokens are words: answers are scripted."""

    def __init__(self, *answers: str):
        self.answers = answers
        self.asked: list[list[str]] = []

    def open_chat(self) -> Words:
        self.rows: dict[int, int] = {}
        return self

    def used(self, row: int) -> int:
        return self.rows.get(row, 0)

    def size(self, text: str, *, first: bool = False) -> int:
        return len(text.split())

    def answer(self, rows: Any, texts: Any, keys: Any, settings: SamplingSettings) -> list[Completion]:
        self.asked.append(list(texts))
        out = []
        for row, text in zip(rows, texts, strict=True):
            said = self.answers[min(len(self.asked), len(self.answers)) - 1]
            self.rows[row] = self.used(row) + len(text.split()) + len(said.split())
            out.append(
                Completion((0,) * len(text.split()), (1,) * len(said.split()),
                           np.zeros(len(said.split()), np.float32), said, True)
            )  # fmt: skip
        return out

    def close(self, row: int) -> None:
        self.rows.pop(row, None)


def test_full_turns_by_hand():
    """What each turn holds: rules and task once, then what is new, the outcome last."""
    policy = Words("<progress>10</progress><action>push up</action>")
    (t,) = play(policy, prompts=FULL, tasks=1, copies=1,
                room=ChatRoom(10**5, 10**4, 100, 100, 10**6))  # fmt: skip
    env = make("sokoban", **SOKOBAN)
    first, *later, last = [turn for (turn,) in policy.asked]
    assert first.startswith(env.instructions)
    assert f"Your task: {t.goal}" in first
    assert first.endswith("Now answer for step 1.")
    assert len(later) == 5
    for number, turn in enumerate(later, 2):
        assert turn.startswith(f"You are at step {number} of at most 6. Current observation:\n")
        assert t.steps[number - 1].observation in turn
        assert "Possible actions:" in turn
        assert env.instructions not in turn
    assert last.startswith(f"After step 6:\n{t.final_observation}\n")
    assert "The attempt is over: it failed.\n" in last
    assert last.endswith("Now give the 6 values, step 1 to step 6; all below 100.")
    assert [s.prompt for s in t.steps] == [first, *later]
    assert t.reflection is not None
    assert t.reflection.prompt == last


def test_demonstrations_stand_in_the_first_turn_as_far_as_they_fit():
    policy = Words("<progress>10</progress><action>push up</action>")
    texts = ["shown " * 300, "shown " * 20, ""]
    pool = EnvPool("sokoban", SOKOBAN)
    room = ChatRoom(10**5, 500, 100, 100, 10**6)
    (t,) = run_chats(
        pool, [Job(pool.first.panel("train").ids[0], 0)], policy, FULL, SamplingSettings(9),
        stream="t", room=room, demonstrations=lambda *task: list(texts),
    )  # fmt: skip
    assert [step.prompt.count("shown") for step in t.steps] == [20, 0, 0, 0, 0, 0]
    assert t.reflection is None  # no judge was asked for


def test_compact_turns_by_hand():
    chat = ChatPrompts(COMPACT)
    more: dict[str, Any] = {"instructions": "", "goal": "", "admissible": ["up"], "max_steps": 9}
    assert chat.act(observation="a\nb", step=1, **more) == "a b progress"
    assert (
        chat.act(observation="a b", step=1, demonstrations="demo x now", **more) == "demo x now a b progress"
    )
    assert chat.act(observation="c", step=4, **more) == "c t3 progress"
    assert chat.reflect(goal="", observation="d", length=4, won=True, score=1.0) == "d t4 reflect won judge"
    assert chat.reflect(goal="", observation="", length=1, won=False, score=0.0) == "t1 reflect lost judge"
    plain = ChatPrompts(PromptBuilder(TextFormat("compact", progress=False)))
    assert plain.act(observation="c", step=2, **more) == "c t1 act"


def test_own_turn_templates_replace_ours(tmp_path):
    (tmp_path / "chat_next.jinja").write_text("{{ step }}/{{ max_steps }}: {{ observation }}")
    chat = ChatPrompts(PromptBuilder(TextFormat("full"), template_dir=tmp_path))
    more: dict[str, Any] = {"instructions": "I", "goal": "G", "admissible": [], "max_steps": 9}
    assert chat.act(observation="x", step=2, **more) == "2/9: x"
    assert chat.act(observation="x", step=1, **more).startswith("I\n")
    (tmp_path / "chat_first.jinja").write_text("{{ observation }}")
    chat = ChatPrompts(PromptBuilder(TextFormat("full"), template_dir=tmp_path))
    with pytest.raises(ConfigError, match=r"chat_first\.jinja leaves out the demonstrations"):
        chat.act(observation="x", step=1, demonstrations="demo", **more)


def test_the_last_observation_gives_way_before_the_reflection_does():
    chat, size = ChatPrompts(FULL), lambda text: len(text.split())
    t = Trajectory("t", 0, "goal", [a_step(1)], False, 0.0, True)
    t.final_observation = " ".join(f"word{i}" for i in range(200))
    bare = size(chat.reflect(goal="goal", observation="", length=1, won=False, score=0.0))
    text, cut = fitting_question(t, chat, size, bare + 300)
    assert (t.final_observation in text, cut) == (True, False)
    text, cut = fitting_question(t, chat, size, bare + 60)
    assert cut
    assert "left out" in text
    assert size(text) <= bare + 60
    text, cut = fitting_question(t, chat, size, bare)
    assert (size(text), cut) == (bare, True)


# Packed samples -----------------------------------------------------------------------------------


def a_step(t: int, completion: Completion | None = None, advantage: float = 0.0) -> Step:
    nothing = Completion((), (), np.zeros(0, np.float32), "", True)
    return Step(t, "o", "b", f"a{t}", "p", completion or nothing, "up", 40, (), True, 0.0, None,
                advantage=advantage)  # fmt: skip


def said(turn: tuple[int, ...], answer: tuple[int, ...], text: str, *logps: float) -> Completion:
    return Completion(turn, answer, np.array(logps, np.float32), text, True)


def example() -> Group:
    steps = [
        a_step(1, said((10, 11), (1, 2, 0), "p40 up", -0.1, -0.2, -0.3), 2.0),
        a_step(2, said((12,), (3, 0), "p50 up", -0.4, -0.5), -1.0),
    ]
    t = Trajectory("t", 0, "g", steps, True, 1.0, False)
    t.reflection = Reflection("r", said((13, 14), (5, 6), "t1 p40 t2 p100", -0.6, -0.7), (40, 100), (),
                              advantage=0.5)  # fmt: skip
    return Group("t", [t])


def test_a_packed_sample_by_hand():
    fmt = TextFormat("compact", progress=True)
    (sample,) = build_packed([example()], fmt=fmt, decode=str, advantage_on="all")
    #                            turn 1   answer 1   turn 2  answer 2  question  reflection
    assert sample.ids.tolist() == [10, 11, 1, 2, 0, 12, 3, 0, 13, 14, 5, 6]
    assert sample.trained.astype(int).tolist() == [0, 0, 1, 1, 1, 0, 1, 1, 0, 0, 1, 1]
    assert sample.advantage.tolist() == [0, 0, 2, 2, 2, 0, -1, -1, 0, 0, 0.5, 0.5]
    assert np.allclose(sample.logprob, [0, 0, -0.1, -0.2, -0.3, 0, -0.4, -0.5, 0, 0, -0.6, -0.7])
    assert sample.reflected is not None
    assert sample.reflected.astype(int).tolist() == [0] * 10 + [1, 1]
    assert (sample.kind, sample.group) == ("forward", 0)
    rows = merge([sample])
    assert (trained_tokens(rows, "forward"), trained_tokens(rows, "reflect")) == (5, 2)
    batch = collate(merge([sample, sample]), {"forward": 0.2, "reflect": 0.05}, 0, CPU)
    assert batch.weight.tolist() == [[0, 2, 2, 2, 0, 2, 2, 0, 0, 2, 2]]
    assert batch.positive.tolist() == [[0, 4, 4, 4, 0, 0, 0, 0, 0, 1, 1]]
    assert batch.negative.tolist() == [[0, 0, 0, 0, 0, -2, -2, 0, 0, 0, 0]]
    assert torch.allclose(batch.scale, torch.tensor([[0.2] * 9 + [0.05] * 2]))
    assert batch.columns.tolist() == [1, 2, 3, 5, 6, 9, 10]


def test_a_reflection_that_is_not_trained_is_not_in_the_sample():
    fmt = TextFormat("compact", progress=True)
    (sample,) = build_packed([example()], fmt=fmt, decode=str, advantage_on="all", reflections=set())
    assert sample.ids.tolist() == [10, 11, 1, 2, 0, 12, 3, 0]


def test_the_action_part_alone_can_carry_the_advantage():
    fmt = TextFormat("compact", progress=True)
    words = {1: "p40", 2: "up", 3: "p50", 0: ""}

    def decode(ids: tuple[int, ...]) -> str:
        return " ".join(words[i] for i in ids if words[i])

    (sample,) = build_packed(
        [example()], fmt=fmt, decode=decode, advantage_on="split", progress_advantages=[[[0.25, 0.75]]]
    )
    # "p50" alone is progress; step 2's script has no action token in its ids, only the end token
    assert sample.advantage.tolist() == [0, 0, 0.25, 2, 2, 0, 0.75, 0.75, 0, 0, 0.5, 0.5]


@pytest.mark.parametrize("method", ["grpo", "rloo", "gigpo", "hgpo", "repro", "oracle"])
@pytest.mark.parametrize("where", ["all", "split"])
def test_packing_changes_neither_credit_nor_loss(policy, method, where):
    """The same episodes as one sample a step, each with its whole context as prompt, or packed: the same
    tokens with the same advantages, and the same loss and gradient."""
    config = load_config(None, [f"method={method}", f"method.advantage_on={where}"])
    trajectories = play(policy, copies=2)
    groups = [Group("a", trajectories[:2]), Group("b", trajectories[2:])]
    for t in trajectories[::2]:  # an untrained policy never wins
        t.steps[-1].env_reward, t.won = 10.0, True
    if not config.method.reflect:
        for t in trajectories:
            t.reflection = None
    credit_groups(config, groups)
    again: dict[str, Any] = {
        "fmt": COMPACT.fmt, "decode": policy.decode, "advantage_on": where,
        "progress_advantages": [[[0.5] * t.length for t in g.trajectories] for g in groups],
    }  # fmt: skip
    packed = build_packed(groups, **again)
    assert len(packed) == len(trajectories)
    stepwise = build_samples([spelled_out(g) for g in groups], **again)
    told = trained_values(stepwise)
    assert told == trained_values(packed)
    assert any(advantage for _, advantage, _ in told)
    scales = {"forward": 0.01, "reflect": 0.003}
    results = []
    for samples in (packed, stepwise):
        policy.model.zero_grad()
        terms = policy_loss(
            policy.model, collate(merge(samples), scales, 0, CPU), clip=0.2, kl_form="none", kl_coef=0.0,
            kl_clamp=10.0, entropy_coef=0.01, temperature=1.0,
        )  # fmt: skip
        terms.total.backward()
        results.append((terms, [p.grad.clone() for p in policy.model.parameters()]))
    policy.model.zero_grad(set_to_none=True)
    (one, first), (two, second) = results
    assert (one.tokens, one.mismatch) == (two.tokens, pytest.approx(two.mismatch, abs=1e-3))
    assert float(one.total.detach()) == pytest.approx(float(two.total.detach()), rel=1e-4, abs=1e-6)
    for left, right in zip(first, second, strict=True):
        assert torch.allclose(left, right, atol=1e-5)


def trained_values(samples: list[Sample]) -> list[tuple[int, float, float]]:
    """(id, advantage, log-prob) of every trained token in order."""
    return [
        (int(s.ids[i]), float(s.advantage[i]), float(s.logprob[i]))
        for s in samples
        for i in np.flatnonzero(s.trained)
    ]


def spelled_out(group: Group) -> Group:
    """The group's completions with everything before them as their prompts."""
    trajectories = []
    for t in group.trajectories:
        before: tuple[int, ...] = ()
        whole = []
        for c in conversation_of(t):
            whole.append(replace(c, prompt_ids=before + c.prompt_ids))
            before += c.prompt_ids + c.token_ids
        steps = [replace(s, completion=c) for s, c in zip(t.steps, whole, strict=False)]
        reflection = t.reflection and replace(t.reflection, completion=whole[-1])
        trajectories.append(replace(t, steps=steps, reflection=reflection))
    return Group(group.task_id, trajectories)


# A model behind an API ----------------------------------------------------------------------------


class Client:
    """Stands for ChatClient: remembers the questions, refuses those that say so."""

    def __init__(self) -> None:
        self.asked: list[Question] = []

    def ask(self, questions: list[Question]) -> list[Answer | Failure]:
        self.asked += questions
        return [
            Failure("too long", refused=True)
            if "refuse" in q.messages[-1][1]
            else Answer(f"answer {len(q.messages)}", "stop", 10, 2)
            for q in questions
        ]


def test_api_conversations_send_all_messages():
    client = Client()
    session = MessageChat(client)  # type: ignore[arg-type]
    keys, how = np.array([7, 8], np.uint64), SamplingSettings(9, 0.5)
    session.answer([0, 1], ["a", "b"], keys, how)
    first, second = session.answer([1, 0], ["c", "refuse"], keys, how)
    assert (first.text, first.error, first.counted) == ("answer 3", None, (10, 2))
    assert second.error == "too long"
    assert client.asked[2].messages == (("user", "b"), ("assistant", "answer 1"), ("user", "c"))
    assert (client.asked[2].max_tokens, client.asked[2].temperature, client.asked[2].sample) == (9, 0.5, 7)
    session.answer([0], ["d"], keys[:1], how)  # what got no answer is not part of the conversation
    assert client.asked[-1].messages == (("user", "a"), ("assistant", "answer 1"), ("user", "d"))
    assert (session.used(0), session.size("x")) == (0, 0)


def test_an_api_plays_whole_episodes_as_messages():
    from repro_rl.policy.http import HttpPolicy

    client = Client()
    trajectories = play(HttpPolicy(client), prompts=FULL, tasks=1, copies=2)  # type: ignore[arg-type]
    assert [t.length for t in trajectories] == [6, 6]
    assert [len(q.messages) for q in client.asked[::2]] == [1, 3, 5, 7, 9, 11, 13]
    assert all(t.reflection is not None and t.reflection.defects for t in trajectories)
    assert parse_forward("answer 1", FULL.fmt).defects == trajectories[0].steps[0].defects
