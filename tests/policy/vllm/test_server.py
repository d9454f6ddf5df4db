"""The server sampler against a real HTTP server that fails in every way."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from repro_rl.config import VllmSection
from repro_rl.errors import ApiError, ConfigError
from repro_rl.policy import SamplingSettings
from repro_rl.policy.vllm.server import ServerSampler
from support.api_server import KEY, Reply, error
from support.models import keys_of, perturb
from support.vllm_server import GREEDY, PROMPTS, answer, same_completions

# The contract ---------------------------------------------------------------------------------------


def test_completions_are_those_of_the_trainers_weights(make, policy, server):
    sampler = make()
    expected = policy.generate(PROMPTS, keys_of(8), GREEDY)
    done = sampler.generate(PROMPTS, keys_of(8), GREEDY)
    assert same_completions(done, expected)
    for one, two in zip(done, expected, strict=True):
        np.testing.assert_allclose(one.logprobs, two.logprobs, atol=1e-5)
        assert one.entropy == pytest.approx(-float(one.logprobs.mean()))
        assert one.logprobs.dtype == np.float32
    perturb(policy, 2)
    assert same_completions(sampler.generate(PROMPTS, keys_of(8), GREEDY), expected)  # nobody has told it yet
    sampler.before_update()
    sampler.weights_changed()
    assert not same_completions(sampler.generate(PROMPTS, keys_of(8), GREEDY), expected)
    assert same_completions(
        sampler.generate(PROMPTS, keys_of(8), GREEDY), policy.generate(PROMPTS, keys_of(8), GREEDY)
    )
    assert server.loads == 2
    assert list(sampler.folder.iterdir()) == []
    assert sampler.describe() == {"backend": "vllm-server", "vllm": "0.0-test", "dtype": "float32"}
    assert sampler.generate([], keys_of(0), GREEDY) == []


def test_a_sample_depends_on_its_key_alone(make):
    sampler, settings, keys = make(), SamplingSettings(6, temperature=0.9), keys_of(8, "sample")
    whole = sampler.generate(PROMPTS, keys, settings)
    assert same_completions(whole[::-1], sampler.generate(PROMPTS[::-1], keys[::-1], settings))
    assert same_completions(whole[3:4], sampler.generate(PROMPTS[3:4], keys[3:4], settings))
    assert not same_completions(whole, sampler.generate(PROMPTS, keys_of(8, "other"), settings))


def test_what_is_sent(make, server, policy):
    sampler = make()
    server.forget()
    key = (1 << 64) - 1
    sampler.generate(["a b"], np.array([key], dtype=np.uint64), SamplingSettings(5, 0.7, top_p=0.9))
    [body] = [body for body in server.bodies if "prompt" in body]
    assert body == {
        "model": "served",
        "prompt": list(policy.codec.encode("a b")),
        "max_tokens": 5,
        "temperature": 0.7,
        "top_p": 0.9,
        # A server takes what is left out from the model's generation_config.json.
        "top_k": 0,
        "min_p": 0.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1.0,
        "seed": (1 << 63) - 1,  # the largest that the server takes
        "logprobs": 0,
        "stop_token_ids": sorted(policy.codec.eos_ids),
        "ignore_eos": True,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
        "skip_special_tokens": False,
        "add_special_tokens": False,
    }


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
    assert make().limit == policy.codec.positions
    monkeypatch.setattr(policy.codec, "positions", None)
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
    first = list(policy.codec.encode(PROMPTS[2]))

    def fail(path, body, number):
        if path == "/v1/completions" and number == 1 and body["prompt"] == first:
            return FAILURES[name](server, body)
        return None

    server.fail = fail
    done = sampler.generate(PROMPTS, keys_of(8), GREEDY)
    assert same_completions(done, policy.generate(PROMPTS, keys_of(8), GREEDY))
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


def test_a_wish_beyond_the_patience_stops(make, server):
    """A day, asked for by a proxy, is not slept."""
    sampler = make()
    server.fail = lambda path, body, number: (
        error(503, "back tomorrow", Retry_After="86400") if path == "/v1/completions" else None
    )
    said = (
        rf"{server.url}/v1/completions asks to wait 86400 s, policy\.vllm\.server\.max_wait is 60 s "
        r"\(status 503: back tomorrow\)\. Repeat the command later"
    )
    with pytest.raises(ApiError, match=said):
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
    assert same_completions(
        sampler.generate(PROMPTS, keys_of(8), GREEDY), policy.generate(PROMPTS, keys_of(8), GREEDY)
    )
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


@pytest.mark.parametrize(
    ("path", "reply", "missing"),
    [
        ("/v1/models", {"object": "list", "data": []}, "data.0"),
        ("/v1/models", {"models": ["served"]}, "data.0"),
        ("/v1/models", {"data": ["served"]}, "data.0"),
        ("/v1/models", {"data": [{"name": "served"}]}, "id"),
        ("/v1/models", {"data": [{"id": "served", "max_model_len": "long"}]}, "max_model_len"),
        ("/server_info", {"model": "x"}, "vllm_config.model_config"),
        ("/server_info", {"vllm_config": {"model_config": {}}}, "vllm_config.parallel_config"),
        ("/server_info", {"vllm_config": "VllmConfig(...)"}, "vllm_config.model_config"),
        ("/collective_rpc", {}, "results"),
        ("/weight_info", {}, "weight_version"),
        ("/weight_info", {"weight_version": None}, "weight_version"),
    ],
)
def test_another_program_at_the_address_is_named(path, reply, missing, make, server):
    server.fail = lambda asked, body, number: answer(**reply) if asked.startswith(path) else None
    said = (
        rf"{server.url}{path}\S* answers without a usable {re.escape(missing)}: {{.*}}\. So it is "
        r"no vLLM server as we know it.*policy\.vllm\.server\.url"
    )
    with pytest.raises(ApiError, match=said):
        make().generate(["a"], keys_of(1), GREEDY)


def test_nobody_there(policy):
    settings = VllmSection.model_validate({"server": {"url": "http://127.0.0.1:1", "retries": 2}})
    waits: list[float] = []
    with pytest.raises(ApiError, match=r"http://127\.0\.0\.1:1/v1/models.*3 attempts"):
        ServerSampler(policy, settings, wait=waits.append)
    assert len(waits) == 2


def test_the_key_is_sent_and_never_in_a_message(make, server, monkeypatch):
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
    folder = tmp_path / "shared"
    make(weights=str(folder))
    [body] = [body for body in server.bodies if "method" in body]
    assert Path(body["kwargs"]["folder"]).parent == folder


def test_cached_prefixes_are_dropped_before_the_weights_count_as_new(make, server):
    asked: list[str] = []
    server.fail = lambda path, body, number: asked.append(path)
    sampler = make()
    sampler.weights_changed()
    sent = [path for path in asked if path not in ("/v1/models", "/version") and "server_info" not in path]
    assert sent == ["/collective_rpc", "/reset_prefix_cache", "/update_weight_version"] * 2
    assert server.loads == 2


def test_a_server_that_keeps_its_cached_prefixes_is_an_error(make, server):
    server.fail = lambda path, body, number: answer(success=False) if path == "/reset_prefix_cache" else None
    with pytest.raises(ApiError, match=rf"{server.url} did not drop its prefix cache.*server of its own"):
        make()
    assert server.version == "default"
