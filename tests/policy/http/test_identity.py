"""What results of a server depend on, and what they do not."""

from __future__ import annotations

import pytest

from repro_rl.config import load_config
from repro_rl.demos.http import annotation_settings
from repro_rl.policy.http.identity import server_identity
from repro_rl.policy.transport import ApiKey

API = ["api.base_url=http://a/v1", "api.model=m"]


@pytest.mark.parametrize(
    ("setting", "answers", "labels"),
    [
        ("api.base_url=http://b/v1", True, True),
        ("api.model=n", True, True),
        ("api.reasoning_tokens=9", True, True),
        ("api.system=Be brief.", True, True),
        ("api.system=''", True, True),  # an empty message is one
        ("api.system=", False, False),
        ("api.annotate_tries=7", False, True),  # no evaluation asks for annotations
        ("api.annotate_temperature=0.5", False, True),
        ("api.annotate_tokens=99", False, True),
        ("api.concurrency=3", False, False),
    ],
)
def test_which_settings_decide_answers_and_labels(setting: str, answers: bool, labels: bool) -> None:
    one, other = load_config(None, API), load_config(None, [*API, setting])
    assert (server_identity(one.api) != server_identity(other.api)) is answers
    before, now = (annotation_settings(config.api, config.prompt) for config in (one, other))
    assert (before != now) is labels


def test_without_a_system_message_results_are_those_of_earlier_versions() -> None:
    api = load_config(None, API).api
    assert server_identity(api)["api"].keys() == {
        *("model", "reasoning_tokens", "extra", "limit_field", "send_seed"),
    }


def test_a_form_counts_for_guided_reflections_alone() -> None:
    api = load_config(None, [*API, "api.guided=grammar"]).api
    assert "guided" not in server_identity(api)
    assert server_identity(api, "guided")["guided"] == "grammar"


def test_a_key_is_never_shown() -> None:
    key = ApiKey("sk-1")
    assert "sk-1" not in repr(key)
    assert key.hide(ValueError("no sk-1 here")) == "no [key] here"
    assert ApiKey().hide("as it is") == "as it is"
