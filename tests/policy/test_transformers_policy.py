"""TransformersPolicy: what is sampled is what the training forward pass says it is; loading and saving."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from repro_rl.errors import CheckpointError, NonFiniteError
from repro_rl.policy import SamplingSettings, TokenPolicy
from repro_rl.policy.decoding.sampling import top_p_filter
from repro_rl.policy.decoding.wide import decoder as wide_decoder, prefix_store
from support.models import forward_logprobs, keys_of, load_cpu
from support.prompts import LONG, SHORT, load_sharp


@pytest.fixture(scope="module", params=["packed", "wide", "wide, short prefixes", "the model's own pass"])
def policy(tiny_folder, request):
    with pytest.MonkeyPatch.context() as patch:
        if request.param.startswith("wide"):
            patch.setattr(wide_decoder, "MIN_HIDDEN", 1)
        if request.param == "wide, short prefixes":
            patch.setattr(prefix_store, "MIN_PREFIX", 3)
        policy = load_sharp(tiny_folder, packed=request.param != "the model's own pass")
        assert policy.uses_wide == request.param.startswith("wide")
        yield policy


@pytest.mark.parametrize("prompts", [SHORT, LONG])
def test_greedy_is_what_generate_says(policy, prompts):
    out = policy.generate(prompts, keys_of(len(prompts)), SamplingSettings(6, temperature=0))
    assert policy.generate([], keys_of(0), SamplingSettings(6)) == []
    for prompt, completion in zip(prompts, out, strict=True):
        ids = torch.tensor([policy.codec.encode(prompt)])
        with torch.no_grad():
            whole = policy.model.generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :].tolist()
        stop = whole.index(1) + 1 if 1 in whole else 6
        assert list(completion.token_ids) == whole[:stop]
        assert completion.finished == (1 in whole)
        logp = forward_logprobs(policy, (*completion.prompt_ids, *completion.token_ids))
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
        assert completion.prompt_ids == policy.codec.encode(prompt)
        assert completion.logprobs.dtype == np.float32
        assert len(completion.logprobs) == len(completion.token_ids)
        logp = forward_logprobs(policy, (*completion.prompt_ids, *completion.token_ids), temperature)
        rows = logp[len(completion.prompt_ids) - 1 : -1]
        picked = rows[np.arange(len(rows)), list(completion.token_ids)]
        assert completion.logprobs == pytest.approx(picked, abs=1e-5)
        assert completion.entropy == pytest.approx(-(np.exp(rows) * rows).sum(-1).mean(), abs=1e-4)


def test_a_row_does_not_depend_on_the_rest_of_its_batch(policy, tiny_folder):
    settings = SamplingSettings(8)
    prompts = [*SHORT, *LONG]
    keys = keys_of(len(prompts))
    whole = policy.generate(prompts, keys, settings)
    alone = [policy.generate([p], keys[i : i + 1], settings)[0] for i, p in enumerate(prompts)]
    order = np.random.default_rng(0).permutation(len(prompts))
    shuffled = policy.generate([prompts[i] for i in order], keys[order], settings)
    narrow = load_sharp(tiny_folder, max_batch_tokens=60, packed=policy.packed).generate(
        prompts, keys, settings
    )
    back = {int(i): completion for i, completion in zip(order, shuffled, strict=True)}
    for i, completion in enumerate(whole):
        for other in (alone[i], back[i], narrow[i]):
            assert other.token_ids == completion.token_ids
            assert other.text == completion.text
            assert other.logprobs == pytest.approx(completion.logprobs, abs=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_sampled_frequencies_are_the_softmax(policy, temperature):
    count = 4000
    out = policy.generate(["c d"] * count, keys_of(count), SamplingSettings(2, temperature=temperature))
    probs = np.exp(forward_logprobs(policy, policy.codec.encode("c d"), temperature)[-1].astype(np.float64))
    seen = np.bincount([c.token_ids[0] for c in out], minlength=len(probs))
    common = probs * count >= 5
    observed = np.append(seen[common], seen[~common].sum())
    expected = np.append(probs[common], probs[~common].sum()) * count
    statistic = ((observed - expected) ** 2 / np.maximum(expected, 1e-9)).sum()
    assert common.sum() > 5
    assert statistic < chi2.ppf(0.9999, common.sum())
    # the second token too, given the most frequent first one
    first = int(np.argmax(np.where(np.arange(len(probs)) == 1, 0, seen)))
    after = np.exp(
        forward_logprobs(policy, (*policy.codec.encode("c d"), first), temperature)[-1].astype(np.float64)
    )
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


def test_generation_keeps_the_training_mode(policy):
    policy.model.train()
    policy.generate(["a"], keys_of(1), SamplingSettings(1))
    assert policy.model.training
    policy.model.eval()


def test_a_generation_that_fails_keeps_the_training_mode_too(tiny_folder):
    policy = load_cpu(tiny_folder)
    policy.model.train()
    with torch.no_grad():
        policy.model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(NonFiniteError):
        policy.generate(["a"], keys_of(1), SamplingSettings(1))
    assert policy.model.training


def test_save_and_load_round_trip(tiny_folder, tmp_path):
    policy = load_sharp(tiny_folder)
    policy.save(tmp_path / "saved")
    again = load_cpu(tmp_path / "saved")
    for (name, one), (_, two) in zip(
        policy.model.state_dict().items(), again.model.state_dict().items(), strict=True
    ):
        assert torch.equal(one, two), name
    assert again.codec.encode("left a") == policy.codec.encode("left a")
    assert again.codec.eos_ids == {1}
    assert again.codec.pad_id == 0


@pytest.mark.parametrize("name", ["./nothing", "/tmp/no/such/folder", "runs/warm/model"])
def test_missing_folder(name):
    with pytest.raises(CheckpointError, match="No model folder"):
        load_cpu(name)


def test_unknown_hub_name_is_a_checkpoint_error():
    """HF_HUB_OFFLINE is set: nothing is asked of the network."""
    with pytest.raises(CheckpointError, match="nobody/has-this"):
        load_cpu("nobody/has-this")


def test_run_folder_is_named_as_such(tmp_path):
    (tmp_path / "checkpoints" / "00002").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"run folder.*checkpoints/<iteration>"):
        load_cpu(tmp_path)


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
    with pytest.raises(CheckpointError, match=r"Cannot load a (causal LM|tokenizer) from") as caught:
        load_cpu(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_or_foreign_weights(tiny_folder, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(tiny_folder, folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="Cannot load a causal LM from"):
        load_cpu(folder)
    shutil.copy(tiny_folder / "model.safetensors", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 128}))
    with pytest.raises(CheckpointError, match="Cannot load a causal LM from"):
        load_cpu(folder)


def test_mixed_precision_samples_what_it_trains(tiny_folder):
    """Autocast, here on the CPU: the sampler's log-probs are those of a training forward under it."""
    policy = load_sharp(tiny_folder)
    plain = policy.generate(LONG, keys_of(len(LONG)), SamplingSettings(4))
    policy.mixed = True
    policy.weights_changed()
    out = policy.generate(LONG, keys_of(len(LONG)), SamplingSettings(4))
    assert not torch.is_autocast_enabled("cpu")
    assert any(list(a.logprobs) != list(b.logprobs) for a, b in zip(plain, out, strict=True))
    for completion in out:
        with policy.precision():
            logp = forward_logprobs(policy, (*completion.prompt_ids, *completion.token_ids))
        rows = logp[len(completion.prompt_ids) - 1 : -1]
        picked = rows[np.arange(len(rows)), list(completion.token_ids)]
        assert completion.logprobs == pytest.approx(picked, abs=0.05)
    with policy.precision():
        loss = policy.model(input_ids=torch.tensor([out[0].prompt_ids])).logits.float().logsumexp(-1).sum()
    loss.backward()
    assert {p.grad.dtype for p in policy.model.parameters()} == {torch.float32}


def test_a_prompt_past_the_models_positions_has_no_completion(policy):
    """256 positions; the other rows are what they are without it, and conversations go on."""
    prompts = [*SHORT, "a " * 253, "a " * 252]
    keys = keys_of(len(prompts))
    out = policy.generate(prompts, keys, SamplingSettings(4))
    plain = policy.generate(SHORT, keys[: len(SHORT)], SamplingSettings(4))
    assert [c.token_ids for c in out[:6]] == [c.token_ids for c in plain]
    assert out[6].error == (
        "prompt_too_long: 253 tokens and 4 new ones are more than the 256 positions of the model"
    )
    assert (out[6].token_ids, out[6].text, len(out[6].prompt_ids)) == ((), "", 253)
    assert out[7].error is None
    for chat in (policy.open_chat(), TokenPolicy.open_chat(policy)):
        first = chat.answer([0, 1], ["a b", "a " * 240], keys[:2], SamplingSettings(4))
        assert [c.error for c in first] == [None, None]
        used = chat.used(1)
        second = chat.answer([0, 1], ["c d", "e " * 20], keys[:2], SamplingSettings(4))
        assert (second[0].error, second[1].error is None, chat.used(1)) == (None, False, used)
        third = chat.answer([1], ["c"], keys[:1], SamplingSettings(1))
        assert third[0].error is None
        assert chat.answer([1], ["e " * 20], keys[:1], SamplingSettings(1))[0].error.startswith(
            "prompt_too_long"
        )


def test_logits_that_are_not_finite_are_an_error_that_names_the_model(tiny_folder):
    for packed in (True, False):
        policy = load_cpu(tiny_folder, packed=packed)
        with torch.no_grad():
            policy.model.model.norm.weight[3] = float("inf")
        for ask in (
            lambda policy: policy.generate(SHORT, keys_of(6), SamplingSettings(2)),
            lambda policy: policy.open_chat().answer([0], SHORT[:1], keys_of(1), SamplingSettings(2)),
        ):
            with pytest.raises(NonFiniteError, match=rf"The logits of {tiny_folder} are not finite"):
                ask(policy)
        policy.weights_changed()
        with pytest.raises(
            NonFiniteError, match=rf"The logits of {tiny_folder}, trained since, are not finite"
        ):
            policy.generate(SHORT, keys_of(6), SamplingSettings(2, temperature=0))


def test_top_p_is_respected_when_sampling(policy):
    out = policy.generate(["c d"] * 400, keys_of(400), SamplingSettings(1, top_p=0.5))
    probs = torch.tensor(np.exp(forward_logprobs(policy, policy.codec.encode("c d"))[-1:]))
    allowed = set(torch.nonzero(top_p_filter(probs, 0.5)[0]).flatten().tolist())
    assert {c.token_ids[0] for c in out} == allowed
