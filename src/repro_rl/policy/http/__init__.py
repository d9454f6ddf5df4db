"""Models behind an OpenAI-compatible server: asked in parallel, within a budget, no answer paid twice."""

from repro_rl.policy.http.answers import Answer, AnswerStore
from repro_rl.policy.http.client import ChatClient, Failure, Question
from repro_rl.policy.http.policy import HttpPolicy

__all__ = ["Answer", "AnswerStore", "ChatClient", "Failure", "HttpPolicy", "Question"]
