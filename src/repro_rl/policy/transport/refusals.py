"""What an error means: that it passes, that this one prompt is lost, or that nothing will be answered.

The words are those of OpenAI, Azure, Anthropic, Gemini, Mistral, DeepSeek, DashScope, Moonshot, Zhipu,
MiniMax, Groq, Together and OpenRouter. The words of vLLM, SGLang, llama.cpp, TGI, LM Studio, Ollama and
gateways before them are there too.
"""

from __future__ import annotations

import re

from repro_rl.policy.transport.error_body import ErrorBody

PASSING = {408, 409, 425, 429}  # statuses worth a repetition, with every 5xx


class PassingError(Exception):
    """May succeed when repeated.

    ``after``: seconds that the server asks to wait. ``reached``: there is a server at that address.
    ``cause``: of the loss, should no repetition succeed; see ``answers.CAUSES``.
    """

    def __init__(
        self, reason: str, after: float | None = None, reached: bool = True, cause: str = "unavailable"
    ):
        super().__init__(reason)
        self.after, self.reached, self.cause = after, reached, cause


class RefusedPrompt(Exception):
    """The server will never answer this one prompt. ``cause``: see ``answers.CAUSES``."""

    def __init__(self, reason: str, cause: str = "refused"):
        super().__init__(reason)
        self.cause = cause


class RefusedAll(Exception):
    """The server will answer nothing: key, model, address, account or a setting are wrong.

    ``certain``: whatever it answered before. Otherwise unknown words, perhaps about one prompt.
    """

    def __init__(self, reason: str, certain: bool = True):
        super().__init__(reason)
        self.certain = certain


class NeedsStream(RefusedAll):
    """The server answers as an event stream only."""


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns))


STREAM_ONLY = _words(
    r"only supports? (the )?stream",
    r"stream(ing)?( mode)? is required",
    r"must be streamed",
    r"requires?\W+(the )?stream",
    r"enable (the )?stream",
    r"stream\W* (must|should|has to|needs to) be \W?(true|set|enabled)",
    r"set \W?stream\W*(=|:|to)\W*true",
    r"for non-?streaming calls",
    r"stream ?= ?false",
    r"(only|not) (be )?support\w* [^.]{0,40}non-?stream",
    r"non-?stream\w* [^.]{0,40}not (be )?support",
    r"not support http call",
    r"[仅只]支持流式",
    r"非流式",
)
STREAM_OPTIONS = "stream_options"  # a field that some servers do not know

NO_MONEY = _words(
    r"insufficient_(user_)?(quota|balance|credit|fund)",
    r"exceeded_current_quota",
    r"billing_\w+|billing hard limit",
    r"arrearage|payment_required|quota_failed|quota_not_enough",
    r"insufficient (account )?(balance|credit|fund|quota)",
    r"(credit balance|out of credits?|not enough credits?|good standing|quota is not enough)",
    r"余额不足|欠费|额度(已|不足)",
)
RATE = _words(
    *(r"rate.?limit", r"per (second|minute|min|hour|day)\b", r"too many requests", r"throttl"),
    *(r"resource.?exhausted", r"allocated quota", r"please wait", r"overload", r"at capacity"),
)
WRONG_KEY = _words(r"invalid_?api_?key|api_?key_?invalid|authentication_error|account_deactivated")
ACCOUNT = _words(
    r"\b(account|organi[sz]ation|user|api key|project|ip|access)\b[^.;]{0,40}"
    r"\b(banned|suspended|deactivated|disabled|terminated|blocked|restricted|flagged)\b",
    r"封禁|停用|(账号|账户)\S{0,12}(风险|异常)",
)

TOO_LONG = _words(
    r"context[ _-]?(length|window|size|limit)",
    r"(request|payload|prompt|input|string|tokens?)_(is_)?(too_(long|large)|limit_(reached|exceeded))",
    r"tokens_limit_reached|string_above_max_length",
    r"maximum (model|prompt|input|sequence|total|allowed( input)?) length|max_model_len",
    r"\b(input|prompt|request|messages?|query)\b[^.;]{0,80}"
    r"\b(exceed\w*|(longer|larger|greater|more) than)\b[^.;]{0,80}"
    r"\b(length|tokens?|maximum|limit|characters)",
    r"\b(input|prompt|request|messages?|content|conversation|text|body)\b[^.;]{0,60}"
    r"\btoo (long|large|big|many tokens)",
    r"inputs?\W+tokens? \+ \W?max_new_tokens",
    r"inputs?\W+must have less than",
    r"range of input length should be",
    r"reduce (the|your) (length|size|number of|amount of|message|input|prompt)",
    r"too large for model",
    r"tokens must be at least 1, got -",  # what is left of the context, by vLLM
    r"n_keep|tokens to keep from the initial prompt|trying to keep the first",
    r"requested tokens?\W[^.]{0,40}exceed",
    r"current length is \d+.{0,40}while limit is",
    r"(输入|上下文|提示词|prompt|token)[^.,;，。；]{0,20}(过长|超长|超出|超过|超限)|超[出过]\S{0,12}(长度|上下文|token)|长度超限",
)
MAYBE_TOO_LONG = _words(
    r"(?<!took )(?<!taking )(?<!takes )too long", r"too many (input )?tokens", r"too large"
)
# A limit on the answer, or another setting, is wrong for every prompt.
OF_A_SETTING = _words(
    r"max(imum)?_?(completion|new|output)?_?tokens",
    r"output tokens",
    r"'(user|name|model|stop)'",
    r"temperature",
)
OF_THE_PROMPT = _words(r"\b(context|prompts?|inputs?|messages?|request|content)\b")

FILTERED_CODES = _words(
    r"content_?(filter|polic|moderation)|data_?inspection|sensitive|moderation|prohibited_content",
    r"responsibleai|prompt_?blocked|invalid_prompt|safety|guardrail|flagged|censor|risk_?control",
    r"^(1301|1026|1027)$",  # Zhipu, MiniMax (input, output)
)
FILTERED = _words(
    r"content exists risk|high risk",
    r"inappropriate content|harmful content|unsafe (content|input|prompt)|prohibited (content|use)",
    r"sensitive (content|information|words?|topics?|data|\()|new_sensitive",
    r"content[ -](management|usage|safety)?\W?(polic|filter|moderation|guideline)",
    r"usage (polic|guideline)|safety (system|filter|setting|polic|reason|check|guideline)",
    r"(flagged|blocked|rejected|filtered) (by|as|for|due|because)|was flagged|moderation",
    r"violat\w+[^.]{0,60}(polic|guideline|terms|rules)",
    r"违规|违禁|敏感|不安全|内容安全|审核|风险",
)
TOOL_CALL = _words(
    r"tool_use_failed|tool call validation failed|attempted to call tool|malformed_function_call"
)
NO_FORM = _words(r"json_validate_failed|failed to generate json")
REFUSAL = _words(r"^refusal$")

# Of errors inside a 200 that name no status, by their code.
STATUS_BY_CODE = (
    *(("api_key", 401), ("authentication", 401), ("unauthori", 401), ("permission", 403)),
    *(("not_found", 404), ("notfound", 404), ("rate_limit", 429), ("overloaded", 529)),
    *(("server_error", 500), ("internal", 500), ("invalid_request", 400), ("badrequest", 400)),
    ("invalid_argument", 400),
)


def refusal(status: int, body: ErrorBody, after: float | None = None) -> Exception:
    """The error of an answer with ``status``: PassingError, RefusedPrompt, RefusedAll or NeedsStream.

    ``after``: seconds that the headers ask to wait. Status 200 is that of an error inside an answer.
    """
    inside = 200 <= status < 300
    reason = f"the answer holds an error: {body.message}" if inside else f"status {status}: {body.message}"
    if inside:
        status = body.status or _status_by_code(body.codes) or 0
        reason += f" (code {status})" if status and str(status) not in body.message else ""
    after = body.after if after is None else after
    words = body.words
    if status < 500 and STREAM_ONLY.search(words):
        return NeedsStream(reason)
    if status == 402 and "in_flight" in words:  # OpenRouter: other calls have reserved what is left
        return PassingError(reason, after)
    if status in (401, 402, 407) or WRONG_KEY.search(words):
        return RefusedAll(reason)
    if status < 500 and NO_MONEY.search(words) and not (status == 429 and RATE.search(words)):
        return RefusedAll(reason)
    cause = _cause(status, body)
    if cause:
        return RefusedPrompt(reason, cause)
    if status in PASSING or status >= 500 or (inside and (status == 0 or RATE.search(words))):
        return PassingError(reason, after)
    if STREAM_OPTIONS in words:
        return RefusedAll(reason)
    return RefusedAll(reason, certain=status not in (400, 403, 406, 413, 422, 451))


def _status_by_code(codes: list[str]) -> int | None:
    joined = " ".join(codes).lower()
    return next((status for code, status in STATUS_BY_CODE if code in joined), None)


def _cause(status: int, body: ErrorBody) -> str:
    """Why this one prompt is lost; "" when the error is not about one prompt."""
    words, codes = body.words, [code.lower() for code in body.codes]
    if status == 429:  # more tokens than any minute allows: no waiting helps
        return "too_long" if re.search(r"request too large|tokens must be reduced", words) else ""
    if status in (404, 405, 408, 410) or 300 <= status < 400:
        return ""
    if any(REFUSAL.search(code) for code in codes):
        return "refused"
    if TOOL_CALL.search(words):
        return "tool_call"
    if NO_FORM.search(words):
        return "unreadable"
    if status == 413 or _too_long(status, words):
        return "too_long"
    by_words = status < 500 and FILTERED.search(words)
    if body.flagged or by_words or any(FILTERED_CODES.search(code) for code in codes):
        return "" if ACCOUNT.search(words) else "filtered"
    return ""


def _too_long(status: int, words: str) -> bool:
    if RATE.search(words):
        return False
    if OF_A_SETTING.search(words) and not OF_THE_PROMPT.search(words) and "got -" not in words:
        return False
    if re.search(r"invalid '(?!messages|input|prompt)", words):
        return False
    if TOO_LONG.search(words):
        return True
    return status in (400, 422) and bool(MAYBE_TOO_LONG.search(words))
