"""Total parsers: any text gives a value or named defects, never an exception (decision D5).

They run in time linear in the length of the text. Full style::

    <think>...</think><progress>40</progress><action>push up</action>        acting
    <think>...</think><progress>                                             reflection
    step 1: 20
    step 2: 100
    </progress>

Compact style, for tiny models: ``p40 push up`` and ``t1 p20 t2 p100``. With ``report="after"`` progress
follows the action (decision D7): ``push up p40``.

A chat template may open ``<think>`` in the prompt, so a completion may begin inside the thought. A
``</think>`` with no ``<think>`` before it ends a thought that started at the first character.

Integers are ASCII digits, at most three of them, 0..100.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Literal, NamedTuple

from repro_rl.errors import ConfigError, did_you_mean

TAG = re.compile(r"<(/?)(think|progress|action)>")
_WORD = re.compile(r"\S+")
_STEP_LINE = re.compile(r"[Ss]tep\s+([0-9]+)\s*:(.*)")
_PROGRESS_WORD = re.compile(r"p[+-]?\d.*", re.DOTALL)  # counts as a progress report, valid or not
_STEP_WORD = re.compile(r"t[0-9]+")
_ORDER = {
    "before": {"think": 0, "progress": 1, "action": 2},
    "after": {"think": 0, "action": 1, "progress": 2},
}


@dataclass(frozen=True, slots=True)
class TextFormat:
    """What a completion looks like. Raises ConfigError for an unknown option."""

    style: Literal["full", "compact"] = "full"
    progress: bool = True  # whether a completion that acts reports q_t
    think: Literal["required", "optional", "off"] = "optional"  # full style only; compact has no thoughts
    report: Literal["before", "after"] = "before"  # q_t comes before or after the action

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("style", self.style, ("full", "compact")),
            ("think", self.think, ("required", "optional", "off")),
            ("report", self.report, ("before", "after")),
        ):
            if value not in choices:
                raise ConfigError(f"prompt.{name} is {value!r}{did_you_mean(str(value), choices)}")


class ActionParse(NamedTuple):
    """A parsed completion that acts."""

    action: str  # "" when there is none
    online: int | None  # q_t, 0..100; None when absent, invalid, ambiguous or not requested
    defects: tuple[str, ...]  # empty exactly when the text has the requested format
    action_start: int  # character offset of the action part, its tag included; len(text) without one
    action_end: int  # offset behind the action part; len(text) unless report="after" and there is one


class ReflectionParse(NamedTuple):
    """A parsed reflection: exactly one of the two fields is set."""

    values: tuple[int, ...] | None  # P_1..P_T, 0..100
    defects: tuple[str, ...]


class _Block(NamedTuple):
    """A tag with its content."""

    name: str  # think, progress or action
    content: str  # between the tags, stripped
    start: int  # offset of the opening tag
    end: int  # offset behind the closing tag


@dataclass(slots=True)
class _Scan:
    """The blocks of a full-style completion and the defects found so far."""

    blocks: list[_Block] = field(default_factory=list)  # in the order of the text
    defects: dict[str, None] = field(default_factory=dict)  # an ordered set

    def note(self, defect: str) -> None:
        self.defects[defect] = None

    def named(self, name: str) -> list[_Block]:
        return [block for block in self.blocks if block.name == name]


def _scan(text: str, fmt: TextFormat) -> _Scan:
    """Split a full-style completion into blocks, from left to right."""
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
                thought_open = True  # the rest may still hold a usable action
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
    _check_blocks(scan, fmt, thought_open)
    return scan


def _check_blocks(scan: _Scan, fmt: TextFormat, thought_open: bool) -> None:
    """Note defects of the number of thoughts and of the order of the blocks."""
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


def _integer(digits: str) -> int | str:
    """The value 0..100, or the name of what is wrong: "not_integer" or "out_of_range"."""
    if not (digits.isascii() and digits.isdigit()):
        return "not_integer"
    if len(digits) > 3 or int(digits) > 100:
        return "out_of_range"
    return int(digits)


def _progress(reports: list[str]) -> tuple[int | None, list[str]]:
    """The online progress of all reports in a completion, and the defect where there is none."""
    if len(reports) != 1:
        return None, ["duplicate_progress" if reports else "no_progress"]
    value = _integer(reports[0])
    return (value, []) if isinstance(value, int) else (None, [f"progress_{value}"])


def held_action(action: str, fmt: TextFormat) -> str:
    """An action as an answer holds it: stripped, in compact style with single spaces."""
    return " ".join(action.split()) if fmt.style == "compact" else action.strip()


def written_action(action: str, fmt: TextFormat, number: int | None, think: str = "") -> str:
    """An answer with this action and progress report, and ``think`` before both; see ``unreadable``."""
    action = held_action(action, fmt)
    if fmt.style == "compact":
        parts = [action] if number is None else [f"p{number}", action]
        return " ".join(parts if fmt.report == "before" else reversed(parts))
    report = "" if number is None else f"<progress>{number}</progress>"
    parts = [report, f"<action>{action}</action>"]
    return think + "".join(parts if fmt.report == "before" else reversed(parts))


def unreadable(action: str, fmt: TextFormat) -> str | None:
    """Why no answer can hold this action: what its text is read as; None: it is read as ``held_action``."""
    fmt = replace(fmt, think="optional")
    text = written_action(action, fmt, 50 if fmt.progress else None)
    parsed = parse_action(text, fmt)
    if parsed.action == held_action(action, fmt) and not parsed.defects:
        return None
    return (
        f"{text!r} is read as the action {parsed.action!r}, with {', '.join(parsed.defects) or 'no defect'}"
    )


def parse_action(text: str, fmt: TextFormat) -> ActionParse:
    """Read action and online progress. Never raises.

    A usable action is returned along with any defect. Of several action tags the last one counts. Several
    progress reports give None.

    Defects, full style: text_outside_tags, stray_tag, think_not_closed,
    unexpected_think, no_think, duplicate_think, wrong_order, progress_not_closed, action_not_closed,
    no_progress, unexpected_progress, duplicate_progress, progress_not_integer, progress_out_of_range,
    no_action, empty_action, duplicate_action. Compact style: no_progress, duplicate_progress,
    progress_not_integer, progress_out_of_range, no_action.
    """
    if fmt.style == "compact":
        return _action_compact(text, fmt)
    scan = _scan(text, fmt)
    reports, actions = scan.named("progress"), scan.named("action")
    online: int | None = None
    defects = ["unexpected_progress"] if reports else []
    if fmt.progress:
        online, defects = _progress([report.content for report in reports])
    scan.defects |= dict.fromkeys(defects)
    if not actions:
        scan.note("no_action")
        return ActionParse("", online, tuple(scan.defects), len(text), len(text))
    if len(actions) > 1:
        scan.note("duplicate_action")
    if not actions[-1].content:
        scan.note("empty_action")
    start, end = actions[-1].start, actions[-1].end if fmt.report == "after" else len(text)
    return ActionParse(actions[-1].content, online, tuple(scan.defects), start, end)


def _action_compact(text: str, fmt: TextFormat) -> ActionParse:
    """``p40 go to desk 1``, or ``go to desk 1 p40``: the action has single spaces between its words."""
    words = list(_WORD.finditer(text))
    defects: list[str] = []
    online: int | None = None
    reports = 0
    after = fmt.report == "after"
    if fmt.progress:
        ordered = [word[0] for word in (reversed(words) if after else words)]
        leading = list(takewhile(_PROGRESS_WORD.fullmatch, ordered))
        reports = len(leading)
        online, defects = _progress([word[1:] for word in leading])
    if reports == len(words):
        return ActionParse("", online, (*defects, "no_action"), len(text), len(text))
    acting = words[: len(words) - reports] if after else words[reports:]
    action = " ".join(word[0] for word in acting)
    end = acting[-1].end() if after else len(text)
    return ActionParse(action, online, tuple(defects), acting[0].start(), end)


def parse_reflection(text: str, fmt: TextFormat, length: int) -> ReflectionParse:
    """Read P_1..P_T, T = ``length``. With any defect there are no values (decision D8). Never raises.

    Defects: no_values, wrong_count, wrong_order, bad_value, out_of_range, bad_line (full), text_outside, and
    in full style those of thoughts, progress_not_closed and duplicate_progress.
    """
    defects: dict[str, None] = {}
    pairs: list[tuple[str, str]] = []  # (step number, value) as written
    if fmt.style == "compact":
        _pairs_compact(text, pairs, defects)
    else:
        _pairs_full(text, fmt, pairs, defects)
    values = [_integer(value) for _, value in pairs]
    checks = {
        "no_values": not pairs or length < 1,
        "wrong_count": bool(pairs) and 1 <= length != len(pairs),
        "wrong_order": any(number.lstrip("0") != str(t) for t, (number, _) in enumerate(pairs, 1)),
        "bad_value": "not_integer" in values,
        "out_of_range": "out_of_range" in values,
    }
    defects |= {name: None for name, wrong in checks.items() if wrong}
    if defects:
        return ReflectionParse(None, tuple(defects))
    return ReflectionParse(tuple(value for value in values if isinstance(value, int)), ())


def _pairs_full(text: str, fmt: TextFormat, pairs: list[tuple[str, str]], defects: dict[str, None]) -> None:
    """Append (step number, value) as written to ``pairs``, and defects to ``defects``."""
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
    """As ``_pairs_full``; a step word without a value gets the value "?", which is not an integer."""
    step = ""
    for word in text.split():
        if step and not _STEP_WORD.fullmatch(word):
            pairs.append((step[1:], word[1:] if word[0] == "p" else "?"))
            step = ""
        elif _STEP_WORD.fullmatch(word):
            if step:
                pairs.append((step[1:], "?"))
            step = word
        else:
            defects["text_outside"] = None
    if step:
        pairs.append((step[1:], "?"))
