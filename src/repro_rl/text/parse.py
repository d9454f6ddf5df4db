"""Total parsers: any text gives a value or named defects, never an exception, in time linear in its length.

Full style (METHOD, our decision on the details)::

    <think>...</think><progress>40</progress><action>push up</action>        forward
    <think>...</think><progress>                                             reflection
    step 1: 20
    step 2: 100
    </progress>

Compact style, for tiny models: ``p40 push up`` and ``t1 p20 t2 p100``. With ``report`` "after" a forward
completion reports progress behind its action: ``push up p40``.

A chat template may open ``<think>`` in the prompt, so a completion may begin inside the thought: a
``</think>`` with no ``<think>`` before it ends a thought that started at the first character.

Integers are ASCII digits, at most three of them, 0..100.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from repro_rl.errors import ConfigError, did_you_mean

TAG = re.compile(r"<(/?)(think|progress|action)>")
_WORD = re.compile(r"\S+")
_STEP_LINE = re.compile(r"[Ss]tep\s+([0-9]+)\s*:(.*)")
_PROGRESS_WORD = re.compile(r"p[+-]?\d.*", re.DOTALL)  # meant as progress, right or wrong
_TURN_WORD = re.compile(r"t[0-9]+")
_ORDER = {
    "before": {"think": 0, "progress": 1, "action": 2},
    "after": {"think": 0, "action": 1, "progress": 2},
}


@dataclass(frozen=True, slots=True)
class TextFormat:
    """What a completion looks like. Raises ConfigError for an unknown option."""

    style: Literal["full", "compact"] = "full"
    progress: bool = True  # the forward completion reports q_t
    think: Literal["required", "optional", "off"] = "optional"  # full style only; compact has no thoughts
    report: Literal["before", "after"] = "before"  # where q_t stands: in front of the action or behind it

    def __post_init__(self) -> None:
        for name, value, known in (
            ("style", self.style, ("full", "compact")),
            ("think", self.think, ("required", "optional", "off")),
            ("report", self.report, ("before", "after")),
        ):
            if value not in known:
                raise ConfigError(f"text.{name} is {value!r}{did_you_mean(str(value), known)}")


class ForwardParse(NamedTuple):
    """A parsed forward completion."""

    action: str  # "" when there is none
    online: int | None  # q_t, 0..100; None when absent, broken, ambiguous or not asked for
    defects: tuple[str, ...]  # empty exactly when the text has the format asked for
    action_start: int  # character offset of the action part; len(text) when there is none
    action_end: int  # where a report behind the action may begin; len(text) when there is none


class ReflectionParse(NamedTuple):
    """A parsed reflection: exactly one of the two fields is set."""

    values: tuple[int, ...] | None  # P_1..P_T, 0..100
    defects: tuple[str, ...]


class _Block(NamedTuple):
    name: str
    content: str  # stripped
    start: int  # offset of the opening tag
    end: int  # offset behind the closing tag


@dataclass(slots=True)
class _Scan:
    blocks: list[_Block] = field(default_factory=list)
    defects: dict[str, None] = field(default_factory=dict)  # an ordered set

    def note(self, defect: str) -> None:
        self.defects[defect] = None

    def named(self, name: str) -> list[_Block]:
        return [block for block in self.blocks if block.name == name]


def _scan(text: str, fmt: TextFormat) -> _Scan:
    """Split a full-style completion into blocks, left to right; check thoughts and order."""
    scan, position, thought_open = _Scan(), 0, False
    close = text.find("</think>")
    if close >= 0 and text.find("<think>", 0, close) < 0:
        position = close + len("</think>")
        scan.blocks.append(_Block("think", text[:close].strip(), 0, position))
    while True:
        match = TAG.search(text, position)
        gap = text[position : match.start() if match else len(text)]
        if not thought_open and gap.strip():
            scan.note("text_outside_tags")
        if match is None:
            break
        position, name = match.end(), match[2]
        if match[1]:
            scan.note("stray_tag")
        elif name == "think":
            close = -1 if thought_open else text.find("</think>", position)
            if close < 0:
                thought_open = True  # what follows may still hold a usable action
                scan.note("think_not_closed")
            else:
                content = text[position:close].strip()
                position = close + len("</think>")
                scan.blocks.append(_Block(name, content, match.start(), position))
        else:
            after = TAG.search(text, position)
            stop = after.start() if after else len(text)
            content = text[position:stop].strip()
            if after and after[0] == f"</{name}>":
                position = after.end()
            else:
                scan.note(f"{name}_not_closed")
                position = stop
            scan.blocks.append(_Block(name, content, match.start(), position))
    thoughts = len(scan.named("think"))
    if fmt.think == "off" and (thoughts or thought_open):
        scan.note("unexpected_think")
    if fmt.think == "required" and not thoughts and not thought_open:
        scan.note("no_think")
    if thoughts > 1:
        scan.note("duplicate_think")
    ranks = [_ORDER[fmt.report][block.name] for block in scan.blocks]
    if ranks != sorted(ranks):
        scan.note("wrong_order")
    return scan


def _integer(digits: str) -> int | str:
    """The value 0..100, or the name of what is wrong: "not_integer" or "out_of_range"."""
    if not (digits.isascii() and digits.isdigit()):
        return "not_integer"
    if len(digits) > 3 or int(digits) > 100:
        return "out_of_range"
    return int(digits)


def parse_forward(text: str, fmt: TextFormat) -> ForwardParse:
    """Read action and online progress. Never raises.

    A usable action is returned beside any defect; of several action tags the last one counts. Several
    progress reports give None. Defects, full style: text_outside_tags, stray_tag, think_not_closed,
    unexpected_think, no_think, duplicate_think, wrong_order, progress_not_closed, action_not_closed,
    no_progress, unexpected_progress, duplicate_progress, progress_not_integer, progress_out_of_range,
    no_action, empty_action, duplicate_action. Compact style: no_progress, duplicate_progress,
    progress_not_integer, progress_out_of_range, no_action.
    """
    if fmt.style == "compact":
        return _forward_compact(text, fmt)
    scan = _scan(text, fmt)
    reports, actions = scan.named("progress"), scan.named("action")
    online: int | None = None
    if not fmt.progress:
        if reports:
            scan.note("unexpected_progress")
    elif len(reports) == 1:
        value = _integer(reports[0].content)
        if isinstance(value, int):
            online = value
        else:
            scan.note(f"progress_{value}")
    else:
        scan.note("duplicate_progress" if reports else "no_progress")
    if not actions:
        scan.note("no_action")
        return ForwardParse("", online, tuple(scan.defects), len(text), len(text))
    if len(actions) > 1:
        scan.note("duplicate_action")
    if not actions[-1].content:
        scan.note("empty_action")
    start, end = actions[-1].start, actions[-1].end if fmt.report == "after" else len(text)
    return ForwardParse(actions[-1].content, online, tuple(scan.defects), start, end)


def _forward_compact(text: str, fmt: TextFormat) -> ForwardParse:
    """``p40 go to desk 1``, or ``go to desk 1 p40``: the action has single spaces between its words."""
    words = list(_WORD.finditer(text))
    defects: list[str] = []
    online: int | None = None
    reports = 0
    after = fmt.report == "after"
    if fmt.progress:
        for word in reversed(words) if after else words:
            if not _PROGRESS_WORD.fullmatch(word[0]):
                break
            reports += 1
        if reports == 1:
            value = _integer(words[-1 if after else 0][0][1:])
            if isinstance(value, int):
                online = value
            else:
                defects.append(f"progress_{value}")
        else:
            defects.append("duplicate_progress" if reports else "no_progress")
    if reports == len(words):
        return ForwardParse("", online, (*defects, "no_action"), len(text), len(text))
    acting = words[: len(words) - reports] if after else words[reports:]
    action = " ".join(word[0] for word in acting)
    end = acting[-1].end() if after else len(text)
    return ForwardParse(action, online, tuple(defects), acting[0].start(), end)


def parse_reflection(text: str, fmt: TextFormat, length: int) -> ReflectionParse:
    """Read P_1..P_T, T = ``length``. Strict: with any defect there are no values. Never raises.

    Defects: no_values, wrong_count, wrong_order, bad_value, out_of_range, bad_line (full), text_outside, and
    in full style those on thoughts, progress_not_closed and duplicate_progress.
    """
    defects: dict[str, None] = {}
    pairs: list[tuple[str, str]] = []  # (step number, value) as written
    if fmt.style == "compact":
        _pairs_compact(text, pairs, defects)
    else:
        _pairs_full(text, fmt, pairs, defects)
    values = [_integer(value) for _, value in pairs]
    if not pairs or length < 1:
        defects["no_values"] = None
    elif len(pairs) != length:
        defects["wrong_count"] = None
    if any(number.lstrip("0") != str(t) for t, (number, _) in enumerate(pairs, 1)):
        defects["wrong_order"] = None
    if "not_integer" in values:
        defects["bad_value"] = None
    if "out_of_range" in values:
        defects["out_of_range"] = None
    if defects:
        return ReflectionParse(None, tuple(defects))
    return ReflectionParse(tuple(value for value in values if isinstance(value, int)), ())


def _pairs_full(text: str, fmt: TextFormat, pairs: list[tuple[str, str]], defects: dict[str, None]) -> None:
    scan = _scan(text, fmt)
    outside = ("text_outside_tags", "stray_tag", "action_not_closed")
    for name in scan.defects:
        defects["text_outside" if name in outside else name] = None
    if scan.named("action"):
        defects["text_outside"] = None
    blocks = scan.named("progress")
    if len(blocks) > 1:
        defects["duplicate_progress"] = None
    for line in blocks[-1].content.splitlines() if blocks else ():
        match = _STEP_LINE.fullmatch(line.strip())
        if match:
            pairs.append((match[1], match[2].strip()))
        elif line.strip():
            defects["bad_line"] = None


def _pairs_compact(text: str, pairs: list[tuple[str, str]], defects: dict[str, None]) -> None:
    turn = ""
    for word in text.split():
        if turn and not _TURN_WORD.fullmatch(word):
            pairs.append((turn[1:], word[1:] if word[0] == "p" else "?"))
            turn = ""
        elif _TURN_WORD.fullmatch(word):
            if turn:
                pairs.append((turn[1:], "?"))
            turn = word
        else:
            defects["text_outside"] = None
    if turn:
        pairs.append((turn[1:], "?"))
