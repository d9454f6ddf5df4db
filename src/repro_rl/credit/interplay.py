"""What a credit rule reads: which settings, and which rewards.

A reward that the credit rule does not read is lost without a sign: the judge is asked and nothing learns from
it. ``config.interplay`` has the table of all settings. A rule of a user's own is taken to read everything.
Excepted are shared settings that it says it ignores.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from repro_rl.credit.inputs import BY_SETTING, in_runs
from repro_rl.credit.rules import BOTH, CREDIT, SHARED, RewardPart, demands, own_settings
from repro_rl.credit.settings import CreditSettings, RewardSettings

# Settings that some of the shipped rules read and the others do not.
READ_BY: dict[str, tuple[str, ...]] = {
    "history": ("hgpo",),
    "level_power": ("hgpo",),
    "hindsight": ("hcapo",),
    "outcome": ("maxrl", "g2po", "proxmo"),
    "graphgpo": ("graphgpo",),
    "g2po": ("g2po",),
    "gagpo": ("gagpo",),
    "hcapo": ("hcapo",),
    "proxmo": ("proxmo",),
    "mt_grpo": ("mt_grpo", "mt_grpo_multi"),
    "maxrl": ("maxrl",),
    "reinforce_pp": ("reinforce_pp",),
}
# Settings that make rewards, state keys or token weights of episodes: what rules are given is made already.
MADE_BEFORE = {
    *(set(RewardSettings.model_fields) - {"invalid_penalty"}),
    *("hindsight", "shaping_in_episode", "alignment_in_episode", "advantage_on", "credit"),
}
# Settings that all runs have and of the shipped rules only these read.
FEW_READ = {"invalid_penalty": ("g2po",), "value_source": ("graphgpo", "g2po", "gagpo")}
READS: dict[RewardPart, str] = {"steps": "rewards of steps", "episode": "episode returns"}


@dataclass(slots=True, frozen=True)
class Payment:
    """A term of the composite reward that the settings turn on."""

    setting: str
    parts: tuple[RewardPart, ...]  # what it is a part of


def unpaid(settings: CreditSettings) -> Iterator[str]:
    """A sentence for each reward that the settings turn on and that the rule does not read."""
    paid_by = CREDIT.get(settings.credit).paid_by
    for payment in _payments(settings):
        if not set(payment.parts) & set(paid_by):
            rules = [rule for rule in CREDIT.names() if set(payment.parts) & set(CREDIT.get(rule).paid_by)]
            unread = " or ".join(READS[part] for part in payment.parts)
            yield (
                f"{payment.setting} has no effect: the credit rule {settings.credit!r} reads no {unread}. "
                f"Turn it off, or choose a rule that does: {', '.join(rules)}"
            )


def without_inputs(settings: CreditSettings) -> Iterator[str]:
    """A sentence for each input that the rule demands and that a run of these settings does not have."""
    known = {"scores": settings.outcome == "score", "judged": settings.value_source != "outcome"}
    for name in demands(settings.credit):
        if name in BY_SETTING and not known.get(name, False):
            yield (
                f"the credit rule {settings.credit!r} needs the input {name!r}{in_runs(name)} (or give its "
                "parameter a default)"
            )


def reads_setting(credit: str, name: str) -> bool:
    """Whether the rule ``credit`` may read ``method.<name>``, such as "gamma" or "credit_settings.mine"."""
    rule = CREDIT.get(credit)
    name, _, below = name.partition(".")
    if name == "credit_settings":
        own = own_settings(credit)
        return below in own if below else bool(own)
    if name in rule.ignores:
        return False
    return credit in READ_BY.get(name, (credit,)) or not rule.shipped


def reads_from_call(credit: str, name: str) -> bool:
    """Whether advantages from given numbers may depend on the setting ``name``; shared ones always pass."""
    if name in SHARED or not CREDIT.get(credit).shipped:
        return True
    return name not in MADE_BEFORE and credit in FEW_READ.get(name, READ_BY.get(name, (credit,)))


def _payments(settings: CreditSettings) -> Iterator[Payment]:
    """Beside the outcome and the penalty for refused actions, which every recipe has."""
    split = settings.advantage_on == "split"  # alignment, format and boundary are paid to progress tokens
    if settings.shaping != "none" and settings.beta > 0:
        parts = BOTH if settings.shaping_in_episode else BOTH[:1]
        yield Payment(f"method.shaping {settings.shaping!r}", parts)
    if settings.alignment != "none" and settings.alpha > 0 and not split:
        parts = BOTH if settings.alignment_in_episode else BOTH[:1]
        yield Payment(f"method.alignment {settings.alignment!r}", parts)
    if settings.format_coef > 0 and not split:
        yield Payment("method.format_coef", BOTH)
    if settings.boundary_coef > 0 and not split:
        yield Payment("method.boundary_coef", BOTH)
    if settings.overlong.factor > 0:
        yield Payment("method.overlong.factor", BOTH)
    for name in ("shaping_in_episode", "alignment_in_episode"):
        if getattr(settings, name):
            yield Payment(f"method.{name}", BOTH[1:])
