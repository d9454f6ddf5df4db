"""Credit rules by name. A package adds its own with ``@register_credit``, or as an entry point."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeVar

from repro_rl.credit.inputs import CreditInputs
from repro_rl.errors import ConfigError, did_you_mean
from repro_rl.function_settings import check_keyword_only, keyword_settings, parameters_of
from repro_rl.registry import Registry

Rewards = Sequence[Sequence[float]]  # N trajectories of T_n step rewards
Anchors = Sequence[Sequence[Hashable]]  # N trajectories of T_n state keys
Groups = Sequence[Hashable]  # [N], equal for the rollouts of one task
Returns = Sequence[float] | None  # [N] episode returns; None: the sums of the rewards
Rule = TypeVar("Rule", bound=Callable[..., Any])
RewardPart = Literal["steps", "episode"]  # rewards of single steps; the return of the whole episode
BOTH: tuple[RewardPart, ...] = ("steps", "episode")

# Settings that recipes give for every method; a rule says which of them it does not read.
SHARED: tuple[str, ...] = ("gamma", "omega", "normalize", "episode_baseline")
INPUTS = tuple(f.name for f in fields(CreditInputs) if f.name not in ("rule", "details"))
OWN = "method.credit_settings"  # where a run gives the settings of a registered rule
CLASSIC = ("rewards", "groups", "anchors", "settings", "episode_returns")


@dataclass(slots=True, frozen=True)
class CreditRule:
    """A rule, and what it says of itself to ``register_credit``, which explains each field."""

    function: Callable[..., Any]  # in one of the two forms
    published: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()  # some of INPUTS
    paid_by: tuple[RewardPart, ...] = BOTH
    ignores: tuple[str, ...] = ()  # some of SHARED

    @classmethod
    def of(cls, rule: Callable[..., Any] | CreditRule) -> CreditRule:
        """``rule`` itself, or a function that says nothing, as an entry point may announce it."""
        return rule if isinstance(rule, CreditRule) else cls(rule)

    @property
    def shipped(self) -> bool:
        """Whether it is of this package."""
        return str(getattr(self.function, "__module__", "")).startswith("repro_rl.")


CREDIT: Registry[CreditRule] = Registry(
    "credit rule", group="repro_rl.credit", record=CreditRule.of, setting="method.credit"
)


def register_credit(
    name: str,
    published: Mapping[str, Any] | None = None,
    needs: Sequence[str] = (),
    paid_by: Sequence[RewardPart] = BOTH,
    ignores: Sequence[str] = (),
) -> Callable[[Rule], Rule]:
    """Decorator: add a rule under ``name``; ``published``: settings of its source, for ``advantages``.

    ``needs``: inputs that cost something to have, so that settings and training know of them
    ("hindsight_log_prob", "judged"), of a rule of the first form. ``paid_by``: the rewards that reach its
    advantages; a run whose settings pay by others is refused (see ``interplay``). ``ignores``: those of
    ``SHARED`` that the rule does not read; a sweep over them plays this rule once.

    A rule has one of two forms:

    - ``(inputs, settings)``: a ``CreditInputs`` and the ``CreditSettings``;
    - ``(rewards, groups, anchors, settings, episode_returns)``. It asks for further inputs by keyword-only
      parameters with the names of ``CreditInputs``, such as ``*, reached, won``.

    A keyword-only parameter with a default keeps it where the input is not known. In both forms, keyword-only
    parameters with a default that are no input are the rule's own settings. A run gives them in
    ``method.credit_settings``, and ``advantages`` by their names.

    It returns one advantage a step, N lists of T_n. Or it returns a mapping that has them as "advantages",
    which may also be one a trajectory, [N]. Raises ConfigError when the name is taken, and for a setting in
    ``ignores`` that is not shared. Raises it also for a parameter that nothing would ever fill.
    """
    for unknown in [setting for setting in ignores if setting not in SHARED]:
        raise ConfigError(
            f"The credit rule {name!r} ignores {unknown!r}, which is no shared setting"
            f"{did_you_mean(unknown, SHARED)}"
        )

    def add(rule: Rule) -> Rule:
        check_rule(name, rule)
        CREDIT.register(
            name, CreditRule(rule, dict(published or {}), tuple(needs), tuple(paid_by), tuple(ignores))
        )
        return rule

    return add


def reads(name: str) -> tuple[str, ...]:
    """The inputs that a rule announces: ``needs``, or its keyword-only parameters, with a default or not."""
    rule = CREDIT.get(name)
    return (*rule.needs, *(asked_for(name, rule.function) or ()))


def demands(name: str) -> tuple[str, ...]:
    """The inputs without which a rule cannot be called: its keyword-only parameters without a default."""
    further = asked_for(name, CREDIT.get(name).function) or {}
    return tuple(item for item, demanded in further.items() if demanded)


def own_settings(name: str) -> dict[str, Any]:
    """The settings of the rule's own, with their defaults. Raises UnknownNameError for an unknown rule."""
    return keyword_settings(rule_owner(name), CREDIT.get(name).function, OWN, INPUTS)


def rule_owner(name: str) -> str:
    """What messages call a rule."""
    return f"The credit rule {name!r}"


def check_rule(name: str, rule: Callable[..., Any]) -> None:
    """Raises ConfigError for a rule of neither form, and for a parameter that nothing would ever fill."""
    owner = rule_owner(name)
    further = asked_for(name, rule)
    for setting, default in keyword_settings(owner, rule, OWN, INPUTS).items():
        near = difflib.get_close_matches(setting, INPUTS, n=1, cutoff=0.8)
        if default is None and near:
            raise ConfigError(
                f"{owner} has a setting {setting!r} with the default None; for the input {near[0]!r} write "
                "that name, and for a setting choose one that is less like it."
            )
    parameters = parameters_of(owner, rule)
    if not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        check_keyword_only(owner, parameters[2 if further is None else len(CLASSIC) :], OWN)


def asked_for(name: str, rule: Callable[..., Any]) -> dict[str, bool] | None:
    """The inputs that a rule names as keyword-only parameters; None: it reads a ``CreditInputs``.

    Each with whether it has no default, so that the rule cannot be called without it. Raises ConfigError for
    a rule of neither form, and for an input that there is not.
    """
    parameters = parameters_of(rule_owner(name), rule)
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) != len(CLASSIC):
        positional = [p for p in positional if p.default is p.empty]  # others: see check_keyword_only
    keywords = {p.name: p.default is p.empty for p in parameters if p.kind is p.KEYWORD_ONLY}
    further = {item: demanded for item, demanded in keywords.items() if demanded or item in INPUTS}
    for unknown in [item for item in further if item not in INPUTS]:
        raise ConfigError(
            f"{rule_owner(name)} asks for an unknown input {unknown!r} (a setting of its own needs a "
            f"default){did_you_mean(unknown, INPUTS)}"
        )
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return further
    if len(positional) == 2 and not further:
        return None
    if len(positional) != len(CLASSIC):
        raise ConfigError(
            f"The credit rule {name!r} must take (inputs, settings), or ({', '.join(CLASSIC)}); it takes "
            f"{', '.join(p.name for p in positional) or 'nothing'}."
        )
    return further
