"""Error bodies as servers send them: (server, status, body), by what they mean. Rewritten as small JSON."""

from __future__ import annotations

import json
from typing import Any

Sent = tuple[str, int, Any]  # server, HTTP status, JSON body or text


def openai(
    message: str, code: Any = None, kind: Any = "invalid_request_error", **more: Any
) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code, **more}}


def flat(message: str, code: Any = 400, kind: str = "BadRequestError") -> dict[str, Any]:
    """vLLM and SGLang before they nested it."""
    return {"object": "error", "message": message, "type": kind, "param": None, "code": code}


FILTERED: list[Sent] = [
    (
        "OpenAI",
        400,
        openai(
            "Invalid prompt: your prompt was flagged as potentially violating our usage policy. "
            "Please try again with a different prompt.",
            "invalid_prompt",
        ),
    ),
    (
        "OpenAI, policy",
        400,
        openai("Your request was rejected as a result of our safety system.", "content_policy_violation"),
    ),
    (
        "Azure",
        400,
        openai(
            "The response was filtered due to the prompt triggering Azure OpenAI's content management "
            "policy. Please modify your prompt and retry.",
            "content_filter",
            None,
            status=400,
            innererror={
                "code": "ResponsibleAIPolicyViolation",
                "content_filter_result": {"violence": {"filtered": True}},
            },
        ),
    ),
    (
        "Anthropic",
        400,
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "Output blocked by content filtering policy",
            },
        },
    ),
    (
        "Gemini",
        400,
        [
            {
                "error": {
                    "code": 400,
                    "message": "The prompt was blocked due to safety settings.",
                    "status": "FAILED_PRECONDITION",
                }
            }
        ],
    ),
    ("DeepSeek", 400, openai("Content Exists Risk", "invalid_request_error")),
    (
        "DashScope",
        400,
        openai(
            "Output data may contain inappropriate content.",
            "data_inspection_failed",
            "data_inspection_failed",
        ),
    ),
    (
        "DashScope, native",
        400,
        {
            "code": "DataInspectionFailed",
            "message": "Input data may contain inappropriate content.",
            "request_id": "1",
        },
    ),
    (
        "Moonshot",
        400,
        {
            "error": {
                "code": 400,
                "message": "The request was rejected because it was considered high risk",
                "param": "prompt",
                "type": "content_filter",
            }
        },
    ),
    (
        "Zhipu",
        400,
        {
            "contentFilter": [{"level": 1, "role": "user"}],
            "error": {"code": "1301", "message": "系统检测到输入或生成内容可能包含不安全或敏感内容"},
        },
    ),
    (
        "Volcengine",
        400,
        openai(
            "The request failed because the input text may contain sensitive information.",
            "InputTextSensitiveContentDetected",
            "BadRequest",
        ),
    ),
    (
        "OpenRouter",
        403,
        {
            "error": {
                "code": 403,
                "message": "m requires moderation on X. Your input was flagged",
                "metadata": {"reasons": ["violence"], "flagged_input": "...", "provider_name": "X"},
            }
        },
    ),
    (
        "OpenRouter, no words",
        403,
        {
            "error": {
                "code": 403,
                "message": "Forbidden",
                "metadata": {"reasons": ["violence"], "flagged_input": "..."},
            }
        },
    ),
    (
        "OpenRouter, provider",
        400,
        {
            "error": {
                "message": "Provider returned error",
                "code": 400,
                "metadata": {"raw": json.dumps(openai("Content Exists Risk")), "provider_name": "DeepSeek"},
            }
        },
    ),
    ("new-api", 500, openai("sensitive words detected", "sensitive_words_detected", "new_api_error")),
    (
        "xAI",
        403,
        {"code": "The caller does not have permission", "error": "Content violates usage guidelines."},
    ),
    ("MiniMax", 400, openai("output new_sensitive (1027)", None, "bad_request_error")),
    ("Together", 422, openai("Your request was blocked by moderation.", None)),
    ("451", 451, openai("Blocked for content safety reasons", None)),
]

OTHERS_OF_ONE_PROMPT: list[tuple[str, int, Any, str]] = [
    (
        "Groq, tools",
        400,
        openai(
            "Tool call validation failed: attempted to call tool 'act' which was not in request.tools",
            "tool_use_failed",
            failed_generation="{}",
        ),
        "tool_call",
    ),
    (
        "Groq, JSON",
        400,
        openai(
            "Failed to generate JSON. Please adjust your prompt.",
            "json_validate_failed",
            failed_generation="{",
        ),
        "unreadable",
    ),
    (
        "OpenRouter, refusal",
        400,
        {"error": {"code": 400, "message": "The model declined", "metadata": {"error_type": "refusal"}}},
        "refused",
    ),
]

# Wrong key, unknown model, no credit: whatever was answered before.
STOPS: list[Sent] = [
    ("OpenAI, key", 401, openai("Incorrect API key provided: sk-x.", "invalid_api_key")),
    (
        "OpenAI, model",
        404,
        openai("The model `m` does not exist or you do not have access to it.", "model_not_found"),
    ),
    (
        "OpenAI, credit",
        429,
        openai(
            "You exceeded your current quota, please check your plan and billing details.",
            "insufficient_quota",
            "insufficient_quota",
        ),
    ),
    (
        "OpenAI, credit by type",
        429,
        openai(
            "You exceeded your current quota, please check your plan and billing details.",
            None,
            "insufficient_quota",
        ),
    ),
    (
        "OpenAI, inactive",
        429,
        openai("Your account is not active, please check your billing details.", "billing_not_active"),
    ),
    (
        "Azure",
        404,
        {"error": {"code": "DeploymentNotFound", "message": "The API deployment does not exist."}},
    ),
    (
        "Anthropic",
        401,
        {"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}},
    ),
    (
        "Anthropic, credit",
        400,
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "Your credit balance is too low to access the Anthropic API.",
            },
        },
    ),
    (
        "Gemini",
        400,
        [
            {
                "error": {
                    "code": 400,
                    "message": "API key not valid. Please pass a valid API key.",
                    "status": "INVALID_ARGUMENT",
                    "details": [{"@type": "ErrorInfo", "reason": "API_KEY_INVALID"}],
                }
            }
        ],
    ),
    ("DeepSeek", 402, openai("Insufficient Balance", "invalid_request_error", "unknown_error")),
    (
        "DashScope",
        400,
        openai("Access denied, please make sure your account is in good standing.", "Arrearage", "Arrearage"),
    ),
    ("DashScope, model", 404, openai("The model `m` does not exist.", "model_not_found")),
    (
        "Moonshot",
        429,
        openai("Your account is suspended, please check your plan", None, "exceeded_current_quota_error"),
    ),
    ("Zhipu", 429, {"error": {"code": "1113", "message": "余额不足或无可用资源包,请充值。"}}),
    (
        "OpenRouter",
        402,
        {
            "error": {
                "code": 402,
                "message": "Insufficient credits",
                "metadata": {"limit_source": "openrouter_credits"},
            }
        },
    ),
    ("new-api", 403, openai("user quota is not enough", "insufficient_user_quota", "new_api_error")),
    ("Ollama", 404, {"error": {"message": 'model "m" not found, try pulling it first', "type": "api_error"}}),
    ("vLLM", 404, flat("The model `m` does not exist.", 404, "NotFoundError")),
    ("Mistral", 401, {"detail": "Unauthorized"}),
]

# About a setting or the account: they stop a command that has no answer yet.
DOUBTFUL: list[Sent] = [
    (
        "OpenAI",
        400,
        openai("Unsupported value: 'temperature' does not support 0.2 with this model.", "unsupported_value"),
    ),
    (
        "OpenAI, name",
        400,
        openai(
            "Invalid 'user': string too long. Expected a string with maximum length 64.",
            "string_above_max_length",
        ),
    ),
    ("OpenAI, banned", 403, openai("Your organization was flagged for violating our usage policies.", None)),
    (
        "Anthropic",
        400,
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "max_tokens: 21333 > "
                "4096, which is the maximum allowed number of output tokens for m",
            },
        },
    ),
    ("DeepSeek", 400, openai("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]")),
    (
        "DashScope",
        400,
        openai("<400> InternalError.Algo.InvalidParameter: Range of max_tokens should be [1, 8192]"),
    ),
    (
        "Mistral",
        400,
        {"object": "error", "message": "Invalid model: m", "type": "invalid_model", "code": "1500"},
    ),
    (
        "Mistral, field",
        422,
        {
            "detail": [
                {
                    "type": "extra_forbidden",
                    "loc": ["body", "x"],
                    "msg": "Extra inputs are not permitted",
                    "input": "the prompt is too long",
                }
            ]
        },
    ),
    ("a firewall", 403, "<!DOCTYPE html><title>Attention Required! | Cloudflare</title>"),
    ("nothing", 400, ""),
]

STREAM_ONLY: list[Sent] = [
    (
        "DashScope",
        400,
        openai(
            "This model only support stream mode, please enable the stream parameter to access the model. ",
            "invalid_parameter_error",
        ),
    ),
    (
        "DashScope, thinking",
        400,
        openai(
            "parameter.enable_thinking must be set to false for non-streaming calls",
            "invalid_parameter_error",
        ),
    ),
    (
        "DashScope, http",
        400,
        openai("current user api does not support http call.", "invalid_parameter_error"),
    ),
    (
        "ModelScope",
        400,
        openai("enable thinking can not be support when `stream=False`.", "invalid_parameter_error"),
    ),
    ("a backend", 400, {"detail": "Stream must be set to true"}),
    ("a gateway", 422, {"error": "this model requires streaming"}),
    ("Chinese", 400, {"error": {"message": "该模型仅支持流式调用"}}),
]

PASSES: list[Sent] = [
    (
        "OpenAI",
        429,
        openai("Rate limit reached for m. Please try again in 6s.", "rate_limit_exceeded", "requests"),
    ),
    (
        "Gemini",
        429,
        [
            {
                "error": {
                    "code": 429,
                    "message": "You exceeded your current quota, please check your plan and billing details.",
                    "status": "RESOURCE_EXHAUSTED",
                    "details": [{"retryDelay": "38s"}],
                }
            }
        ],
    ),
    (
        "DashScope",
        429,
        openai("Allocated quota exceeded, please increase your quota limit.", "insufficient_quota"),
    ),
    ("Bedrock", 429, {"message": "Too many tokens, please wait before trying again."}),
    ("Anthropic", 529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
    (
        "OpenRouter",
        402,
        {
            "error": {
                "code": 402,
                "message": "In flight",
                "metadata": {"limit_source": "openrouter_in_flight_budget"},
            }
        },
    ),
    ("OpenRouter, 502", 502, {"error": {"message": "Provider returned error", "code": 502}}),
    ("a proxy", 504, "<html><title>504</title>The upstream took too long to respond</html>"),
    ("a slow server", 408, {"error": "Your request took too long"}),
]
