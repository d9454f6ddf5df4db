"""The server sampler against a real HTTP server that fails in every way; settings of the vLLM backends."""

from __future__ import annotations

import importlib.util
import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from api_server import KEY, Reply, error
from conftest import SMALL, WORDS
from repro_rl.config import dump_config, load_config, parse_config
from repro_rl.config_vllm import VllmSection
from repro_rl.errors import ApiError, ConfigError, MissingDependencyError
from repro_rl.policy import SamplingSettings, TransformersPolicy
from repro_rl.policy.http.exchange import PassingError
from repro_rl.policy.vllm.request import completion_of, sampling_fields
from repro_rl.policy.vllm.server import ServerSampler, read_completion
from repro_rl.random_streams import name_key
from repro_rl.train.build import agent_policy, build_sampler, prompt_limit
from repro_rl.train.loop import run_training
from vllm_server import VllmServer

PROMPTS = [" ".join(WORDS[i : i + 1 + i % 5]) for i in range(8)]
GREEDY = SamplingSettings(6, temperature=0)


def keys_of(count, *names):
    return np.array([name_key("server", *names, i) for i in range(count)], dtype=np.uint64)


def shake(policy, seed):
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)


@pytest.fixture
def server(tiny_folder, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    running = VllmServer(tiny_folder)
    yield running
    running.close()


@pytest.fixture
def policy(tiny_folder):
    """A trainer whose weights are not those that the server began with."""
    loaded = TransformersPolicy.load(tiny_folder, device="cpu")
    shake(loaded, 1)
    return loaded


@pytest.fixture
def make(server, policy):
    made = []

    def sampler(**more):
        waits: list[float] = []
        settings = VllmSection.model_validate(
            {"server": {"url": server.url, "retries": 3, "concurrency": 4, **more}}
        )
        one = ServerSampler(policy, settings, wait=waits.append)
        one.waits = waits
        made.append(one)
        return one

    yield sampler
    for one in made:
        one.close()


def same(one, two):
    return [(c.prompt_ids, c.token_ids, c.text, c.finished) for c in one] == [
        (c.prompt_ids, c.token_ids, c.text, c.finished) for c in two
    ]


# The contract ---------------------------------------------------------------------------------------


def test_completions_are_those_of_the_trainers_weights(make, policy, server):
    sampler = make()
    expected = policy.generate(PROMPTS, keys_of(8), GREEDY)
    done = sampler.generate(PROMPTS, keys_of(8), GREEDY)
    assert same(done, expected)
    for one, two in zip(done, expected, strict=True):
        np.testing.assert_allclose(one.logprobs, two.logprobs, atol=1e-5)
        assert one.entropy == pytest.approx(-float(one.logprobs.mean()))
        assert one.logprobs.dtype == np.float32
    shake(policy, 2)
    assert same(sampler.generate(PROMPTS, keys_of(8), GREEDY), expected)  # nobody has told it yet
    sampler.before_update()
    sampler.weights_changed()
    assert not same(sampler.generate(PROMPTS, keys_of(8), GREEDY), expected)
    assert same(sampler.generate(PROMPTS, keys_of(8), GREEDY), policy.generate(PROMPTS, keys_of(8), GREEDY))
    assert server.loads == 2
    assert list(sampler.folder.iterdir()) == []
    assert sampler.describe() == {"backend": "vllm-server", "vllm": "0.0-test", "dtype": "float32"}
    assert sampler.generate([], keys_of(0), GREEDY) == []


def test_a_sample_depends_on_its_key_alone(make):
    sampler, settings, keys = make(), SamplingSettings(6, temperature=0.9), keys_of(8, "sample")
    whole = sampler.generate(PROMPTS, keys, settings)
    assert same(whole[::-1], sampler.generate(PROMPTS[::-1], keys[::-1], settings))
    assert same(whole[3:4], sampler.generate(PROMPTS[3:4], keys[3:4], settings))
    assert not same(whole, sampler.generate(PROMPTS, keys_of(8, "other"), settings))


def test_what_is_sent(make, server, policy):
    sampler = make()
    server.forget()
    key = (1 << 64) - 1
    sampler.generate(["a b"], np.array([key], dtype=np.uint64), SamplingSettings(5, 0.7, top_p=0.9))
    [body] = [body for body in server.bodies if "prompt" in body]
    assert body["prompt"] == list(policy.encode("a b"))
    assert (body["max_tokens"], body["temperature"], body["top_p"]) == (5, 0.7, 0.9)
    assert body["seed"] == (1 << 63) - 1  # the largest that the server takes
    assert body["stop_token_ids"] == sorted(policy.eos_ids)
    # A server takes what is left out from the model's generation_config.json.
    neutral = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0}
    assert neutral.items() <= body.items()
    assert body["return_token_ids"] is True


def test_prompts_that_do_not_fit_are_data(make, server):
    sampler = make()
    ours, cut, whole = sampler.generate(["a " * 250, "a " * 198, "a"], keys_of(3), GREEDY)
    assert "fewer than 200 (max_model_len)" in ours.error
    assert 1 <= cut.tokens <= 2
    assert whole.error is None
    server.fail = lambda path, body, number: (
        error(400, "maximum context length is 10 tokens") if path == "/v1/completions" else None
    )
    [refused] = sampler.generate(["a b"], keys_of(1), GREEDY)
    assert "maximum context length" in refused.error
    assert refused.token_ids == ()


# Failures -------------------------------------------------------------------------------------------


def test_a_server_that_names_no_limit_has_the_models(make, server, policy, monkeypatch):
    server.limit = None
    assert make().limit == policy.positions
    monkeypatch.setattr(policy.model.config, "max_position_embeddings", 0)
    with pytest.raises(ConfigError, match="does not say its max_model_len"):
        make()


def spoiled(change):
    """A completion with something wrong in it."""

    def reply(server, body):
        choice = json.loads(server._complete(body).data)["choices"][0]
        change(choice)
        return Reply(data=json.dumps({"choices": [choice]}).encode())

    return reply


FAILURES = {
    "500": lambda server, body: error(500, "engine died"),
    "429 with a wish": lambda server, body: error(429, "slow down", Retry_After="7"),
    "truncated": lambda server, body: Reply(data=server._complete(body).data, cut=40),
    "reset": lambda server, body: Reply(reset=True),
    "hanging": lambda server, body: Reply(data=b"{}", hang=True),
    "not JSON": lambda server, body: Reply(data=b'{"choices": ['),
    "a list": lambda server, body: Reply(data=b"[]"),
    "no choices": lambda server, body: Reply(data=b'{"choices": []}'),
    "one id too many": spoiled(lambda choice: choice["token_ids"].append(3)),
    "no ids": spoiled(lambda choice: choice.pop("token_ids")),
    "empty": spoiled(lambda choice: choice.update(token_ids=[], logprobs={"token_logprobs": []})),
    "foreign id": spoiled(lambda choice: choice["token_ids"].__setitem__(0, 999)),
    "id that is no number": spoiled(lambda choice: choice["token_ids"].__setitem__(0, "a")),
    "null log-prob": spoiled(lambda choice: choice["logprobs"]["token_logprobs"].__setitem__(0, None)),
    "NaN log-prob": spoiled(lambda choice: choice["logprobs"]["token_logprobs"].__setitem__(0, float("nan"))),
    "aborted": spoiled(lambda choice: choice.update(finish_reason="abort")),
    "another prompt": spoiled(lambda choice: choice.update(prompt_token_ids=[3])),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_request_that_fails_once_is_repeated_alone(name, make, server, policy):
    slow = name == "hanging"  # on a busy machine other requests may run out of time too
    sampler = make(**({"timeout": 2.0, "retries": 30} if slow else {}))
    server.forget()
    first = list(policy.encode(PROMPTS[2]))

    def fail(path, body, number):
        if path == "/v1/completions" and number == 1 and body["prompt"] == first:
            return FAILURES[name](server, body)
        return None

    server.fail = fail
    done = sampler.generate(PROMPTS, keys_of(8), GREEDY)
    assert same(done, policy.generate(PROMPTS, keys_of(8), GREEDY))
    asked = [tuple(body["prompt"]) for body in server.bodies if "prompt" in body]
    if slow:
        assert asked.count(tuple(first)) >= 2
        return
    assert len(asked) == 9
    assert asked.count(tuple(first)) == 2
    assert len(sampler.waits) == 1
    assert sampler.waits[0] >= (7 if "wish" in name else 0.5)


def test_a_server_that_stays_away_is_an_error_that_names_it(make, server):
    sampler = make()
    server.fail = lambda path, body, number: error(503, "gone") if path == "/v1/completions" else None
    with pytest.raises(ApiError, match=rf"{server.url}/v1/completions.*4 attempts.*gone.*Start it again"):
        sampler.generate(["a"], keys_of(1), GREEDY)
    assert len(sampler.waits) == 3
    assert 0.5 <= sampler.waits[0] <= 1.5
    assert 2 <= sampler.waits[2] <= 6  # doubled twice, with jitter


def test_a_refusal_of_all_is_not_repeated(make, server):
    sampler = make()
    server.fail = lambda path, body, number: error(401, "wrong key") if path == "/v1/completions" else None
    with pytest.raises(ApiError, match="refuses: status 401"):
        sampler.generate(["a"], keys_of(1), GREEDY)
    assert sampler.waits == []


def test_a_server_started_again_gets_the_weights_and_the_batch_again(make, server, policy):
    sampler = make()
    died = []

    def fail(path, body, number):
        if path == "/v1/completions" and not died:
            died.append(True)
            server.restart()
        return None

    server.fail = fail
    assert same(sampler.generate(PROMPTS, keys_of(8), GREEDY), policy.generate(PROMPTS, keys_of(8), GREEDY))
    assert server.loads == 2


def test_a_server_that_never_keeps_the_weights_is_an_error(make, server):
    sampler = make()
    server.fail = lambda path, body, number: server.restart() if path == "/v1/completions" else None
    with pytest.raises(ApiError, match="lost our weights 3 times"):
        sampler.generate(["a"], keys_of(1), GREEDY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dev": False}, r"not in development mode.*VLLM_SERVER_DEV_MODE=1 vllm serve served"),
        ({"mode": "raw_logprobs"}, r"--logprobs-mode raw_logprobs.*Start it with: .*processed_logprobs"),
        ({"extension": ""}, r"--worker-extension-cls \(none\)\. Start it with"),
        ({"chunks": True}, r"cuts prompts into chunks.*--no-enable-chunked-prefill"),
        ({"sees_folders": False}, r"sees no weights in .*policy\.vllm\.server\.weights"),
    ],
)
def test_a_server_started_without_what_is_needed(change, message, make, server):
    for name, value in change.items():
        setattr(server, name, value)
    with pytest.raises(ConfigError, match=message):
        make()


def test_nobody_there(policy):
    settings = VllmSection.model_validate({"server": {"url": "http://127.0.0.1:1", "retries": 2}})
    waits: list[float] = []
    with pytest.raises(ApiError, match=r"http://127\.0\.0\.1:1/v1/models.*3 attempts"):
        ServerSampler(policy, settings, wait=waits.append)
    assert len(waits) == 2


def test_the_key_is_sent_and_never_shown(make, server, monkeypatch):
    monkeypatch.setenv("TEST_VLLM_KEY", KEY)
    sampler = make(key_env="TEST_VLLM_KEY")
    assert all(headers["authorization"] == f"Bearer {KEY}" for headers in server.headers)
    server.fail = lambda path, body, number: error(500, f"bad {KEY}") if path == "/v1/completions" else None
    with pytest.raises(ApiError) as caught:
        sampler.generate(["a"], keys_of(1), GREEDY)
    assert KEY not in str(caught.value)
    monkeypatch.delenv("TEST_VLLM_KEY")
    with pytest.raises(ConfigError, match="TEST_VLLM_KEY"):
        make(key_env="TEST_VLLM_KEY")


def test_weights_go_through_the_folder_that_is_named(make, server, tmp_path):
    place = tmp_path / "shared"
    make(weights=str(place))
    [body] = [body for body in server.bodies if "method" in body]
    assert Path(body["kwargs"]["folder"]).parent == place


# The pieces -----------------------------------------------------------------------------------------


def test_an_answer_is_read_by_hand(policy):
    eos = min(policy.eos_ids)
    choice = {"token_ids": [5, eos], "logprobs": {"token_logprobs": [-0.5, -1.5]}, "finish_reason": "stop"}
    done = read_completion(json.dumps({"choices": [choice]}).encode(), policy, (3, 4))
    assert (done.prompt_ids, done.token_ids, done.finished) == ((3, 4), (5, eos), True)
    assert done.logprobs.tolist() == [-0.5, -1.5]
    assert done.entropy == 1.0  # (0.5 + 1.5) / 2
    assert done.text == policy.decode((5,))
    wrong = json.dumps({"choices": [choice | {"logprobs": {"token_logprobs": [-0.5]}}]}).encode()
    with pytest.raises(PassingError, match="2 token ids and 1 log-probs"):
        read_completion(wrong, policy, (3,))
    with pytest.raises(ValueError, match="vocabulary"):
        completion_of(policy, (3,), [-1], [0.0])


def test_seeds_differ_and_fit_in_63_bits():
    keys = [name_key("seed", i) for i in range(1000)]
    seeds = {sampling_fields(GREEDY, key, {1})["seed"] for key in keys}
    assert len(seeds) == 1000
    assert max(seeds) < 1 << 63


# Settings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("policy.backend=vlm", r"policy\.backend.*'transformers', 'vllm' or 'vllm-server'"),
        ("policy.backend=vllm-server", r"policy\.vllm\.server\.url is empty"),
        ("policy.vllm.server.url=localhost:8000", "http://localhost:8000"),
        ("policy.vllm.server.url=http://user:secret@host", "without a user"),
        ("policy.vllm.server.key_env=sk-secret-123", "NAME of an environment variable"),
        ("policy.vllm.gpu_memory=1.5", "gpu_memory"),
        ("policy.vllm.servers=1", "did you mean 'server'"),
        ("train.importance_cap=0", "importance_cap"),
        ("train.importance_cap=never", "importance_cap"),
    ],
)
def test_wrong_settings_are_named(override, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(None, [override])
    assert "secret" not in str(caught.value)


def test_right_settings_survive_the_file():
    overrides = ["policy.backend=vllm-server", "policy.vllm.server.url=http://h:8000/v1/"]
    config = load_config(None, [*overrides, "train.importance_cap=off"])
    assert config.policy.vllm.server.url == "http://h:8000"
    assert config.train.importance_cap == "off"
    import yaml

    assert parse_config(yaml.safe_load(dump_config(config))) == config
    assert load_config(None, ["train.importance_cap=1.5"]).train.importance_cap == 1.5
    assert load_config(None).train.importance_cap == "auto"
    assert load_config(None).policy.backend == "transformers"


def test_transformers_samples_itself(policy):
    assert build_sampler(load_config(None), policy) is policy


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")
def test_without_vllm_the_error_says_how_to_get_it(policy):
    from repro_rl.policy.vllm.installed import importable

    config = load_config(None, ["policy.backend=vllm"])
    with pytest.raises(MissingDependencyError, match=r"pip install 'repro-rl\[vllm\]'.*torch 2\.13"):
        build_sampler(config, policy)
    assert "pip install 'repro-rl[vllm]'" in importable()


def test_several_processes_are_refused(policy, monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="one training process"):
        build_sampler(load_config(None, ["policy.backend=vllm"]), policy)


# Training -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def warm_server(warm):
    running = VllmServer(warm.model)
    yield running
    running.close()


def run_with(warm, url, out, *more, on_row=None):
    settings = ["policy.backend=vllm-server", f"policy.vllm.server={{url: '{url}', retries: 1, backoff: 0}}"]
    train = ["train.groups=4", "train.group_size=2", "train.iterations=3", "train.save_every=3"]
    config = load_config(
        None, [*SMALL, *train, "train.eval_every=3", f"train.init={warm.model}", *settings, *more]
    )
    run = run_training(config, out, on_row=on_row)
    return config, run


def test_a_run_survives_the_loss_of_its_server(warm, warm_server, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    rows = []
    config, _ = run_with(warm, warm_server.url, tmp_path / "whole", on_row=rows.append)
    assert all(row["update/mismatch"] < 1e-5 for row in rows)
    assert all(row["update/importance_ess"] == pytest.approx(1, abs=1e-4) for row in rows)
    assert rows[-1]["eval/tasks"] == 8
    manifest = json.loads((tmp_path / "whole" / "manifest.json").read_text())
    assert manifest["sampler"]["backend"] == "vllm-server"

    def lose(row):
        if row["iteration"] == 2:
            warm_server.fail = lambda path, body, number: error(503, "gone")

    with pytest.raises(ApiError, match="gone"):
        run_with(warm, warm_server.url, tmp_path / "broken", on_row=lose)
    assert (tmp_path / "broken" / "checkpoints" / "00002").is_dir()  # not due before the third
    warm_server.fail = lambda path, body, number: None
    warm_server.restart()
    run_with(warm, warm_server.url + "/", tmp_path / "broken")  # the address may change
    whole, broken = (
        load_file(tmp_path / name / "checkpoints" / "00003" / "model.safetensors")
        for name in ("whole", "broken")
    )
    assert all(torch.equal(whole[name], broken[name]) for name in whole)
    policy = agent_policy(config, tmp_path / "whole" / "checkpoints" / "00003")
    assert isinstance(policy, ServerSampler)
    assert prompt_limit(config, policy) == 256 - config.prompt.action_tokens
    with suppress(AttributeError):
        policy.close()
