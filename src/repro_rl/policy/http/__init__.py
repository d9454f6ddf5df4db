"""Models behind an OpenAI-compatible server: asked in parallel, within a budget, no answer paid twice."""

from repro_rl.policy.http.answers import Answer, AnswerStore
from repro_rl.policy.http.client import ChatClient
from repro_rl.policy.http.failure_tracker import Failure
from repro_rl.policy.http.kept_answers import KeptAnswers
from repro_rl.policy.http.policy import HttpPolicy
from repro_rl.policy.http.request import Question

__all__ = ["Answer", "AnswerStore", "ChatClient", "Failure", "HttpPolicy", "KeptAnswers", "Question"]
