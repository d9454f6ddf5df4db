"""Policy losses by name; no torch. A package adds its own with ``@register_loss``, or as an entry point."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from repro_rl.errors import ConfigError
from repro_rl.function_settings import keyword_settings, parameters_of
from repro_rl.registry import Registry

Aggregation = Literal[
    "token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm", "token-sum"
]
Function = TypeVar("Function", bound=Callable[..., Any])

FURTHER = "train.loss.settings"  # where a run gives the settings of a registered loss
SECTION = ("name", "aggregation", "scale", "settings")  # of ``train.loss``; no loss has a setting like them
RESERVED = ("gated_distillation", "opid", "loss_aggregation", "kl_estimators")  # of ``losses.evaluate``


@dataclass(slots=True, frozen=True)
class PolicyLoss:
    """A policy loss, and what it says of itself."""

    settings: Mapping[str, Any]  # that it reads, with its source's values; others are refused
    about: str = ""  # one line, for `repro-rl list losses`; of a user's own, its docstring says it
    aggregation: Aggregation = "token-mean"  # of its source, where that needs no constant
    function: Callable[..., Any] | None = None  # None: of this package, in ``losses.functions``
    clipped: Callable[..., Any] | None = None  # see ``register_loss``; None: no token is

    @classmethod
    def of(cls, loss: Callable[..., Any] | PolicyLoss) -> PolicyLoss:
        """``loss`` itself, or a function that says nothing, as an entry point may announce it."""
        if isinstance(loss, PolicyLoss):
            return loss
        return cls(settings_of(getattr(loss, "__name__", repr(loss)), loss), function=loss)


LOSS_NAMES: Registry[PolicyLoss] = Registry(
    "policy loss", group="repro_rl.losses", record=PolicyLoss.of, setting="train.loss.name"
)

PUBLISHED: dict[str, PolicyLoss] = {  # those of this package
    "ppo_clip": PolicyLoss(
        {"clip_low": 0.2, "clip_high": 0.2, "dual_clip": None},
        "PPO's clipped ratio of each token (arXiv 1707.06347), with clip-higher and dual clip",
    ),
    "cispo": PolicyLoss(
        {"clip_low": 10.0, "clip_high": 0.2},
        "the clipped ratio only weighs the gradient, so no token loses its own (arXiv 2506.13585)",
    ),
    "gspo": PolicyLoss(
        {"clip_low": 3e-4, "clip_high": 4e-4},
        "one ratio an answer, clipped as a whole (arXiv 2507.18071)",
        "seq-mean-token-mean",
    ),
    "sapo": PolicyLoss(
        {"tau_pos": 1.0, "tau_neg": 1.05},
        "a soft gate in place of the clip (arXiv 2511.20347)",
        "seq-mean-token-mean",
    ),
    "dppo_tv": PolicyLoss(
        {"clip_low": 0.15, "clip_high": 0.15, "ratio_cap": 20.0},
        "tokens are masked by the total variation between the policies (arXiv 2602.04879)",
    ),
    "dppo_kl": PolicyLoss(
        {"clip_low": 0.05, "clip_high": 0.05, "ratio_cap": 20.0},
        "tokens are masked by the KL divergence between the policies (arXiv 2602.04879)",
    ),
}
for _name, _loss in PUBLISHED.items():
    LOSS_NAMES.register(_name, _loss)


def register_loss(name: str, clipped: Callable[..., Any] | None = None) -> Callable[[Function], Function]:
    """Decorator: add a policy loss under ``name``, for ``train.loss.name`` and ``losses.evaluate``.

    A loss is a function ``(tokens, *, SETTING=VALUE, ...)`` of ``losses.LossTokens`` to the loss of each
    token, a tensor [T] with a gradient by ``tokens.log_prob``. It must be linear in the advantages of one
    sign, since equal samples are merged and their advantages summed (decision D55).

    Its keyword-only parameters are its settings, each with a default. Those with the names of bounds in
    ``train.loss``, such as ``clip_low``, are given there; all others in ``train.loss.settings``.
    ``clipped``: a function of the same form to [T] bool, the tokens that a bound holds, for the metric
    ``update/clip_fraction``. Raises ConfigError when the name is taken, and for a function of another form.
    """
    if name in RESERVED:
        raise ConfigError(
            f"policy loss {name!r}: losses.evaluate has that name already; choose another name."
        )

    def add(loss: Function) -> Function:
        settings = settings_of(name, loss)
        if clipped is not None and (found := settings_of(name, clipped)) != settings:
            raise ConfigError(
                f"The policy loss {name!r} has the settings {_written(settings)}, but its clipped has "
                f"{_written(found)}; give both the same."
            )
        LOSS_NAMES.register(name, PolicyLoss(settings, function=loss, clipped=clipped))
        return loss

    return add


def settings_of(name: str, function: Callable[..., Any]) -> dict[str, Any]:
    """The keyword-only parameters of a loss called ``name``, with their defaults.

    Raises ConfigError for a function that is not ``(tokens, *, SETTING=VALUE, ...)``.
    """
    owner = owner_of(name)
    parameters = parameters_of(owner, function)
    others = [p for p in parameters if p.kind is not p.KEYWORD_ONLY]
    if len(others) != 1 or others[0].kind in (others[0].VAR_POSITIONAL, others[0].VAR_KEYWORD):
        raise ConfigError(
            f"{owner} must take (tokens, *, SETTING=VALUE, ...); it takes "
            f"({', '.join(map(str, parameters))})."
        )
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name in SECTION:
            raise ConfigError(
                f"{owner} has a setting {parameter.name!r}, which is one of train.loss itself; choose "
                "another name."
            )
    return keyword_settings(owner, function, FURTHER)


def owner_of(name: str) -> str:
    """What messages call a loss."""
    return f"The policy loss {name!r}"


def _written(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in settings.items()) or "none"
