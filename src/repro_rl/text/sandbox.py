"""Prompt templates are data: they are rendered in jinja2's sandbox, and within limits.

The sandbox keeps a template from Python's internals, so it cannot run code, open files or read the
environment. Time and memory are not limited by jinja2 itself. Here the steps of a rendering are limited
(passes of loops, calls, tests). So is the length of a text or list that a template multiplies or joins.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_STEPS = 1_000_000  # of one rendering; a prompt of a long episode takes some thousands
MAX_LENGTH = 10_000_000  # characters or items of a value that a template makes
MAX_DIGITS = 1_000  # of a power

WIDENING = ("center", "indent", "format", "batch", "slice")  # filters that make a value longer
WIDE = re.compile("[0-9]{6,}")  # a width in a format

_steps: ContextVar[int] = ContextVar("steps", default=0)  # left in the rendering under way


class TemplateLimitError(Exception):
    """A template does more than any prompt needs."""


class PromptEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox for the templates in ``folders``, the first of which has precedence."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self, folders: list[Path]):
        super().__init__(
            loader=jinja2.FileSystemLoader(folders),
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            autoescape=False,
            auto_reload=False,
        )
        del self.globals["lipsum"]  # made for demonstrations, and slow
        for name in WIDENING:
            self.filters[name] = _bounded(self.filters[name])
        self.filters["_counted"] = _counted
        self.filters["_joined"] = _joined

    def compile(self, source: Any, *args: Any, **kwargs: Any) -> Any:
        """As jinja2's, but loops are counted and joined texts bounded."""
        if isinstance(source, str):
            name, filename = (*args, None, None)[:2]
            source = _Limits().visit(
                self.parse(source, kwargs.get("name", name), kwargs.get("filename", filename))
            )
        return super().compile(source, *args, **kwargs)

    def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Every call of a template, macros included."""
        _step()
        method = getattr(obj, "__wrapped__", obj)  # jinja2 wraps str.format
        text = getattr(method, "__self__", None)
        if isinstance(text, str):  # a method of a text, such as center or format
            _check_widths(text, (*args, *kwargs.values()))
        return super().call(context, obj, *args, **kwargs)  # type: ignore[misc]  # context goes by position

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Every +, *, ** and % of a template."""
        _step()
        if operator == "**" and _too_large(left, right):
            raise TemplateLimitError(f"a power of more than {MAX_DIGITS} digits")
        if operator == "*":
            for many, count in ((left, right), (right, left)):
                if isinstance(many, str | list | tuple) and isinstance(count, int):
                    _check_length(len(many) * count)
        if operator == "+" and isinstance(left, str | list | tuple):
            _check_length(len(left) + len(right))
        if operator == "%" and isinstance(left, str):
            _check_widths(left, right if isinstance(right, tuple) else (right,))
        return super().call_binop(context, operator, left, right)


def render(template: jinja2.Template, variables: dict[str, Any]) -> str:
    """The text of a template of ``PromptEnvironment``. Raises whatever it raises."""
    token = _steps.set(MAX_STEPS)
    try:
        text = template.render(variables)
    finally:
        _steps.reset(token)
    _check_length(len(text))
    return text


class _Limits(NodeTransformer):
    """Puts ``_counted`` around what a loop goes through, and ``_joined`` in the place of ``~``."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        assert isinstance(node.iter, nodes.Expr)  # jinja2 declares it as any node
        node.iter = _filtered(node.iter, "_counted", node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "_joined", node.lineno)


def _filtered(node: nodes.Expr, name: str, lineno: int) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=lineno)


def _counted(values: Iterable[Any]) -> Iterator[Any]:
    """``values``, each of them a step."""
    for value in values:
        _step()
        yield value


def _joined(parts: Iterable[Any]) -> str:
    """``parts`` as one text, of a limited length."""
    texts = [str(part) for part in parts]
    _check_length(sum(map(len, texts)))
    return "".join(texts)


def _step() -> None:
    left = _steps.get() - 1
    if left < 0:
        raise TemplateLimitError(f"more than {MAX_STEPS:,} steps; does a loop never end?")
    _steps.set(left)


def _check_length(length: int) -> None:
    if length > MAX_LENGTH:
        raise TemplateLimitError(f"a value of more than {MAX_LENGTH:,} characters or items")


def _check_widths(text: object, arguments: Iterable[Any]) -> None:
    """A text may be given a width by a number, or by the digits of a format."""
    for argument in arguments:
        if isinstance(argument, int):
            _check_length(argument)
    if isinstance(text, str) and ("%" in text or "{" in text) and WIDE.search(text):
        raise TemplateLimitError("a format with a width of more than five digits")


def _bounded(filter_: Callable[..., Any]) -> Callable[..., Any]:
    """A filter of jinja2 that checks its arguments first."""

    @wraps(filter_)  # also the marks that say what jinja2 is to pass to it
    def checked(*args: Any, **kwargs: Any) -> Any:
        _step()
        for text in args:
            _check_widths(text, (*args, *kwargs.values()))
        return filter_(*args, **kwargs)

    return checked


def _too_large(base: Any, exponent: Any) -> bool:
    """Whether a power of integers has more than ``MAX_DIGITS`` digits."""
    if not (isinstance(base, int) and isinstance(exponent, int)):
        return False
    return exponent > 0 and base.bit_length() * exponent > 4 * MAX_DIGITS
