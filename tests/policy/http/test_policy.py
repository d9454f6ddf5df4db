"""A model behind an API as a policy."""

from __future__ import annotations

import numpy as np

from repro_rl.policy import Policy, SamplingSettings
from repro_rl.policy.http import HttpPolicy
from repro_rl.policy.http.policy import MessageSession
from support.api_server import completion, error


def test_policy_completions(server, make_client):
    server.reply = lambda body, number: {
        "cut": completion("half", finish="length", usage=(3, 50)),
        "bad": error(500),
        "none": completion(None, reasoning_content="hm"),
    }[body["messages"][0]["content"]]
    policy: Policy = HttpPolicy(make_client(retries=0))
    keys = np.array([1, 2, 2**64 - 1], dtype=np.uint64)
    cut, bad, none = policy.generate(["cut", "bad", "none"], keys, SamplingSettings(50, 0.4))
    assert (cut.text, cut.finished, cut.error, cut.prompt_tokens, cut.tokens) == ("half", False, None, 3, 50)
    assert (cut.prompt_ids, cut.token_ids, len(cut.logprobs)) == ((), (), 0)
    assert (bad.text, bad.finished, bad.error, bad.tokens) == ("", False, "status 500: no", 0)
    assert (none.text, none.finished, none.error) == ("", True, None)
    assert policy.codec.encode("anything") == ()
    assert policy.codec.positions is None
    assert isinstance(policy.open_chat(), MessageSession)
