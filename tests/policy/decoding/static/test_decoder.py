"""Decoding over a static KV cache gives the other decoders' tokens: window and chat, every family."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from repro_rl.config import LoraSection
from repro_rl.errors import ConfigError, NonFiniteError
from repro_rl.policy import SamplingSettings, TextCodec, TransformersPolicy
from repro_rl.policy.base import ChatSession
from repro_rl.policy.decoding.static.cache import row_bucket, width_bucket
from repro_rl.policy.decoding.static.pool import token_bytes, use_static
from repro_rl.policy.decoding.static.session import StaticSession
from repro_rl.policy.decoding.static.step import EagerSteps, GraphedSteps, grouped_sdpa
from repro_rl.policy.token_policy import TokenSession
from repro_rl.policy.transformers_policy import AdapterOffPolicy
from repro_rl.types import Completion
from support.models import forward_logprobs, keys_of, load_cpu, network, perturb
from support.prompts import LONG, PREFIX, SHORT
from support.small import WORDS

FAMILIES = ("llama", "qwen2", "qwen3", "gemma", "mistral", "phi3")
SETTINGS = [
    SamplingSettings(9),
    SamplingSettings(9, temperature=0),
    SamplingSettings(9, temperature=0.6, top_p=0.8),
    SamplingSettings(9, temperature=4),
    SamplingSettings(1),
]


def family_model(family: str, vocabulary: int) -> Any:
    """Random weights with logits far from flat."""
    more = {"vocabulary": vocabulary, "max_position_embeddings": 1024, "initializer_range": 0.2}
    if family in ("llama", "qwen2", "qwen3"):
        return network(family, **more)
    from transformers import GemmaConfig, MistralConfig, Phi3Config

    kinds = {"gemma": GemmaConfig, "mistral": MistralConfig, "phi3": Phi3Config}
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "head_dim": 8,
    }
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 1 if family == "gemma" else 2}
    sizes |= {"initializer_range": 0.2, "vocab_size": vocabulary, "max_position_embeddings": 1024}
    sizes |= {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": None, "sliding_window": None}
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    return AutoModelForCausalLM.from_config(kinds[family](**sizes)).eval()


def both(folder: Any, family: str = "qwen3", **more: Any) -> tuple[TransformersPolicy, TransformersPolicy]:
    """A policy with a static cache, and one that decodes step by step from Python, on the same weights."""
    text = load_cpu(folder).codec
    model = family_model(family, text.vocabulary_size)
    codec = TextCodec(
        text.tokenizer, eos_ids=[1, 5, 9], positions=1024
    )  # three stop tokens: answers end early
    return (
        TransformersPolicy(model, codec, static_cache="on", **more),
        TransformersPolicy(model, codec, packed=False, **more),
    )


def stop_only_at(text: TextCodec, token: int) -> None:
    text.eos_ids = frozenset({token})
    text.answer_tokens = replace(text.answer_tokens, stop=text.eos_ids)


def same(left: list[Completion], right: list[Completion]) -> None:
    for one, two in zip(left, right, strict=True):
        assert (one.prompt_ids, one.token_ids, one.finished) == (two.prompt_ids, two.token_ids, two.finished)
        assert one.text == two.text
        assert one.logprobs == pytest.approx(two.logprobs, abs=1e-5)
        assert one.logprobs.dtype == np.float32
        assert one.entropy == pytest.approx(two.entropy, abs=1e-5)


@pytest.mark.parametrize(("family", "attention"), [*((f, "sdpa") for f in FAMILIES), ("qwen2", "eager")])
def test_window_prompts_get_the_same_answers(tiny_folder, family, attention):
    static, plain = both(tiny_folder, family)
    static.model.set_attn_implementation(attention)
    lengths = set()
    for prompts in (SHORT, [*LONG, "a"], LONG):
        for settings in SETTINGS:
            keys = keys_of(len(prompts), family, settings.max_new_tokens)
            ours, theirs = (p.generate(prompts, keys, settings) for p in (static, plain))
            same(ours, theirs)
            lengths |= {len(c.token_ids) for c in ours}
            for completion in ours[:2]:
                ids = (*completion.prompt_ids, *completion.token_ids)
                logp = forward_logprobs(static, ids, settings.temperature or 1.0)
                rows = logp[len(completion.prompt_ids) - 1 : -1]
                expected = rows[np.arange(len(rows)), list(completion.token_ids)]
                assert completion.logprobs == pytest.approx(expected, abs=1e-5)
    assert len(lengths) > 4  # some ended, some were cut off
    assert static.model.config._attn_implementation == attention


def talk(session: ChatSession, tasks: int, turns: int, settings: SamplingSettings) -> list[list[Completion]]:
    """Four copies of each task; some end early, some wait a turn, and the rest go on."""
    played: list[list[Completion]] = [[] for _ in range(4 * tasks)]
    live = list(range(len(played)))
    for t in range(turns):
        now = [row for row in live if (row + t) % 5]
        texts = []
        for row in now:
            if played[row]:
                texts.append(f"x{sum(played[row][-1].token_ids) % 7} x{t} act " + "left " * (row % 3))
            else:
                texts.append(f"{PREFIX} {' '.join(WORDS[(row // 4 + i) % 16] for i in range(3 + row // 4))}")
        answers = session.answer(now, texts, keys_of(len(played), "turn", t)[now], settings)
        for row, answer in zip(now, answers, strict=True):
            played[row].append(answer)
        for row in [row for row in live if played[row] and sum(played[row][-1].token_ids) % 5 == 0]:
            session.close(row)
            live.remove(row)
    for row in live:
        session.close(row)
    return played


@pytest.mark.parametrize("family", FAMILIES)
def test_conversations_get_the_same_answers(tiny_folder, family):
    static, plain = both(tiny_folder, family)
    session = static.open_chat()
    assert isinstance(session, StaticSession)
    for settings in (SETTINGS[0], SETTINGS[1]):
        ours = talk(static.open_chat(), 3, 6, settings)
        theirs = talk(TokenSession(plain), 3, 6, settings)
        assert len({len(answers) for answers in ours}) > 1
        for one, two in zip(ours, theirs, strict=True):
            same(one, two)


def test_answers_that_outgrow_every_buffer(tiny_folder):
    """Columns, rows and sampled tokens grow under way: 128 columns and 64 tokens are allocated at first."""
    static, plain = both(tiny_folder)
    same(*(p.generate(["a"], keys_of(1), SamplingSettings(3)) for p in (static, plain)))
    settings = SamplingSettings(140, temperature=1.3)
    for policy in (static, plain):
        stop_only_at(policy.codec, 1)
    static.decoders.clear()
    prompts = [f"a x{i} " + "b c " * (i % 9) for i in range(9)]
    ours, theirs = (p.generate(prompts, keys_of(9, "long"), settings) for p in (static, plain))
    same(ours, theirs)
    assert max(len(c.token_ids) for c in ours) > 100
    sessions = static.open_chat(), TokenSession(plain)
    for turn in range(3):
        texts = [f"x{turn} " * (20 + turn) for _ in range(4)]
        same(*(s.answer(range(4), texts, keys_of(4, turn), SamplingSettings(90)) for s in sessions))


@pytest.mark.parametrize(
    "settings", [SamplingSettings(12), SamplingSettings(12, 2.0, 0.7), SamplingSettings(12, 0)]
)
def test_ids_without_a_token_are_never_drawn(tiny_folder, settings):
    static, plain = both(tiny_folder)
    tokens = static.codec.answer_tokens
    free = plain.generate(LONG, keys_of(len(LONG)), settings)
    holes = tuple(sorted({c.token_ids[1] for c in free if len(c.token_ids) > 2} - tokens.stop))[:3]
    assert holes
    allowed = replace(tokens, limit=tokens.limit - 4, holes=tuple(h for h in holes if h < tokens.limit - 4))
    for policy in (static, plain):
        policy.codec.answer_tokens = allowed
    ours, theirs = (p.generate(LONG, keys_of(len(LONG)), settings) for p in (static, plain))
    same(ours, theirs)
    assert [c.token_ids for c in ours] != [c.token_ids for c in free]
    assert not {token for c in ours for token in c.token_ids} & {*allowed.holes, *range(allowed.limit, 999)}


def test_weights_that_are_not_finite_are_an_error(tiny_folder):
    static, _ = both(tiny_folder)
    with torch.no_grad():
        static.model.lm_head.weight[7] = torch.nan
    with pytest.raises(NonFiniteError, match="are not finite in an answer"):
        static.generate(SHORT, keys_of(len(SHORT)), SETTINGS[0])
    with pytest.raises(NonFiniteError, match="are not finite in an answer"):
        static.open_chat().answer(range(2), ["a", "b"], keys_of(2), SETTINGS[0])


def test_small_passes_and_small_batches_change_nothing(tiny_folder):
    static, plain = both(tiny_folder)
    narrow = TransformersPolicy(
        static.model, static.codec, static_cache="on", max_batch_tokens=48, max_cache_tokens=2100
    )
    widths = []
    static.model.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    prompts = [f"a x{i} b c" for i in range(30)]
    ours = narrow.generate(prompts, keys_of(30), SETTINGS[0])
    assert max(rows * size for rows, size in widths if size > 1) <= 48
    assert max(rows for rows, size in widths if size == 1) == 16  # 2,100 cells: rows of 128 columns
    same(ours, plain.generate(prompts, keys_of(30), SETTINGS[0]))
    conversations = [talk(policy.open_chat(), 3, 5, SETTINGS[0]) for policy in (narrow, static)]
    for one, two in zip(*conversations, strict=True):
        same(one, two)


def test_a_step_runs_all_live_rows_and_stops_with_the_last(tiny_folder):
    static, _ = both(tiny_folder)
    sizes = []
    static.model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    done = static.generate(LONG, keys_of(len(LONG)), SamplingSettings(40))
    longest = max(len(c.token_ids) for c in done)
    assert sizes[:2] == [
        (1, 20),
        (4, 5),
    ]  # the common beginning once, then what differs, distinct prompts only
    assert sizes[2:] == [(8, 1)] * (longest - 1)  # six rows in a batch of eight
    assert longest < 40


def test_conversations_that_end_make_the_batch_smaller(tiny_folder):
    static, plain = both(tiny_folder)
    session, other = static.open_chat(), TokenSession(plain)
    sizes = []
    names, texts = list(range(9)), [f"a x{i} b" for i in range(9)]
    same(*(s.answer(names, texts, keys_of(9), SETTINGS[1]) for s in (session, other)))
    for name in range(7):
        session.close(name)
    static.model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    ours = session.answer([7, 8], ["x1 act", "x2 act"], keys_of(2), SamplingSettings(4))
    assert {rows for rows, _ in sizes} == {2}
    same(ours, other.answer([7, 8], ["x1 act", "x2 act"], keys_of(2), SamplingSettings(4)))


def test_decoders_are_used_again_and_follow_the_weights(tiny_folder):
    static, plain = both(tiny_folder)
    first = static.generate(LONG, keys_of(len(LONG)), SETTINGS[0])
    session = static.open_chat()
    session.answer([4], [LONG[0]], keys_of(1), SETTINGS[0])
    beside = static.open_chat()  # while the other is in use
    beside.answer([4], [LONG[1]], keys_of(1), SETTINGS[0])
    session.close(4)
    beside.close(4)
    beside.close(4)  # already gone
    assert len(static.decoders._idle) == 2
    perturb(static, 1)
    static.weights_changed()
    second = static.generate(LONG, keys_of(len(LONG)), SETTINGS[0])
    same(second, plain.generate(LONG, keys_of(len(LONG)), SETTINGS[0]))
    assert [c.token_ids for c in first] != [c.token_ids for c in second]
    assert len(static.decoders._idle) == 2
    static.before_update()  # on a CPU nothing is freed
    assert len(static.decoders._idle) == 2


def test_in_bfloat16_weights_and_cache_are_too(tiny_folder):
    static, _ = both(tiny_folder)
    static.model.to(torch.bfloat16)
    done = static.generate(LONG, keys_of(len(LONG)), SETTINGS[0])
    decoder = static.decoders._idle[0]
    assert decoder.bytes() == decoder._cache.shape[0] * decoder._cache.shape[1] * token_bytes(static.model)
    for c in done:
        rows = forward_logprobs(static, (*c.prompt_ids, *c.token_ids))[len(c.prompt_ids) - 1 : -1]
        assert c.logprobs == pytest.approx(rows[np.arange(len(rows)), list(c.token_ids)], abs=0.3)


def test_under_autocast_linear_weights_are_cast_once(tiny_folder):
    """The trainer's arithmetic: the copies in bfloat16 give what autocast gives, to the bit."""
    static, plain = both(tiny_folder, "qwen2", mixed=True)
    casts = []
    with static.precision():
        ids = torch.tensor([static.codec.encode(LONG[0])])
        expected = static.model(input_ids=ids).logits
        decoder = static.decoders.acquire(static.model)
        assert decoder.casts is not None
        with torch.no_grad(), decoder.casts.in_place():
            casts = [m.weight.dtype for m in static.model.modules() if isinstance(m, torch.nn.Linear)]
            assert static.model.model.embed_tokens.weight.dtype == torch.float32  # tied to the output layer
            assert torch.equal(static.model(input_ids=ids).logits, expected)
    assert set(casts) == {torch.bfloat16}
    assert {p.dtype for p in static.model.parameters()} == {torch.float32}
    static.decoders.release(decoder)
    for seed in range(2):
        ours, theirs = (p.generate(LONG, keys_of(len(LONG)), SETTINGS[1]) for p in (static, plain))
        for one, two in zip(ours, theirs, strict=True):
            assert one.logprobs[0] == pytest.approx(two.logprobs[0], abs=0.02)
        perturb(static, seed, scale=0.05)
        static.weights_changed()
        plain.weights_changed()


def test_an_adapter_and_its_absence(tiny_folder):
    static, plain = both(tiny_folder)
    static.adapt(LoraSection(rank=2), tiny_folder, seed=0)
    plain.model = static.model
    with torch.no_grad():
        for name, parameter in static.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(len(name)))
    on, off = static, AdapterOffPolicy(static)
    with_adapter = on.generate(LONG, keys_of(len(LONG)), SETTINGS[0])
    without = off.generate(LONG, keys_of(len(LONG)), SETTINGS[0])
    same(with_adapter, plain.generate(LONG, keys_of(len(LONG)), SETTINGS[0]))
    same(without, AdapterOffPolicy(plain).generate(LONG, keys_of(len(LONG)), SETTINGS[0]))
    assert [c.token_ids for c in with_adapter] != [c.token_ids for c in without]
    static.merge()
    merged = static.generate(LONG, keys_of(len(LONG)), SETTINGS[0])
    for one, two in zip(merged, with_adapter, strict=True):
        assert one.token_ids[0] == two.token_ids[0]


def test_who_decodes_over_a_static_cache(tiny_folder):
    policy = load_cpu(tiny_folder)
    assert not policy.uses_static  # on a CPU only when asked for
    assert load_cpu(tiny_folder, static_cache="on").uses_static
    assert not use_static("off", policy.model)
    config = policy.model.config
    windows = {"layer_types": ["sliding_attention"] * 2, "sliding_window": 8}
    for change in (windows, {"_attn_implementation": "flex_attention"}):
        before = {name: getattr(config, name) for name in change}
        for name, value in change.items():
            setattr(config, name, value)
        assert not use_static("auto", policy.model)
        with pytest.raises(ConfigError, match=r"policy\.static_cache is on, but Qwen3ForCausalLM cannot"):
            use_static("on", policy.model)
        for name, value in before.items():
            setattr(config, name, value)


class Operations(TorchDispatchMode):
    """Names of the operations that run inside."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


# What makes Python wait for a GPU, or copies from Python's memory: neither can be part of a CUDA graph.
WAITS = {
    "_local_scalar_dense",
    "item",
    "nonzero",
    "masked_select",
    "lift_fresh",
    "unique",
    "_unique2",
    "equal",
}


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma"])
@pytest.mark.parametrize("settings", SETTINGS[:3], ids=["sampled", "greedy", "top-p"])
@pytest.mark.parametrize("mixed", [False, True])
def test_a_decode_step_never_waits_for_the_device(tiny_folder, family, settings, mixed):
    static, _ = both(tiny_folder, family, mixed=mixed)
    decoder = static.decoders.acquire(static.model)
    steps: list[list[str]] = []

    class Watched(EagerSteps):
        def run(self, shape, step, count):
            with Operations() as operations:
                super().run(shape, step, count)
            steps.append(operations.names)

    decoder.runner = Watched()
    decoder.sample([0, 1], decoder.begin({0: (3, 4, 5), 1: (3, 4)}), keys_of(2), settings)
    assert len(steps) > 2
    assert all(names == steps[0] for names in steps)  # one graph serves them all
    assert not WAITS & set(steps[0])


def test_grouped_attention_is_that_of_transformers():
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    torch.manual_seed(0)
    layer = torch.nn.Module()
    layer.num_key_value_groups = 3
    query, key, value = torch.randn(4, 6, 1, 8), torch.randn(4, 2, 16, 8), torch.randn(4, 2, 16, 5)
    mask = torch.zeros(4, 1, 1, 16).masked_fill_(torch.rand(4, 1, 1, 16) > 0.5, -1e9)
    ours, _ = grouped_sdpa(layer, query, key, value, mask, scaling=0.3)
    theirs, _ = sdpa_attention_forward(layer, query, key, value, mask, scaling=0.3)
    assert ours.shape == theirs.shape == (4, 1, 6, 5)
    assert torch.allclose(ours, theirs, atol=1e-6)
    many = torch.randn(4, 6, 3, 8)  # more than one query: left to transformers
    assert torch.equal(
        grouped_sdpa(layer, many, key, value, mask)[0],
        sdpa_attention_forward(layer, many, key, value, mask)[0],
    )


@pytest.mark.parametrize(
    ("columns", "width"), [(1, 128), (128, 128), (129, 192), (193, 256), (700, 768), (800, 1024)]
)
def test_widths_come_from_a_short_list(columns, width):
    assert width_bucket(columns) == width


@pytest.mark.parametrize(("rows", "size"), [(1, 1), (3, 4), (17, 24), (96, 96), (97, 128), (300, 320)])
def test_row_counts_come_from_a_short_list(rows, size):
    assert row_bucket(rows) == size


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
@pytest.mark.parametrize("mixed", [False, True])
def test_graphs_give_what_steps_from_python_give(tiny_folder, mixed):
    static, _ = both(tiny_folder, mixed=mixed)
    static.model.to("cuda")
    settings = SamplingSettings(60, temperature=2)
    stop_only_at(static.codec, 1)
    graphed = static.generate(LONG, keys_of(len(LONG)), settings)
    decoder = static.decoders._idle[0]
    assert isinstance(decoder.runner, GraphedSteps)
    assert decoder.runner.refused == ""
    assert decoder.runner.replayed > 30
    decoder.runner = EagerSteps()
    same(graphed, static.generate(LONG, keys_of(len(LONG)), settings))
