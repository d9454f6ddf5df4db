"""One entry to every policy loss: ragged rows of numbers in by name; value and gradient out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from numbers import Real
from typing import Any, get_args

import torch

from repro_rl.errors import ConfigError, UnknownNameError, clause, did_you_mean
from repro_rl.losses.aggregation import MODES, aggregate
from repro_rl.losses.distill import gated_distillation, signed_distillation
from repro_rl.losses.functions import functions_of
from repro_rl.losses.kl import FORMS, kl_estimate
from repro_rl.losses.named import LOSS_NAMES
from repro_rl.losses.settings import OWN, DistillSection, LossSection, SignedForm
from repro_rl.losses.tokens import LossTokens
from repro_rl.settings import S, checked
from repro_rl.types import LOG_PROB_ROUNDING

Rows = Sequence[Sequence[float]]

SIGNED: tuple[SignedForm, ...] = get_args(SignedForm)  # forms of opid


class _Case:
    """Rows of a call, flat and back again; names that were not used are refused."""

    def __init__(self, name: str, inputs: Mapping[str, Any], settings: Mapping[str, Any]):
        self.name, self.inputs, self.settings = name, dict(inputs), dict(settings)
        self.lengths: list[int] | None = None

    def flat(self, name: str, gradient: bool = False) -> torch.Tensor:
        """[T] float64 of an input of ragged rows; a row may be empty.

        Raises ConfigError for what is no rows of finite numbers. So it does for a log-prob that is above 0 by
        more than rounding; row and token in the message count from 0.
        """
        if name not in self.inputs:
            raise ConfigError(f"{self.name} needs the input {name!r}.")
        rows: Rows = self.inputs.pop(name)
        try:
            lengths = [len(row) for row in rows]
        except TypeError as error:
            raise ConfigError(f"{self.name}: {name} must be a list of rows: {clause(error)}.") from error
        if self.lengths is not None and lengths != self.lengths:
            raise ConfigError(f"{self.name}: the rows of {name} have other lengths than those before.")
        self.lengths = lengths
        try:
            given = [value for row in rows for value in row]
            if any(isinstance(value, str | bytes) for value in (*rows, *given)):
                raise TypeError("there is text in them")
            values = [float(value) for value in given]
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{self.name}: {name} must be rows of numbers: {clause(error)}.") from error
        for index, value in enumerate(values):
            if not math.isfinite(value):
                wrong = "which is not finite"
            elif name.endswith("log_prob") and value > LOG_PROB_ROUNDING:
                wrong = "which is no log-prob"
            else:
                continue
            raise ConfigError(f"{self.name}: {name}{_place(index, lengths)} holds {value!r}, {wrong}.")
        return torch.tensor(values, dtype=torch.float64, requires_grad=gradient)

    def rows_of(self, values: torch.Tensor) -> list[list[float]]:
        """N lists of numbers from [T]."""
        flat, ends = values.detach().tolist(), list(accumulate(self.lengths or []))
        return [flat[end - size : end] for end, size in zip(ends, self.lengths or [], strict=True)]

    @property
    def row(self) -> torch.Tensor:
        """[T], the row of each token."""
        lengths = torch.tensor(self.lengths or [], dtype=torch.int64)
        return torch.repeat_interleave(torch.arange(len(lengths)), lengths)

    def setting(self, name: str, otherwise: Any) -> Any:
        return self.settings.pop(name, otherwise)

    def section(self, kind: type[S], **fixed: Any) -> S:
        """The settings that ``kind`` has, with those ``fixed``. Raises ConfigError.

        What ``result`` asks for stays in ``settings``.
        """
        names = [name for name in self.settings if name in kind.model_fields and name not in fixed]
        found = checked(kind, self.name, {name: self.settings[name] for name in names} | fixed)
        for name in set(names) - {"aggregation", "scale"}:
            del self.settings[name]
        return found

    def distillation(self, form: str, names: tuple[str, ...]) -> DistillSection:
        """The settings ``names`` of one form of self-distillation. Raises ConfigError for its other settings.

        Those say when a run's loss counts and what its teacher reads; in a call the inputs decide that.
        """
        for name in DistillSection.model_fields:
            if name in self.settings and name not in names:
                raise ConfigError(f"{self.name}: the setting {name!r} has no effect on a call's numbers.")
        return self.section(DistillSection, form=form)

    def check_scale(self, scale: Any) -> None:
        """Raises ConfigError for a ``scale`` that is given and no number above 0."""
        if scale is not None and not (isinstance(scale, Real) and 0 < float(scale) < math.inf):
            raise ConfigError(f"{self.name}: scale is {scale!r}; it must be a number of tokens above 0.")

    def done(self) -> None:
        """Raises ConfigError for inputs and settings that nothing has read."""
        for kind, left in (("input", self.inputs), ("setting", self.settings)):
            if left:
                raise ConfigError(f"{self.name}: unknown {kind} {', '.join(left)}.")

    def result(self, losses: torch.Tensor, at: torch.Tensor, row: torch.Tensor) -> dict[str, Any]:
        """The aggregated loss and its gradient by ``at`` [T]."""
        published = None if self.name in OTHERS else LOSS_NAMES.get(self.name)
        mode = self.setting("aggregation", "token-mean" if published is None else published.aggregation)
        scale = self.setting("scale", None)
        self.check_scale(scale)
        if scale is not None and mode != "seq-mean-token-sum-norm":
            raise ConfigError(f"{self.name}: scale has no effect with aggregation {mode!r}.")
        loss = aggregate(losses, row, mode, scale)
        self.done()
        gradient = torch.autograd.grad(loss, at, allow_unused=True)[0] if loss.requires_grad else None
        return {
            "loss": float(loss.detach()),
            "gradient": self.rows_of(torch.zeros_like(at) if gradient is None else gradient),
        }


def _place(index: int, lengths: Sequence[int]) -> str:
    """Row and token, each from 0, of a flat index into rows of these lengths: "[1][0]"."""
    row, before = 0, 0
    while index >= before + lengths[row]:
        before += lengths[row]
        row += 1
    return f"[{row}][{index - before}]"


def evaluate(name: str, settings: Mapping[str, Any] | None = None, **inputs: Any) -> dict[str, Any]:
    """A policy loss on given log-probs. Returns "loss" and "gradient" (by ``log_prob``), and further figures.

    ``name``: ppo_clip, cispo, gspo, sapo, dppo_tv, dppo_kl, a registered one, gated_distillation, opid,
    loss_aggregation or kl_estimators. Inputs are ragged rows of tokens, lists of lists: log_prob,
    old_log_prob, advantages, teacher_log_prob, ref_log_prob, token_losses; ``rows_used``: one bool a row.
    Losses are minimised. A setting that is missing is as in the loss's source (``losses.named.PUBLISHED``); a
    missing aggregation is token-mean, of gspo and sapo seq-mean-token-mean. The further settings of a
    registered loss are given by their names.

    ppo_clip without ``dual_clip`` has no dual clip: a departure from verl, which takes 3 (decision D57).

    loss_aggregation returns one loss a mode; kl_estimators "value" and "gradient" of each form.
    Raises UnknownNameError for an unknown loss, ConfigError for unknown, missing or wrong inputs and
    settings.
    """
    functions = {**dict.fromkeys(LOSS_NAMES, _policy), **OTHERS}
    if name not in functions:
        raise UnknownNameError(f"Unknown loss {name!r}{did_you_mean(name, functions)}")
    return functions[name](_Case(name, inputs, settings or {}))


def _policy(case: _Case) -> dict[str, Any]:
    further = {name for name in LOSS_NAMES.get(case.name).settings if name not in OWN}
    given = {name: case.settings.pop(name) for name in further & set(case.settings)}
    how = case.section(LossSection, name=case.name, settings=given)
    log_prob = case.flat("log_prob", gradient=True)
    tokens = LossTokens(log_prob, case.flat("old_log_prob"), case.flat("advantages"), case.row)
    return case.result(functions_of(case.name).loss(tokens, **how.values()), log_prob, tokens.row)


def _used(case: _Case) -> torch.Tensor:
    """[T] bool, tokens of rows that count."""
    count = len(case.lengths or [])
    rows = case.inputs.pop("rows_used", [True] * count)
    if isinstance(rows, str) or any(isinstance(value, str) for value in rows):
        raise ConfigError(f"{case.name}: rows_used must hold True or False for each row, not text.")
    if len(rows) != count:
        raise ConfigError(f"{case.name}: rows_used has {len(rows)} entries for {count} rows.")
    if wrong := [value for value in rows if value not in (0, 1)]:
        raise ConfigError(
            f"{case.name}: rows_used holds {wrong[0]!r}; it must be True or False for each row."
        )
    return torch.tensor([bool(value) for value in rows], dtype=torch.bool)[case.row]


def _gated(case: _Case) -> dict[str, Any]:
    log_prob, teacher = case.flat("log_prob", gradient=True), case.flat("teacher_log_prob")
    used, row = _used(case), case.row
    how = case.distillation("gated", ("gate_beta",))
    losses, gate = gated_distillation(log_prob, teacher, gate_beta=how.slope)
    gap = (teacher - log_prob).detach()[used]
    count = max(len(gap), 1)
    return {
        **case.result(losses[used], log_prob, row[used]),
        "gate_mean": float(gate[used].sum()) / count,
        "gap_mean": float(gap.sum()) / count,
    }


def _opid(case: _Case) -> dict[str, Any]:
    log_prob = case.flat("log_prob", gradient=True)
    old, teacher = case.flat("old_log_prob"), case.flat("teacher_log_prob")
    used = _used(case)
    weight = case.setting("weight", SIGNED[0])
    if weight not in SIGNED:
        raise ConfigError(f"opid: unknown weight {weight!r}{did_you_mean(str(weight), SIGNED)}")
    how = case.distillation(weight, ("clip",))
    losses = signed_distillation(log_prob, old, teacher, weight=how.form, clip=how.clip)
    return case.result(losses[used], log_prob, case.row[used])


def _aggregation(case: _Case) -> dict[str, Any]:
    losses, scale = case.flat("token_losses"), case.setting("scale", None)
    case.check_scale(scale)
    case.done()
    modes = [mode for mode in MODES if scale is not None or mode != "seq-mean-token-sum-norm"]
    return {mode: float(aggregate(losses, case.row, mode, scale)) for mode in modes}


def _kl(case: _Case) -> dict[str, Any]:
    log_prob, reference = case.flat("log_prob", gradient=True), case.flat("ref_log_prob")
    case.done()
    result: dict[str, Any] = {}
    for form in FORMS:
        value = kl_estimate(form, log_prob, reference)
        (gradient,) = torch.autograd.grad(value.sum(), log_prob)
        result[form] = {"value": case.rows_of(value), "gradient": case.rows_of(gradient)}
    return result


OTHERS: dict[str, Callable[[_Case], dict[str, Any]]] = {
    "gated_distillation": _gated,
    "opid": _opid,
    "loss_aggregation": _aggregation,
    "kl_estimators": _kl,
}
