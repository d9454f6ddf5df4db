"""Errors of servers that say that a prompt is too long."""

from __future__ import annotations

import json

from support.server_words import Sent, flat, openai

ASKED = (
    "This model's maximum context length is 4096 tokens. However, you requested 4600 tokens (4088 in the "
    "messages, 512 in the completion). Please reduce the length of the messages or completion."
)
TOO_LONG: list[Sent] = [
    ("OpenAI", 400, openai(ASKED, "context_length_exceeded")),
    (
        "OpenAI, responses",
        400,
        openai("Your input exceeds the context window of this model.", "context_length"),
    ),
    (
        "OpenAI, 429",
        429,
        openai(
            "Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested "
            "342389. The input or output tokens must be reduced.",
            "rate_limit_exceeded",
            "tokens",
        ),
    ),
    (
        "OpenAI, string",
        400,
        openai(
            "Invalid 'messages[1].content': string too long. Expected a string with "
            "maximum length 1048576, but got 1500000 instead.",
            "string_above_max_length",
        ),
    ),
    (
        "Azure",
        400,
        openai(
            "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in "
            "509178 tokens.",
            "context_length_exceeded",
        ),
    ),
    (
        "GitHub models",
        413,
        openai("Request body too large for gpt-4o model. Max size: 8000 tokens.", "tokens_limit_reached"),
    ),
    ("vLLM", 400, flat(ASKED)),
    ("vLLM, nested", 400, openai(ASKED, 400, "BadRequestError")),
    (
        "vLLM, engine",
        400,
        flat(
            "The decoder prompt (length 10127) is longer than the maximum model length of "
            "8192. Make sure that `max_model_len` is no smaller than the number of text tokens."
        ),
    ),
    ("vLLM, nothing left", 400, flat("max_tokens must be at least 1, got -186.")),
    (
        "SGLang",
        400,
        flat("The input (61709 tokens) is longer than the model's context length (40960 tokens)."),
    ),
    (
        "SGLang, sum",
        400,
        flat(
            "Requested token count exceeds the model's maximum context length of 196608 "
            "tokens. You requested a total of 204830 tokens."
        ),
    ),
    (
        "SGLang, cache",
        400,
        flat("Input length (160062 tokens) exceeds the maximum allowed length (59862 tokens)."),
    ),
    (
        "llama.cpp",
        400,
        {
            "error": {
                "code": 400,
                "message": "request (4390 tokens) exceeds the available context "
                "size (4096 tokens), try increasing it",
                "type": "exceed_context_size_error",
                "n_ctx": 4096,
            }
        },
    ),
    (
        "llama.cpp, 500",
        500,
        {"error": {"code": 500, "message": "Context size has been exceeded.", "type": "server_error"}},
    ),
    (
        "llama-cpp-python",
        400,
        openai("Requested tokens (2285) exceed context window of 2048", "context_length_exceeded"),
    ),
    (
        "LM Studio",
        400,
        {
            "error": "The number of tokens to keep from the initial prompt is greater than the "
            "context length (n_keep: 13055>= n_ctx: 4096)."
        },
    ),
    ("LM Studio, keep", 400, {"error": "Trying to keep the first 15857 tokens when context the overflows."}),
    (
        "TGI",
        422,
        {
            "error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: "
            "3474 `inputs` tokens and 60 `max_new_tokens`",
            "error_type": "validation",
        },
    ),
    (
        "TGI, input alone",
        422,
        {
            "error": "Input validation error: `inputs` must have less than 4096 tokens. Given: 4545",
            "error_type": "validation",
        },
    ),
    (
        "Together",
        422,
        openai(
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193. Given: "
            "9001 `inputs` tokens and 512 `max_new_tokens`"
        ),
    ),
    (
        "Ollama",
        500,
        {"error": {"message": "the input length exceeds the context length", "type": "api_error"}},
    ),
    ("Ollama, cloud", 400, {"error": "prompt too long; exceeded max context length by 120 tokens"}),
    (
        "Gemini",
        400,
        [
            {
                "error": {
                    "code": 400,
                    "message": "The input token count (1196265) exceeds the maximum "
                    "number of tokens allowed (1048575).",
                    "status": "INVALID_ARGUMENT",
                }
            }
        ],
    ),
    (
        "Anthropic",
        400,
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "prompt is too long: 213462 tokens > 200000 maximum",
            },
        },
    ),
    (
        "Anthropic, sum",
        400,
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "input length and `max_tokens` exceed context limit: 143653 + 64000 > 200000",
            },
        },
    ),
    (
        "Anthropic, bytes",
        413,
        {
            "type": "error",
            "error": {"type": "request_too_large", "message": "Request exceeds the maximum size"},
        },
    ),
    (
        "Mistral",
        400,
        {
            "object": "error",
            "message": "Prompt contains 66385 tokens and 0 draft tokens, too large for "
            "model with 32768 maximum context length",
            "type": "invalid_request_error",
            "code": "3051",
        },
    ),
    ("DeepSeek", 400, openai(ASKED, "invalid_request_error")),
    (
        "DashScope",
        400,
        openai(
            "<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 30720]",
            "invalid_parameter_error",
        ),
    ),
    (
        "DashScope, native",
        400,
        {
            "code": "InvalidParameter",
            "message": "Range of input length should be [1, 983616]",
            "request_id": "1",
        },
    ),
    (
        "Groq",
        400,
        openai("Please reduce the length of the messages or completion.", "context_length_exceeded"),
    ),
    (
        "Groq, 413",
        413,
        openai(
            "Request too large for model `m` on tokens per minute (TPM): Limit 6000, Requested "
            "14368. Upgrade at https://console.groq.com/settings/billing",
            "rate_limit_exceeded",
            "tokens",
        ),
    ),
    (
        "xAI",
        400,
        {
            "code": "Client specified an invalid argument",
            "error": "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
        },
    ),
    (
        "Moonshot",
        400,
        openai("Invalid request: Your request exceeded model token limit: 262144 (requested: 291351)"),
    ),
    (
        "OpenRouter",
        400,
        {
            "error": {
                "message": "This endpoint's maximum context length is 200000 tokens. However, "
                "you requested about 348606 tokens.",
                "code": 400,
                "metadata": {"provider_name": None},
            }
        },
    ),
    (
        "OpenRouter, raw",
        400,
        {
            "error": {
                "message": "Provider returned error",
                "code": 400,
                "metadata": {
                    "provider_name": "X",
                    "raw": json.dumps(
                        flat("The input (9 tokens) is longer than the model's context length (8 tokens).")
                    ),
                },
            }
        },
    ),
    (
        "MiniMax",
        400,
        openai("invalid params, context window exceeds limit (2013)", None, "bad_request_error"),
    ),
    ("Zhipu", 400, {"error": {"code": "1261", "message": "Prompt 超长"}}),
    (
        "LiteLLM",
        400,
        {
            "error": {
                "message": 'litellm.BadRequestError: OpenAIException - {"error": {"message": '
                '"This model\'s maximum context length is 16 tokens"}}',
                "type": None,
                "param": None,
                "code": "400",
            }
        },
    ),
    (
        "FastAPI",
        422,
        {"detail": [{"loc": ["body", "messages"], "msg": "prompt is too long", "type": "value_error"}]},
    ),
    ("nginx", 413, "<html><head><title>413 Request Entity Too Large</title></head></html>"),
]
