"""Conversations: the KV cache kept between turns gives what reading everything again gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from repro_rl.policy import SamplingSettings, TextCodec, TransformersPolicy, build_tiny
from repro_rl.policy.base import ChatSession
from repro_rl.policy.decoding.sessions import CachedSession
from repro_rl.policy.decoding.wide import decoder as wide_decoder, prefix_store
from repro_rl.policy.decoding.wide.session import WideSession
from repro_rl.policy.forward import packed
from repro_rl.policy.forward.tree import build_tree
from repro_rl.policy.loading.qwen_shapes import model_config
from repro_rl.policy.token_policy import TokenSession
from repro_rl.policy.tokens.codec import Conversation
from repro_rl.types import Completion
from support.models import TINY, forward_logprobs, keys_of, load_cpu
from support.qwen import small_shape, small_tokenizer
from support.small import WORDS

TURNS = 6
ANSWER = SamplingSettings(3)


@pytest.fixture(scope="module", params=["packed", "wide", "wide, short prefixes", "the model's own pass"])
def policy(tmp_path_factory, request) -> Iterator[TransformersPolicy]:
    size = TINY.model_copy(update={"positions": 512})
    folder = build_tiny(tmp_path_factory.mktemp("chat") / "tiny", WORDS, size, seed=5)
    with pytest.MonkeyPatch.context() as patch:
        if request.param.startswith("wide"):
            patch.setattr(wide_decoder, "MIN_HIDDEN", 1)
        if request.param == "wide, short prefixes":
            patch.setattr(prefix_store, "MIN_PREFIX", 3)
        policy = load_cpu(folder, packed=request.param != "the model's own pass")
        assert isinstance(policy.open_chat(), WideSession) == request.param.startswith("wide")
        yield policy


@dataclass
class Played:
    """One conversation: the user turns and the completions that answered them."""

    texts: list[str] = field(default_factory=list)
    completions: list[Completion] = field(default_factory=list)

    @property
    def ids(self) -> list[int]:
        return [i for c in self.completions for i in (*c.prompt_ids, *c.token_ids)]


def user_turn(task: int, t: int, answer: Completion | None) -> str:
    """A turn that depends on the answer before it, as an environment's observation does."""
    if answer is None:
        return " ".join(WORDS[(task + i) % 16] for i in range(20 + task)) + " act"
    return f"x{sum(answer.token_ids) % 7} x{t} act"


def converse(
    session: ChatSession,
    *,
    copies: int = 4,
    tasks: int = 2,
    sampling: SamplingSettings = ANSWER,
    turns: Callable[[int, int, Completion | None], str] = user_turn,
    ends: bool = True,
) -> list[Played]:
    """``copies`` conversations a task; with ``ends``, some answers end theirs early."""
    played = [Played() for _ in range(tasks * copies)]
    live = list(range(len(played)))
    for t in range(TURNS):
        for row in live:
            last = played[row].completions[-1] if t else None
            played[row].texts.append(turns(row // copies, t, last))
        keys = keys_of(len(played), "turn", t)[live]
        answers = session.answer(live, [played[row].texts[-1] for row in live], keys, sampling)
        for row, answer in zip(live, answers, strict=True):
            played[row].completions.append(answer)
            assert session.used(row) == len(played[row].ids)
        ended = [row for row in live if ends and played[row].completions[-1].token_ids[-1] % 7 == 6]
        for row in ended:
            session.close(row)
            live.remove(row)
    return played


def same(one: Played, two: Played) -> None:
    assert len(one.completions) == len(two.completions)
    for left, right in zip(one.completions, two.completions, strict=True):
        assert (left.prompt_ids, left.token_ids) == (right.prompt_ids, right.token_ids)
        assert left.finished == right.finished
        assert left.text == right.text
        assert np.allclose(left.logprobs, right.logprobs, atol=2e-6)
        assert left.entropy == pytest.approx(right.entropy, abs=1e-5)


def sampled_positions(played: Played) -> list[int]:
    """Indices of the sampled tokens in the conversation."""
    out: list[int] = []
    start = 0
    for c in played.completions:
        start += len(c.prompt_ids)
        out += range(start, start + len(c.token_ids))
        start += len(c.token_ids)
    return out


def test_a_cache_kept_between_turns_changes_nothing(policy):
    session = policy.open_chat()
    assert isinstance(session, CachedSession)
    cached, plain = converse(session), converse(TokenSession(policy))
    assert len({c.token_ids for p in cached for c in p.completions}) > 20
    assert len({len(p.completions) for p in cached}) > 1
    for one, two in zip(cached, plain, strict=True):
        same(one, two)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_log_probs_are_those_of_the_training_pass(policy, attention):
    before = policy.model.config._attn_implementation
    policy.model.set_attn_implementation(attention)
    try:
        for played in converse(policy.open_chat()):
            check_log_probs(policy, played, atol=2e-6)
    finally:
        policy.model.set_attn_implementation(before)


def check_log_probs(policy: TransformersPolicy, played: Played, atol: float) -> None:
    """Against one forward pass over the whole conversation, of the model and packed."""
    ids, positions = played.ids, sampled_positions(played)
    sampled = np.concatenate([c.logprobs for c in played.completions])
    by_model = forward_logprobs(policy, ids)[[p - 1 for p in positions], [ids[p] for p in positions]]
    assert np.allclose(sampled, by_model, atol=atol)
    if policy.uses_packed:
        tree = build_tree([np.array(ids)])
        with torch.no_grad():
            logits = packed.forward(policy.model, tree, tree.path[0, [p - 1 for p in positions]])
        by_tree = torch.log_softmax(logits, -1)[range(len(positions)), [ids[p] for p in positions]]
        assert np.allclose(sampled, by_tree.numpy(), atol=atol)


def test_answers_do_not_depend_on_the_other_conversations(policy):
    """One at a time, two at a time, or in smaller passes: the same answers."""
    together = converse(policy.open_chat())
    limit = policy.max_batch_tokens
    policy.max_batch_tokens = 40
    try:
        for one, two in zip(together, converse(policy.open_chat()), strict=True):
            same(one, two)
    finally:
        policy.max_batch_tokens = limit
    for row in range(len(together)):
        session = policy.open_chat()
        for t, (text, completion) in enumerate(
            zip(together[row].texts, together[row].completions, strict=True)
        ):
            keys = keys_of(len(together), "turn", t)[row : row + 1]
            (alone,) = session.answer([row], [text], keys, ANSWER)
            assert (alone.prompt_ids, alone.token_ids) == (completion.prompt_ids, completion.token_ids)


def test_a_turn_runs_only_new_tokens_and_equal_conversations_run_once(policy, monkeypatch):
    """Greedy copies never differ: each token of theirs goes through the weights once."""
    counted: list[int] = []
    extend, run_pass = packed.extend, wide_decoder.run_pass

    def counting(model, cache, ids, *rest):
        counted.append(ids.numel())
        return extend(model, cache, ids, *rest)

    def counting_wide(model, step):
        counted.append(len(step.ids))
        return run_pass(model, step)

    monkeypatch.setattr(packed, "extend", counting)
    monkeypatch.setattr(wide_decoder, "run_pass", counting_wide)
    hook = policy.model.register_forward_pre_hook(
        lambda module, args, kwargs: counted.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    try:
        played = converse(policy.open_chat(), tasks=1, copies=8, sampling=SamplingSettings(3, temperature=0))
    finally:
        hook.remove()
    assert len({tuple(p.ids) for p in played}) == 1
    assert len(played[0].completions) > 1
    assert sum(counted) == len(played[0].ids) - 1  # nothing follows the last token


def test_slots_are_used_again(policy):
    session = policy.open_chat()
    keys = np.arange(8, dtype=np.uint64)
    for wave in range(3):
        rows = list(range(8 * wave, 8 * wave + 8))
        texts = [f"x{1 + k % 5} act" for k in range(8)]
        for _ in range(3):
            session.answer(rows, texts, keys, ANSWER)
        for row in rows:
            session.close(row)
    assert len(session.slots) <= 8
    assert session.slots.free == list(range(len(session.slots)))


@given(st.integers(0, 10_000))
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_of_turns_gives_the_same_answers(policy, seed):
    """Rows answer beside any others, some wait, some go: always what a session of their own would answer."""
    rng = np.random.default_rng(seed)
    together, apart = policy.open_chat(), {row: TokenSession(policy) for row in range(5)}
    open_rows = list(range(5))
    for _ in range(4):
        rows = [row for row in open_rows if rng.random() < 0.7]
        if not rows:
            continue
        texts = [" ".join(f"x{v}" for v in rng.integers(1, 3, size=rng.integers(1, 9))) for _ in rows]
        keys = rng.integers(0, 3, size=len(rows)).astype(np.uint64)
        answers = together.answer(rows, texts, keys, ANSWER)
        for i, row in enumerate(rows):
            (own,) = apart[row].answer([row], [texts[i]], keys[i : i + 1], ANSWER)
            assert (answers[i].prompt_ids, answers[i].token_ids) == (own.prompt_ids, own.token_ids)
            assert np.allclose(answers[i].logprobs, own.logprobs, atol=2e-6)
        if rng.random() < 0.3:
            gone = open_rows.pop(int(rng.integers(len(open_rows))))
            together.close(gone)


def test_sizes_are_those_of_the_codec(policy):
    session = policy.open_chat()
    assert session.used(3) == 0
    assert session.size("a b c", first=True) == len(policy.codec.encode("a b c")) == 3
    assert session.size("a b c") == len(policy.codec.next_turn("a b c")) == 4
    session.answer([3], ["a b c"], keys_of(1), ANSWER)
    assert session.used(3) > 3
    session.close(3)
    session.close(3)  # already gone
    assert session.used(3) == 0


def test_a_turn_without_an_answer_is_not_part_of_its_conversation(policy):
    class Refuses(TransformersPolicy):
        def generate_ids(self, encoded, keys, settings, forms=None):
            done = super().generate_ids(encoded, keys, settings)
            for completion, ids in zip(done, encoded, strict=True):
                completion.error = "too long" if len(ids) > 30 else None
            return done

    session = TokenSession(Refuses(policy.model, policy.codec))
    (first,) = session.answer([0], ["a b"], keys_of(1), ANSWER)
    used = session.used(0)
    assert used == len(first.prompt_ids) + len(first.token_ids)
    (refused,) = session.answer([0], ["a " * 40], keys_of(1), ANSWER)
    assert (refused.error, session.used(0)) == ("too long", used)
    (second,) = session.answer([0], ["c"], keys_of(1), ANSWER)
    assert session.used(0) == used + len(second.prompt_ids) + len(second.token_ids)


@pytest.mark.parametrize(("family", "thinking"), [("qwen2.5", False), ("qwen3", False), ("qwen3", True)])
def test_conversations_of_both_families(family, thinking):
    """Real templates, long turns, answers cut off: sampled as trained, joined as the template says."""
    from transformers import AutoModelForCausalLM

    config = model_config(small_shape(family, num_hidden_layers=2))
    config.bos_token_id = config.pad_token_id = None
    config.eos_token_id = 261
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    policy = TransformersPolicy(model, TextCodec(small_tokenizer(family), thinking=thinking))
    session = policy.open_chat()
    assert isinstance(session, CachedSession)

    def long_turn(task, t, answer):
        return f"You are at step {t} of at most 6. " * (40 if t == 0 else 9) + (answer.text if answer else "")

    for sampling in (SamplingSettings(5), SamplingSettings(8)):
        many = converse(policy.open_chat(), tasks=1, copies=2, sampling=sampling, turns=long_turn, ends=False)
        for played in many:
            check_log_probs(policy, played, atol=5e-6)
            conversation = Conversation(policy.codec)
            for text, c in zip(played.texts, played.completions, strict=True):
                assert c.prompt_ids == conversation.turn(text)
                conversation.add(c.prompt_ids, c.token_ids)
            assert conversation.ids == played.ids
