"""Sampling from a vLLM server: prompts and completions are token ids, weights go through a folder.

The server has the weights that were sent last, and loses them when it is started again. So every set of
weights gets a version, which the server is asked for after every batch. With another version (a restart,
another run) the weights are sent again and the batch is sampled again.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from repro_rl.config import VllmSection
from repro_rl.errors import ApiError, ConfigError
from repro_rl.files import write_folder
from repro_rl.policy.base import Keys, SamplingSettings
from repro_rl.policy.loading.lora import is_adapter
from repro_rl.policy.token_policy import TokenPolicy
from repro_rl.policy.tokens.codec import TextCodec
from repro_rl.policy.transformers_policy import TransformersPolicy
from repro_rl.policy.transport import (
    PassingError,
    RefusedAll,
    RefusedPrompt,
    fetch,
    open_client,
    pause,
    read_key,
)
from repro_rl.policy.vllm.guided import guided_completions
from repro_rl.policy.vllm.parts import part_of
from repro_rl.policy.vllm.request import completion_of, fitting, sampling_fields, too_long
from repro_rl.policy.vllm.worker import EXTENSION, OTHER_HEAD
from repro_rl.text.guided import GuidedText
from repro_rl.types import Completion, Ids

SYNC_ROUNDS = 3  # a server that loses its weights more often during one batch is not coming up
LOGPROBS_MODE = "processed_logprobs"  # at the temperature, as our own sampler's


class ServerSampler(TokenPolicy):
    """Samples from the vLLM server at ``section.server.url`` with the weights of ``trainer``. See Sampler.

    Raises ConfigError when the server was started without what is needed, ApiError when it cannot be reached
    or is another program.
    ``wait``: how to wait between repetitions (tests replace it).
    """

    def __init__(
        self,
        trainer: TransformersPolicy,
        section: VllmSection,
        *,
        wait: Callable[[float], object] = time.sleep,
    ):
        self.trainer, self.codec = trainer, trainer.codec
        self.server, self._wait = section.server, wait
        self._key = read_key(self.server.key_env, "policy.vllm.server.key_env")
        self._http = open_client(self._key, self.server.timeout, self.server.concurrency)
        self._temporary = (
            tempfile.TemporaryDirectory(prefix="repro-rl-weights-") if self.server.weights is None else None
        )
        self.folder = (
            Path(self._temporary.name) if self._temporary else Path(self.server.weights or "").absolute()
        )
        self._run_id, self._updates = uuid.uuid4().hex[:12], 0
        self.model, self.limit, self.version, self.dtype = self._inspect()
        self.weights_changed()

    def generate_ids(
        self,
        encoded: Sequence[Ids],
        keys: Keys,
        settings: SamplingSettings,
        forms: Sequence[GuidedText] | None = None,
    ) -> list[Completion]:
        """See TokenPolicy. A prompt that the server refuses gives a completion with ``error``.

        A request that fails is repeated alone, with growing pauses; what was answered is kept. Raises
        ApiError, naming the address and what to do, when one stays without an answer.
        """
        if not encoded:
            return []
        for _ in range(SYNC_ROUNDS):
            if forms is None:
                done = self._round(encoded, keys, settings)
            else:
                done = guided_completions(self.codec, encoded, keys, settings, forms, self.limit, self._round)
            if self._served_weights_version() == self._weights_version:
                return done
            self._send()
        raise ApiError(
            f"{self.server.url} lost our weights {SYNC_ROUNDS} times during one batch: it restarts again and "
            "again, or another run sends it weights too. Give every run a server of its own."
        )

    def before_update(self) -> None:
        """See Sampler. The server has its own memory."""

    def weights_changed(self) -> None:
        """Send the trainer's weights (an adapter added) to the server, which reloads them in place."""
        self.trainer.weights_changed()
        self._updates += 1
        self._send()

    def describe(self) -> dict[str, Any]:
        return {"backend": "vllm-server", "vllm": self.version, "dtype": self.dtype}

    def close(self) -> None:
        self._http.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    # Weights --------------------------------------------------------------------------------------

    @property
    def _weights_version(self) -> str:
        """The version of the trainer's weights."""
        return f"{self._run_id}-{self._updates}"

    def _served_weights_version(self) -> str:
        """The version of the weights that the server has."""
        return str(self._ask_for("/weight_info", ("weight_version",), str))

    def _send(self) -> None:
        folder = self.folder / self._weights_version
        write_folder(folder, self.trainer.save_merged)
        try:
            body = {"method": "repro_rl_load", "kwargs": {"folder": str(folder)}}
            results = self._ask_for("/collective_rpc", ("results",), list, body)
            wrong = [result for result in results or ["no worker answered"] if result != "loaded"]
            if wrong:
                raise ConfigError(
                    f"{self.server.url} did not take our weights: {wrong[0]}. {self._advice(str(wrong[0]))}"
                )
            # Cached prefixes were computed with the old weights; a running request would keep them.
            if self._ask("/reset_prefix_cache", {}).get("success") is False:
                raise ApiError(
                    f"{self.server.url} did not drop its prefix cache: it is answering somebody else's "
                    "requests. Give the run a server of its own."
                )
            self._ask("/update_weight_version", {"new_version": self._weights_version})
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _advice(self, refusal: str) -> str:
        """What to do about what the server's workers answered to our weights."""
        if refusal.startswith(OTHER_HEAD):
            name = str(self.trainer.origin.name)
            if is_adapter(name):
                return (
                    "The adapter is on one of the two layers alone. Write the merged model with "
                    f"TransformersPolicy.load({name!r}).save_merged(Path(FOLDER)) and serve that: "
                    f"{self.command('FOLDER')}"
                )
            return f"Serve the model itself: {self.command(name)}"
        return (
            "Trainer and server must see the same folder: set policy.vllm.server.weights to one on a disk "
            "that both have."
        )

    def _inspect(self) -> tuple[str, int, str, str]:
        """Model name, longest sequence, vLLM's version and dtype; the server must have what we need."""
        path = "/v1/models"
        served = self._ask_for(path, ("data", 0), dict)
        name = str(self._part(served, ("id",), str, path))
        limit = self.codec.positions
        if served.get("max_model_len"):
            limit = int(self._part(served, ("max_model_len",), int, path))
        if limit is None:
            raise ConfigError(
                f"{self.server.url} does not say its max_model_len, nor does the model's config.json "
                "(max_position_embeddings); start the server with --max-model-len."
            )
        path = "/server_info?config_format=json"
        try:
            answer = self._ask(path, once=True)
        except ApiError as error:
            raise ConfigError(
                f"{self.server.url} is not in development mode, so it takes no weights ({error}). Start it "
                f"with: {self.command(name)}"
            ) from error
        model = self._part(answer, ("vllm_config", "model_config"), dict, path)
        parallel = self._part(answer, ("vllm_config", "parallel_config"), dict, path)
        mode, extension = model.get("logprobs_mode"), parallel.get("worker_extension_cls")
        if mode != LOGPROBS_MODE or extension != EXTENSION:
            raise ConfigError(
                f"{self.server.url} runs with --logprobs-mode {mode} and --worker-extension-cls "
                f"{extension or '(none)'}. Start it with: {self.command(name)}"
            )
        info = answer["vllm_config"]
        scheduler = info.get("scheduler_config")
        chunked = isinstance(scheduler, dict) and scheduler.get("enable_chunked_prefill")
        if chunked and "cpu" in str(info.get("device_config")).lower():
            raise ConfigError(
                f"{self.server.url} cuts prompts into chunks, which vLLM on CPU cannot do for requests with "
                "a seed. Start it with --no-enable-chunked-prefill "
                f"--max-num-batched-tokens {max(4096, limit)}."
            )
        version = str(self._ask("/version").get("version"))
        return name, limit, version, str(model.get("dtype")).removeprefix("torch.")

    def command(self, model: str) -> str:
        """How the server has to be started."""
        return (
            f"VLLM_SERVER_DEV_MODE=1 vllm serve {model} --logprobs-mode {LOGPROBS_MODE} --generation-config "
            f"vllm --worker-extension-cls {EXTENSION} (docs/vllm.md)"
        )

    # Requests -------------------------------------------------------------------------------------

    def _round(
        self,
        encoded: Sequence[Ids],
        keys: Keys,
        settings: SamplingSettings,
        allowed: Sequence[Ids] | None = None,
    ) -> list[Completion]:
        """One completion for each row, in parallel; the first error that concerns all ends the round.

        ``allowed``: the ids that the tokens of each may be.
        """
        choices = [None] * len(encoded) if allowed is None else allowed
        stop = threading.Event()

        def one(row: int) -> Completion:
            if stop.is_set():
                return too_long((), 0)  # never returned: the round is over
            try:
                return self._complete(encoded[row], int(keys[row]), settings, choices[row], stop)
            except BaseException:
                stop.set()
                raise

        with ThreadPoolExecutor(min(self.server.concurrency, len(encoded))) as pool:
            return list(pool.map(one, range(len(encoded))))

    def _complete(
        self,
        prompt: Ids,
        key: int,
        settings: SamplingSettings,
        allowed: Ids | None,
        stop: threading.Event,
    ) -> Completion:
        if len(prompt) >= self.limit:
            return too_long(prompt, self.limit)
        body = {
            "model": self.model,
            "prompt": list(prompt),
            **sampling_fields(fitting(prompt, settings, self.limit), key, self.codec.answer_tokens, allowed),
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,  # in place of texts, which have no names without a tokenizer
            "skip_special_tokens": False,
            "add_special_tokens": False,
        }
        try:
            completion: Completion = self._request(
                "/v1/completions",
                body,
                lambda data: read_completion(data, self.codec, prompt, allowed),
                stop,
            )
            return completion
        except RefusedPrompt as error:
            reason = self._key.hide(error)
            return Completion(prompt, (), np.zeros(0, np.float32), "", False, error=reason)

    def _ask(self, path: str, body: dict[str, Any] | None = None, once: bool = False) -> Any:
        """The JSON behind ``path``."""
        try:
            return self._request(path, body, _json, None, once=once)
        except RefusedPrompt as error:
            raise ApiError(f"{self.server.url}{path}: {self._key.hide(error)}") from None

    def _ask_for(
        self, path: str, names: tuple[str | int, ...], kind: type, body: dict[str, Any] | None = None
    ) -> Any:
        """The ``kind`` under ``names`` in the JSON behind ``path``. Raises ApiError where there is none."""
        return self._part(self._ask(path, body), names, kind, path)

    def _part(self, content: Any, names: tuple[str | int, ...], kind: type, path: str) -> Any:
        """The ``kind`` under ``names`` in what ``path`` gave. Raises ApiError where there is none."""
        try:
            return part_of(content, names, kind)
        except LookupError as error:
            raise ApiError(
                f"{self.server.url}{path} {self._key.hide(error)}. So it is no vLLM server as we know it, "
                "or has no model. Check policy.vllm.server.url and how the server was started (docs/vllm.md)."
            ) from None

    def _request(
        self,
        path: str,
        body: dict[str, Any] | None,
        read: Callable[[bytes], Any],
        stop: threading.Event | None,
        once: bool = False,
    ) -> Any:
        """``read`` of the answer, repeated after errors that may pass. Raises RefusedPrompt and ApiError."""
        url, attempt = f"{self.server.url}{path}", 0
        while True:
            try:
                return read(fetch(self._http, url, body, self.server.timeout))
            except RefusedAll as error:
                raise ApiError(f"{url} refuses: {self._key.hide(error)}") from None
            except PassingError as error:
                if error.after is not None and error.after > self.server.max_wait:
                    raise ApiError(
                        f"{url} asks to wait {error.after:.0f} s, policy.vllm.server.max_wait is "
                        f"{self.server.max_wait:g} s ({self._key.hide(error)}). Repeat the command later: a "
                        "run goes on from its last checkpoint. Or raise policy.vllm.server.max_wait."
                    ) from None
                if (once and error.reached) or attempt >= self.server.retries or (stop and stop.is_set()):
                    raise ApiError(
                        f"{url} gave no usable answer in {attempt + 1} attempts; the last: "
                        f"{self._key.hide(error)}. Is the vLLM server running? Start it again and repeat "
                        "the command: a run goes on from its last checkpoint (policy.vllm.server.retries "
                        "and max_wait set the patience)."
                    ) from None
                self._wait(pause(attempt, self.server.backoff, self.server.max_wait, error.after))
                attempt += 1


def _json(data: bytes) -> Any:
    """The object in ``data``; some of the server's answers are empty."""
    try:
        content = json.loads(data) if data.strip() else {}
    except (ValueError, RecursionError) as error:
        raise PassingError(f"the answer is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise PassingError("the answer is not a JSON object")
    return content


def read_completion(data: bytes, codec: TextCodec, prompt: Ids, allowed: Ids | None = None) -> Completion:
    """The completion in an answer of /v1/completions. Raises PassingError naming what is wrong with it."""
    content = _json(data)
    try:
        choice = content["choices"][0]
        if choice.get("finish_reason") not in ("stop", "length"):
            raise ValueError(f"finish_reason is {choice.get('finish_reason')!r}")
        seen = choice.get("prompt_token_ids")
        if seen is not None and tuple(seen) != prompt:
            raise ValueError("the server saw another prompt")
        logprobs = choice["logprobs"]["token_logprobs"]
        return completion_of(codec, prompt, choice["token_ids"], logprobs, allowed)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        shape = f"{type(error).__name__}: {error}"
        raise PassingError(f"the answer is not a completion with token ids ({shape})") from error
