"""The tiny model and TransformersPolicy: what is sampled is what the training forward says it is."""

from __future__ import annotations

import json
import shutil
from hashlib import blake2b

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy.stats import chi2, kstest

from conftest import WORDS
from repro_rl.errors import CheckpointError, ConfigError
from repro_rl.policy import SamplingSettings, TransformersPolicy, build_tiny, transformers_policy
from repro_rl.policy.decode import common_prefix
from repro_rl.policy.tiny import TinySize
from repro_rl.policy.transformers_policy import (
    choose_precision,
    draw,
    resolve_device,
    top_p_filter,
)
from repro_rl.random_streams import name_key, stream_keys, uniforms

PREFIX = " ".join(f"x{i}" for i in range(20))  # 20 tokens: longer than MIN_PREFIX
SHORT = ["a b c", "a", "d e f g h", "a b c", "left up a", "a b c"]
LONG = [f"{PREFIX} {text}" for text in SHORT]


def load(folder, **more):
    """The tiny model with sharper logits than a fresh one has."""
    policy = TransformersPolicy.load(folder, device="cpu", **more)
    with torch.no_grad():
        policy.model.model.embed_tokens.weight.mul_(3)
    return policy


@pytest.fixture(scope="module", params=[True, False])
def policy(tiny_folder, request):
    policy = load(tiny_folder, packed=request.param)
    assert policy.packs == request.param
    return policy


def keys_of(count, name="keys"):
    return np.array([name_key(name, i) for i in range(count)], dtype=np.uint64)


def forward_logp(policy, ids, temperature=1.0):
    """[L, V] by one plain unpadded training forward."""
    with torch.no_grad():
        logits = policy.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    return torch.log_softmax(logits.float() / temperature, dim=-1).numpy()


# The embedded model -------------------------------------------------------------------------------


def test_tiny_is_an_ordinary_hugging_face_folder(tiny_folder):
    from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3ForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    assert isinstance(model, Qwen3ForCausalLM)
    assert model.config.vocab_size == len(tokenizer) == len(WORDS) + 3
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == 1
    text = "left a x7 down"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer("left nonsense")["input_ids"][1] == tokenizer.unk_token_id
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


def test_tiny_weights_follow_the_seed_and_nothing_else(tmp_path, tiny_folder):
    size = TinySize(32, 2, 2, 1, 64, 256)
    before = torch.random.get_rng_state()
    torch.manual_seed(99)
    state = torch.random.get_rng_state()
    again = build_tiny(tmp_path / "again", reversed(WORDS), size, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)  # the caller's generator is left alone
    torch.random.set_rng_state(before)
    other = build_tiny(tmp_path / "other", WORDS, size, seed=4)
    first = load_file(tiny_folder / "model.safetensors")
    second, third = load_file(again / "model.safetensors"), load_file(other / "model.safetensors")
    assert first.keys() == second.keys() == third.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["model.embed_tokens.weight"], third["model.embed_tokens.weight"])


def test_tiny_refuses(tmp_path):
    with pytest.raises(ConfigError, match="white space"):
        build_tiny(tmp_path / "m", ["push up"])
    with pytest.raises(ConfigError, match="multiple of heads"):
        build_tiny(tmp_path / "m", ["a"], TinySize(hidden=30, heads=4))
    assert not (tmp_path / "m").exists()


def test_encode_decode_and_targets(policy):
    ids = policy.encode("left a b")
    assert policy.decode(ids) == "left a b"
    assert policy.encode("left a b") is ids  # remembered
    target = policy.encode_target("up")
    assert target[-1] == 1
    assert policy.decode(target) == "up"  # the end-of-text token is not part of the text
    with pytest.raises(ConfigError, match="no tokens"):
        policy.encode("")


# Sampling -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompts", [SHORT, LONG])
def test_greedy_is_what_generate_says(policy, prompts):
    out = policy.generate(prompts, keys_of(len(prompts)), SamplingSettings(6, temperature=0))
    assert policy.generate([], keys_of(0), SamplingSettings(6)) == []
    for prompt, completion in zip(prompts, out, strict=True):
        ids = torch.tensor([policy.encode(prompt)])
        with torch.no_grad():
            whole = policy.model.generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :].tolist()
        stop = whole.index(1) + 1 if 1 in whole else 6
        assert list(completion.token_ids) == whole[:stop]
        assert completion.finished == (1 in whole)
        logp = forward_logp(policy, (*completion.prompt_ids, *completion.token_ids))
        start = len(completion.prompt_ids) - 1
        expected = [logp[start + i, token] for i, token in enumerate(completion.token_ids)]
        assert completion.logprobs == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
@pytest.mark.parametrize("prompts", [SHORT, LONG, [*SHORT, *LONG], LONG[:1]])
def test_logprobs_and_entropy_are_those_of_the_training_forward(policy, prompts, temperature):
    prompts = prompts * 3
    out = policy.generate(prompts, keys_of(len(prompts)), SamplingSettings(8, temperature=temperature))
    assert len({c.token_ids for c in out}) > 1
    for prompt, completion in zip(prompts, out, strict=True):
        assert completion.prompt_ids == policy.encode(prompt)
        assert completion.logprobs.dtype == np.float32
        assert len(completion.logprobs) == len(completion.token_ids)
        logp = forward_logp(policy, (*completion.prompt_ids, *completion.token_ids), temperature)
        rows = logp[len(completion.prompt_ids) - 1 : -1]
        picked = rows[np.arange(len(rows)), list(completion.token_ids)]
        assert completion.logprobs == pytest.approx(picked, abs=1e-5)
        assert completion.entropy == pytest.approx(-(np.exp(rows) * rows).sum(-1).mean(), abs=1e-4)


def test_a_row_does_not_depend_on_its_company(policy, tiny_folder):
    settings = SamplingSettings(8)
    prompts = [*SHORT, *LONG]
    keys = keys_of(len(prompts))
    whole = policy.generate(prompts, keys, settings)
    alone = [policy.generate([p], keys[i : i + 1], settings)[0] for i, p in enumerate(prompts)]
    order = np.random.default_rng(0).permutation(len(prompts))
    shuffled = policy.generate([prompts[i] for i in order], keys[order], settings)
    narrow = load(tiny_folder, max_batch_tokens=60, packed=policy.packed).generate(prompts, keys, settings)
    back = {int(i): completion for i, completion in zip(order, shuffled, strict=True)}
    for i, completion in enumerate(whole):
        for other in (alone[i], back[i], narrow[i]):
            assert other.token_ids == completion.token_ids
            assert other.text == completion.text
            assert other.logprobs == pytest.approx(completion.logprobs, abs=1e-5)


def test_max_batch_tokens_bounds_the_cells_of_a_forward(tiny_folder):
    policy = load(tiny_folder, max_batch_tokens=64, packed=False)
    cells = []
    policy.model.register_forward_pre_hook(
        lambda module, args, kwargs: cells.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    prompts = [f"a x{i} b c" for i in range(30)]
    policy.generate(prompts, keys_of(30), SamplingSettings(4))
    assert max(cells) <= 64
    assert len(cells) > 3


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_sampled_frequencies_are_the_softmax(policy, temperature):
    count = 4000
    out = policy.generate(["c d"] * count, keys_of(count), SamplingSettings(2, temperature=temperature))
    probs = np.exp(forward_logp(policy, policy.encode("c d"), temperature)[-1].astype(np.float64))
    seen = np.bincount([c.token_ids[0] for c in out], minlength=len(probs))
    common = probs * count >= 5
    observed = np.append(seen[common], seen[~common].sum())
    expected = np.append(probs[common], probs[~common].sum()) * count
    statistic = ((observed - expected) ** 2 / np.maximum(expected, 1e-9)).sum()
    assert common.sum() > 5
    assert statistic < chi2.ppf(0.9999, common.sum())
    # the second token too, given the most frequent first one
    first = int(np.argmax(np.where(np.arange(len(probs)) == 1, 0, seen)))
    after = np.exp(forward_logp(policy, (*policy.encode("c d"), first), temperature)[-1].astype(np.float64))
    second = np.bincount([c.token_ids[1] for c in out if c.token_ids[0] == first], minlength=len(after))
    top = int(after.argmax())
    spread = np.sqrt(after[top] * (1 - after[top]) / second.sum())
    assert abs(second[top] / second.sum() - after[top]) < 4.5 * spread


def test_other_keys_give_other_texts(policy):
    settings = SamplingSettings(8)
    one = policy.generate(["a b"] * 40, keys_of(40, "one"), settings)
    two = policy.generate(["a b"] * 40, keys_of(40, "two"), settings)
    again = policy.generate(["a b"] * 40, keys_of(40, "one"), settings)
    assert [c.token_ids for c in one] == [c.token_ids for c in again]
    assert sum(a.token_ids == b.token_ids for a, b in zip(one, two, strict=True)) < 20


def test_finished_rows_leave(tiny_folder):
    """<eos> made likely: it ends a row at once, the length limit cuts the others."""
    policy = load(tiny_folder, packed=False)
    sizes = []
    policy.model.register_forward_pre_hook(
        lambda module, args, kwargs: sizes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    with torch.no_grad():  # a flat model in which every token has the same probability
        policy.model.model.embed_tokens.weight.zero_()
    share = 1 / (len(WORDS) + 3)
    out = policy.generate([f"a x{i % 7}" for i in range(210)], keys_of(210), SamplingSettings(5))
    assert [c.entropy for c in out] == pytest.approx([-np.log(share)] * 210, abs=1e-4)
    assert sizes[0] == (7, 2)  # equal prompts are one row
    alive = [sum(len(c.token_ids) > i for c in out) for i in range(1, 5)]
    # rows that share a prompt and drew the same token stay one row, so at most `alive` rows
    assert all(rows <= living and width == 1 for (rows, width), living in zip(sizes[1:], alive, strict=True))
    for completion in out:
        assert completion.finished == (completion.token_ids[-1] == 1)
        assert 1 not in completion.token_ids[:-1]
        assert len(completion.token_ids) == 5 or completion.finished
    assert 0 < sum(c.finished for c in out) < 210
    # biased to <eos>: everybody leaves after the first token and no further forward is run
    sizes.clear()
    weight = policy.model.model.embed_tokens.weight
    with torch.no_grad():
        weight[policy.encode("a")[0]] = torch.linspace(-1, 1, weight.shape[1])
        probe = policy.model.model(input_ids=torch.tensor([policy.encode("a")])).last_hidden_state[0, -1]
        weight[1] = 100 * probe
        sizes.clear()
    done = policy.generate(["a"] * 9, keys_of(9), SamplingSettings(5))
    assert [c.token_ids for c in done] == [(1,)] * 9
    assert [c.text for c in done] == [""] * 9
    assert sizes == [(1, 1)]


def test_new_weights_make_the_prefix_cache_stale(tiny_folder):
    policy = load(tiny_folder, packed=False)
    settings = SamplingSettings(5, temperature=0)
    before = policy.generate(LONG, keys_of(len(LONG)), settings)
    assert policy._prefix.entry is not None
    assert policy._prefix.entry[0][:20] == policy.encode(PREFIX)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(0.05 * torch.sin(torch.arange(parameter.numel()).view_as(parameter).float()))
    policy.weights_changed()
    after = policy.generate(LONG, keys_of(len(LONG)), settings)
    for completion in after:
        logp = forward_logp(policy, (*completion.prompt_ids, *completion.token_ids))
        rows = logp[len(completion.prompt_ids) - 1 : -1]
        assert completion.logprobs == pytest.approx(
            rows[np.arange(len(rows)), list(completion.token_ids)], abs=1e-5
        )
    assert any(abs(a.logprobs[0] - b.logprobs[0]) > 1e-3 for a, b in zip(before, after, strict=True))


def test_the_instruction_prefix_is_computed_once_for_all_steps(tiny_folder):
    """Prompts of one step share the step number too; the instructions' cache must survive it."""
    policy = load(tiny_folder, packed=False)
    settings = SamplingSettings(3, temperature=0)
    policy.generate(LONG, keys_of(len(LONG)), settings)
    assert policy._prefix.entry is not None
    kept = policy._prefix.entry[1]
    later = [f"{PREFIX} x1 x2 {tail}" for tail in ("left", "right up")]
    done = policy.generate(later, keys_of(2), settings)
    assert policy._prefix.entry[1] is kept
    for completion in done:
        logp = forward_logp(policy, (*completion.prompt_ids, *completion.token_ids))
        rows = logp[len(completion.prompt_ids) - 1 : -1]
        assert completion.logprobs == pytest.approx(
            rows[np.arange(len(rows)), list(completion.token_ids)], abs=1e-5
        )


def test_generation_keeps_the_training_mode(policy):
    policy.model.train()
    policy.generate(["a"], keys_of(1), SamplingSettings(1))
    assert policy.model.training
    policy.model.eval()


# Chat templates -----------------------------------------------------------------------------------

QWEN_LIKE = (
    "{% for message in messages %}left {{ message.content }} right {% endfor %}"
    "{% if add_generation_prompt %}up"
    "{% if enable_thinking is defined and enable_thinking is false %} x1 x2{% endif %}"
    "{% endif %}"
)


@pytest.fixture
def chat_folder(tiny_folder, tmp_path):
    from transformers import AutoTokenizer

    folder = tmp_path / "chat"
    shutil.copytree(tiny_folder, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = QWEN_LIKE
    tokenizer.save_pretrained(folder)
    return folder


def test_chat_template_and_thinking_switch(chat_folder):
    def shown(**more):
        policy = TransformersPolicy.load(chat_folder, device="cpu", **more)
        return policy.decode(policy.encode("a b"))

    assert shown() == "left a b right up x1 x2"
    assert shown(chat="on", thinking=True) == "left a b right up"
    assert shown(chat="off", thinking=True) == "a b"


def test_chat_on_without_a_template(tiny_folder):
    with pytest.raises(ConfigError, match="no chat template"):
        TransformersPolicy.load(tiny_folder, device="cpu", chat="on")
    assert TransformersPolicy.load(tiny_folder, device="cpu", chat="auto").chat is False


# Loading and saving -------------------------------------------------------------------------------


def test_save_and_load_round_trip(tiny_folder, tmp_path):
    policy = load(tiny_folder)
    policy.save(tmp_path / "saved")
    again = TransformersPolicy.load(tmp_path / "saved", device="cpu")
    for (name, one), (_, two) in zip(
        policy.model.state_dict().items(), again.model.state_dict().items(), strict=True
    ):
        assert torch.equal(one, two), name
    assert again.encode("left a") == policy.encode("left a")
    assert again.eos_ids == {1}
    assert again.pad_id == 0


@pytest.mark.parametrize("name", ["./nothing", "/tmp/no/such/folder", "runs/warm/model"])
def test_missing_folder(name):
    with pytest.raises(CheckpointError, match="No model folder"):
        TransformersPolicy.load(name, device="cpu")


def test_unknown_hub_name_is_a_checkpoint_error():
    """HF_HUB_OFFLINE is set: nothing is asked of the network."""
    with pytest.raises(CheckpointError, match="nobody/has-this"):
        TransformersPolicy.load("nobody/has-this", device="cpu")


def test_run_folder_is_named_as_such(tmp_path):
    (tmp_path / "checkpoints" / "00002").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"run folder.*checkpoints/<iteration>"):
        TransformersPolicy.load(tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.json", "{broken"),
        ("config.json", "[1, 2]"),
        ("config.json", '{"model_type": "no-such-model"}'),
        ("config.json", ""),
        ("model.safetensors", "not a tensor file"),
        ("tokenizer.json", "{"),
    ],
)
def test_broken_folder(tiny_folder, tmp_path, name, text):
    folder = tmp_path / "broken"
    shutil.copytree(tiny_folder, folder)
    (folder / name).write_text(text)
    with pytest.raises(CheckpointError, match="Cannot load a causal LM from") as caught:
        TransformersPolicy.load(folder, device="cpu")
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_or_foreign_weights(tiny_folder, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(tiny_folder, folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="Cannot load a causal LM from"):
        TransformersPolicy.load(folder, device="cpu")
    shutil.copy(tiny_folder / "model.safetensors", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 128}))
    with pytest.raises(CheckpointError, match="Cannot load a causal LM from"):
        TransformersPolicy.load(folder, device="cpu")


@pytest.mark.parametrize("dtype", ["float33", "Tensor", ""])
def test_unknown_dtype(tiny_folder, dtype):
    with pytest.raises(ConfigError, match="not a torch dtype"):
        TransformersPolicy.load(tiny_folder, device="cpu", dtype=dtype)


@pytest.mark.parametrize(
    ("dtype", "device", "training", "weights", "mixed"),
    [
        ("auto", "cpu", False, torch.float32, False),
        ("auto", "cpu", True, torch.float32, False),
        ("auto", "cuda", False, torch.bfloat16, False),
        ("auto", "cuda:1", True, torch.float32, True),
        ("float32", "cuda", True, torch.float32, False),
        ("bfloat16", "cuda", True, torch.bfloat16, False),
        ("bfloat16", "cpu", True, torch.bfloat16, False),
    ],
)
def test_weights_to_train_are_float32(dtype, device, training, weights, mixed):
    assert choose_precision(dtype, device, training) == (weights, mixed)


def test_mixed_precision_samples_what_it_trains(tiny_folder):
    """Autocast, here on the CPU: the sampler's log-probs are those of a training forward under it."""
    policy = load(tiny_folder)
    plain = policy.generate(LONG, keys_of(len(LONG)), SamplingSettings(4))
    policy.mixed = True
    policy.weights_changed()
    out = policy.generate(LONG, keys_of(len(LONG)), SamplingSettings(4))
    assert not torch.is_autocast_enabled("cpu")
    assert any(list(a.logprobs) != list(b.logprobs) for a, b in zip(plain, out, strict=True))
    for completion in out:
        with policy.precision():
            logp = forward_logp(policy, (*completion.prompt_ids, *completion.token_ids))
        rows = logp[len(completion.prompt_ids) - 1 : -1]
        picked = rows[np.arange(len(rows)), list(completion.token_ids)]
        assert completion.logprobs == pytest.approx(picked, abs=0.05)
    with policy.precision():
        loss = policy.model(input_ids=torch.tensor([out[0].prompt_ids])).logits.float().logsumexp(-1).sum()
    loss.backward()
    assert {p.grad.dtype for p in policy.model.parameters()} == {torch.float32}


def test_dtype_and_device(tiny_folder):
    assert TransformersPolicy.load(tiny_folder, device="cpu").model.dtype == torch.float32
    assert TransformersPolicy.load(tiny_folder, device="cpu", dtype="bfloat16").model.dtype == torch.bfloat16
    assert resolve_device("cpu") == "cpu"
    with pytest.raises(ConfigError, match=r"policy.device is 'gpu'"):
        resolve_device("gpu")
    if not torch.cuda.is_available():
        assert resolve_device("auto") == "cpu"
        with pytest.raises(ConfigError, match="torch sees no GPU"):
            resolve_device("cuda:1")


# Random streams -----------------------------------------------------------------------------------


def test_uniforms_are_uniform_and_stateless():
    keys = keys_of(20_000)
    values = uniforms(keys, 3)
    assert kstest(values, "uniform").pvalue > 1e-4
    assert values.min() >= 0
    assert values.max() < 1
    order = np.random.default_rng(0).permutation(len(keys))
    assert np.array_equal(uniforms(keys[order], 3), values[order])
    # neighbouring keys, positions and steps are unrelated
    small = np.arange(20_000, dtype=np.uint64)
    assert kstest(uniforms(small, 0), "uniform").pvalue > 1e-4
    for one, two in (
        (uniforms(small, 0)[:-1], uniforms(small, 0)[1:]),
        (uniforms(keys, 0), uniforms(keys, 1)),
        (uniforms(stream_keys(0, keys, 1), 0), uniforms(stream_keys(0, keys, 2), 0)),
    ):
        assert abs(np.corrcoef(one, two)[0, 1]) < 4.5 / np.sqrt(len(one))


def test_keys():
    digest = blake2b(b"train\x1f0\x1f1", digest_size=8).digest()
    assert name_key("train", 0, 1) == int.from_bytes(digest, "little")
    assert name_key("a", "b") != name_key("ab")
    assert name_key("a", 1) == name_key("a", "1")
    assert 0 <= name_key() < 2**64
    keys = stream_keys(0, keys_of(1000), 5)
    assert len(set(keys.tolist())) == 1000
    assert stream_keys(7, 1, count=3).tolist() == [int(stream_keys(7, 1)[0])] * 3
    assert not np.array_equal(stream_keys(0, keys_of(5), 1), stream_keys(0, keys_of(5), 2))


# Small parts --------------------------------------------------------------------------------------


def test_common_prefix_by_hand():
    assert common_prefix([(1, 2, 3)]) == 2  # a token of its own must remain
    assert common_prefix([(1, 2, 3), (1, 2, 4, 5)]) == 2
    assert common_prefix([(1, 2), (1, 2, 4, 5)]) == 1
    assert common_prefix([(1,), (1, 2)]) == 0
    assert common_prefix([(3, 1), (2, 1), (3, 1)]) == 0


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8).map(tuple), min_size=1, max_size=6))
def test_common_prefix_is_the_longest(prompts):
    shared = common_prefix(prompts)
    assert 0 <= shared < min(map(len, prompts))
    assert len({p[:shared] for p in prompts}) == 1
    longer = shared + 1
    assert longer == min(map(len, prompts)) or len({p[:longer] for p in prompts}) > 1


def test_top_p_by_hand():
    probs = torch.tensor([[0.1, 0.5, 0.15, 0.25], [0.97, 0.01, 0.01, 0.01]])
    assert torch.equal(top_p_filter(probs, 0.7), torch.tensor([[0, 0.5, 0, 0.25], [0.97, 0, 0, 0]]))
    assert torch.equal(top_p_filter(probs, 0.4) > 0, torch.tensor([[0, 1, 0, 0], [1, 0, 0, 0]]).bool())
    assert top_p_filter(probs, 0.8)[0].tolist() == pytest.approx([0, 0.5, 0.15, 0.25])


@given(st.lists(st.integers(1, 100), min_size=1, max_size=10), st.floats(0.05, 0.99))
def test_top_p_keeps_the_smallest_sufficient_set(weights, top_p):
    probs = torch.tensor([weights], dtype=torch.float64)
    probs /= probs.sum()
    kept = top_p_filter(probs, top_p)[0]
    inside = kept[kept > 0]
    assert float(inside.sum()) >= top_p - 1e-9
    assert float(inside.sum() - inside.min()) < top_p + 1e-9  # without its least token it is too small
    left = probs[0][kept == 0]
    assert len(left) == 0 or float(left.max()) <= float(inside.min())


def test_top_p_is_respected_when_sampling(policy):
    out = policy.generate(["c d"] * 400, keys_of(400), SamplingSettings(1, top_p=0.5))
    probs = torch.tensor(np.exp(forward_logp(policy, policy.encode("c d"))[-1:]))
    allowed = set(torch.nonzero(top_p_filter(probs, 0.5)[0]).flatten().tolist())
    assert {c.token_ids[0] for c in out} == allowed


@pytest.mark.parametrize("at_once", [1, 4, 100])
def test_draw_in_pieces(at_once, monkeypatch):
    """However few nodes at a time: the first index where the running sum of the node exceeds the share."""
    rng = np.random.default_rng(0)
    weights = torch.tensor(rng.random((9, 50)) * (rng.random((9, 50)) < 0.3), dtype=torch.float32)
    node, uniform = rng.integers(9, size=70), rng.random(70)
    monkeypatch.setattr(transformers_policy, "DRAW_BYTES", at_once * 8 * 50)
    sums = weights.double().numpy().cumsum(-1)
    expected = [
        np.searchsorted(sums[n], u * sums[n, -1], side="right") for n, u in zip(node, uniform, strict=True)
    ]
    assert draw(weights, node, uniform).tolist() == expected


def test_the_least_uniform_never_draws_an_impossible_token(policy):
    logits = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0]])
    node, uniform = np.zeros(4, dtype=np.int64), np.array([0.0, 0.4999, 0.5, 1 - 2**-53])
    chosen, logp, _ = policy._sample(logits, node, uniform, SamplingSettings(1))
    assert chosen.tolist() == [1, 1, 3, 3]
    assert logp == pytest.approx([-np.log(2)] * 4)
