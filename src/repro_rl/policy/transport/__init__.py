"""Asking a server over HTTP, whatever it serves: one call, what its errors mean, and how long to wait.

API models (``policy.http``) and vLLM's own server (``policy.vllm``) are asked through it.
"""

from repro_rl.policy.transport.fetch import ApiKey, fetch, open_client, pause, read_key
from repro_rl.policy.transport.refusals import PassingError, RefusedAll, RefusedPrompt

__all__ = [
    "ApiKey",
    "PassingError",
    "RefusedAll",
    "RefusedPrompt",
    "fetch",
    "open_client",
    "pause",
    "read_key",
]
