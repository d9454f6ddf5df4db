"""The section ``api``: an OpenAI-compatible server."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from repro_rl.errors import unencodable
from repro_rl.settings import EnvName, Section

API = "api:"  # prefix of the name of a model behind an API


def is_api(model: object) -> bool:
    """Whether ``model`` names a model behind an API, ``api:MODEL``."""
    return str(model).startswith(API)


class ApiBudget(Section):
    """Limits of one command. Cached answers count too; null is no limit."""

    calls: int | None = Field(None, ge=0, description="requests")
    tokens: int | None = Field(None, ge=0, description="prompt and completion tokens together")
    money: float | None = Field(None, ge=0, description="in the currency of api.prices")


class ApiPrices(Section):
    """Prices of a million tokens, in any currency."""

    prompt: float = Field(ge=0, description="of prompt tokens")
    completion: float = Field(ge=0, description="of completion tokens")


class ApiSection(Section):
    """An OpenAI-compatible server: a model to evaluate, or to annotate demonstrations with."""

    base_url: str = Field(
        "", description="the address without /chat/completions, such as http://localhost:8000/v1"
    )
    model: str = Field("", description="the model as its server calls it")
    key_env: EnvName = Field(
        None, description="NAME of the environment variable with the API key, such as DEEPSEEK_API_KEY"
    )
    concurrency: int = Field(8, gt=0, description="concurrent calls")
    timeout: float = Field(300.0, gt=0, description="seconds for one call, answer included")
    retries: int = Field(6, ge=0, description="repetitions of a call after an error that may pass")
    backoff: float = Field(1.0, ge=0, description="seconds before the first repetition; doubles, with jitter")
    max_wait: float = Field(
        300.0,
        ge=0,
        description="longest wait in seconds; a server that asks for a longer one stops the command",
    )
    give_up: int = Field(
        20, ge=0, description="consecutive calls without an answer that stop the command; 0: never"
    )
    stream: bool | None = Field(
        None,
        description="ask for answers as event streams  [default: where the server wants it, or sends one]",
    )
    send_seed: bool = Field(False, description="send a different seed with every call")
    limit_field: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="what the server calls the token limit of an answer"
    )
    reasoning_tokens: int = Field(0, ge=0, description="added to the token limit, for models that reason")
    system: str | None = Field(
        None,
        description="system message before every prompt and conversation, for a chat template that demands "
        "one; null: none is sent",
    )
    guided: Literal["off", "json_schema", "structured_outputs", "guided_regex", "grammar"] = Field(
        "off",
        description="how the server holds an answer to a form, for prompt.reflect_form=guided: json_schema "
        "(response_format: OpenAI and most), structured_outputs or, before vLLM 0.12, guided_regex (vLLM), "
        "grammar (llama.cpp)",
    )
    extra: dict[str, Any] = Field(
        default_factory=dict, description="further fields of the request; null removes a field"
    )
    cache: Path | None = Field(None, description="folder of cached answers  [default: in the user's cache]")
    budget: ApiBudget = ApiBudget()
    prices: ApiPrices | None = None
    annotate_tries: int = Field(3, gt=0, description="attempts to get an annotation that can be parsed")
    annotate_temperature: float = Field(0.0, ge=0, description="of annotations")
    annotate_tokens: int = Field(4096, gt=0, description="longest annotation")

    @field_validator("base_url")
    @classmethod
    def _plain_url(cls, value: str) -> str:
        if any(sign in value for sign in "@?#"):
            raise ValueError(
                "give an address without a user, a password or a query; keys belong in api.key_env"
            )
        return value.rstrip("/")

    @field_validator("system")
    @classmethod
    def _sendable(cls, value: str | None) -> str | None:
        problem = None if value is None else unencodable(value)
        if problem is not None:
            raise ValueError(f"the text holds {problem}, which is no character and cannot be sent")
        return value

    @model_validator(mode="after")
    def _priced(self) -> ApiSection:
        if self.budget.money is not None and self.prices is None:
            raise ValueError("api.budget.money needs api.prices.prompt and api.prices.completion")
        return self
