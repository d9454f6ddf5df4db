"""When a setting of ``method``, ``train.loss`` or ``train.kl`` is read at all: one table of every field.

A setting that changes nothing beside the others is a mistake that no result shows. So what a run sets away
from the default, and from what its method gives, is refused where nothing reads it. A sweep leaves such a
setting out of its grid. Settings that recipes give for all methods (``Reading.shared``) are not refused. A
credit rule or source of progress of a user's own is taken to read everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from repro_rl.config.method import MethodSection
from repro_rl.config.methods import METHOD_LOSSES, METHODS
from repro_rl.config.sections import TrainSection
from repro_rl.config.values import section_of
from repro_rl.credit import CREDIT, CreditSettings
from repro_rl.credit.interplay import READ_BY, reads_setting
from repro_rl.credit.rules import SHARED
from repro_rl.credit.sources import OWN as SOURCE_SECTION, SOURCES, function_of, reads_reflections
from repro_rl.losses.named import FURTHER, LOSS_NAMES
from repro_rl.losses.settings import OWN as LOSS_BOUNDS
from repro_rl.settings import Section

Condition = Callable[[MethodSection, TrainSection], bool]


@dataclass(slots=True, frozen=True)
class Reading:
    """When a setting is read, beside a credit rule that reads it."""

    read: Condition
    only: str  # completes "it has no effect, only ..."
    shared: bool = False  # recipes and studies give it for all methods: never refused, only not swept
    off: Any = None  # a value that asks for nothing, so it is not refused


def _sources(method: MethodSection) -> set[str]:
    return {method.shaping, method.alignment, method.value_source} - {"none", "outcome"}


def _own_source(method: MethodSection) -> bool:
    modules = (getattr(function_of(SOURCES.get(name)), "__module__", "") for name in _sources(method))
    return not all(str(module).startswith("repro_rl.") for module in modules)


def _asks(*names: str) -> Condition:
    return lambda m, t: bool(_sources(m) & set(names)) or _own_source(m)


def _shapes(m: MethodSection, t: TrainSection) -> bool:
    return m.shaping != "none" and m.beta > 0


def _aligns(m: MethodSection, t: TrainSection) -> bool:
    return m.alignment != "none" and m.alpha > 0


def _judged_reward(m: MethodSection, t: TrainSection) -> bool:
    return any(map(reads_reflections, (m.shaping, m.alignment))) or _own_source(m)


def _reads_reflections(m: MethodSection, t: TrainSection) -> bool:
    told = m.scores_hindsight and m.hindsight == "reflection"
    judged = any(map(reads_reflections, _sources(m))) or _own_source(m)
    return m.trains_reflections or m.distills or told or judged or not CREDIT.get(m.credit).shipped


def _anchors(m: MethodSection, t: TrainSection) -> bool:
    if m.credit in ("gigpo", "hgpo", "graphgpo", "g2po", "gagpo", "pace"):
        return True
    graph = any("graph" in name for name in _sources(m))
    return (
        graph
        or not CREDIT.get(m.credit).shipped
        or _own_source(m)
        or (m.judge_pool == "state" and _judged_reward(m, t))
    )


_NOTHING = object()  # what a method gives of a setting that it does not name
JUDGED = "where method.shaping, alignment or value_source takes the judge's values"
ALIGNED = "with method.alignment and method.alpha above 0"
REFLECTS = "with method.reflect true"
LEARNS = "where the judge learns: method.reflect true and method.judge policy"
OUTCOME = "with method.value_source outcome"
MODULATED = "with method.proxmo.modulate true"
DISTILLED = "with method.distill.coef above 0"
SHAPED = "with method.shaping and method.beta above 0"

# None: always read, or checked by its own section. Beside the conditions, ``credit.interplay.READ_BY`` says
# which credit rules read a setting, and ``unpaid`` which rewards reach one.
READINGS: dict[str, Reading | None] = {
    "method.name": None,
    "method.progress": None,
    "method.shaping": None,
    "method.beta": Reading(lambda m, t: m.shaping != "none", "with method.shaping", shared=True),
    "method.shaping_form": Reading(_shapes, SHAPED),
    "method.shaping_in_episode": Reading(_shapes, SHAPED),
    "method.alignment": None,
    "method.alpha": Reading(lambda m, t: m.alignment != "none", "with method.alignment", off=0),
    "method.align_to": Reading(_aligns, ALIGNED),
    "method.alignment_in_episode": Reading(
        lambda m, t: _aligns(m, t) and m.advantage_on != "split",
        f"{ALIGNED}, and advantage_on not split",
    ),
    "method.anchor": Reading(lambda m, t: any(map(reads_reflections, _sources(m))) or _own_source(m), JUDGED),
    "method.judge_pool": Reading(
        _judged_reward, "where method.shaping or alignment takes the judge's values", shared=True
    ),
    "method.judge_gate": Reading(
        lambda m, t: m.shaping == "retrospective" and m.beta > 0,
        "with method.shaping retrospective and method.beta above 0",
    ),
    "method.anchor_key": Reading(_anchors, "where states are compared", shared=True),
    "method.value_gamma": Reading(
        _asks("graph_value", "graph_value_or_judged"),
        "where something asks for the progress 'graph_value' or 'graph_value_or_judged'",
    ),
    "method.progress_advantage.tokens": Reading(
        _asks("progress_advantage"), "where something asks for the progress 'progress_advantage'"
    ),
    "method.progress_advantage.steps": Reading(
        lambda m, t: _own_source(m), "in a call of repro_rl.credit.advantages"
    ),
    "method.progress_settings": None,  # of one source each, see ``without_effect``
    "method.overlong.factor": None,
    "method.overlong.max_length": Reading(
        lambda m, t: m.overlong.factor > 0, "with method.overlong.factor above 0"
    ),
    "method.overlong.buffer": Reading(
        lambda m, t: m.overlong.factor > 0, "with method.overlong.factor above 0"
    ),
    "method.format_coef": None,
    "method.boundary_coef": Reading(
        lambda m, t: m.progress, "with method.progress true: there is no online estimate", off=0
    ),
    "method.invalid_penalty": Reading(
        lambda m, t: bool(CREDIT.get(m.credit).paid_by), "with a rule that reads rewards", shared=True
    ),
    "method.credit": None,
    "method.credit_settings": None,
    **{
        f"method.{name}": Reading(lambda m, t: True, "with a rule that reads it", shared=True)
        for name in SHARED
    },
    "method.history": None,
    "method.level_power": Reading(lambda m, t: m.history > 0, "with method.history above 0"),
    "method.outcome": None,
    "method.value_source": None,
    "method.hindsight": None,
    "method.graphgpo.relative_distance": Reading(
        lambda m, t: m.value_source == "outcome",
        f"{OUTCOME}: judged values and relative distances are on two scales",
    ),
    "method.graphgpo.episode_weight": None,
    "method.graphgpo.success_value": None,
    "method.g2po.success_value": None,
    "method.gagpo.lam": None,
    "method.gagpo.success_value": Reading(
        lambda m, t: m.value_source != "outcome", "with a method.value_source other than outcome"
    ),
    **dict.fromkeys(
        f"method.hcapo.{name}" for name in ("temperature", "clip_low", "clip_high", "smoothing", "do_no_harm")
    ),
    **dict.fromkeys(f"method.proxmo.{name}" for name in ("temperature", "modulate", "max_features", "fit")),
    "method.proxmo.alpha": Reading(lambda m, t: m.proxmo.modulate, MODULATED),
    "method.proxmo.beta": Reading(lambda m, t: m.proxmo.modulate, MODULATED),
    "method.proxmo.target_range": Reading(
        lambda m, t: m.proxmo.modulate and m.proxmo.beta is None, f"{MODULATED} and beta null"
    ),
    "method.mt_grpo.coef": None,
    "method.mt_grpo.epsilon": None,
    "method.maxrl.guarded": None,
    "method.maxrl.epsilon": Reading(lambda m, t: not m.maxrl.guarded, "with method.maxrl.guarded false"),
    "method.reinforce_pp.gamma": None,
    "method.advantage_on": Reading(
        lambda m, t: m.progress, "with method.progress true: no answer has progress tokens"
    ),
    "method.reflect": Reading(
        _reads_reflections,
        "where something reads the reflections: a source of progress that takes the judge's values, "
        "method.distill, hindsight, or method.reflect_coef above 0 with method.judge policy",
        off=False,
    ),
    "method.judge": Reading(lambda m, t: m.reflect, REFLECTS),
    "method.reflect_coef": Reading(lambda m, t: m.learns_to_judge, LEARNS, shared=True),
    "method.reflect_share": Reading(lambda m, t: m.learns_to_judge, LEARNS, shared=True),
    "method.judge_temperature": Reading(lambda m, t: m.reflect, REFLECTS, shared=True),
    "method.rehearsal": Reading(
        lambda m, t: m.learns_to_judge or (m.reflect and m.rehearsal_when == "always"),
        f"{LEARNS}; or with method.rehearsal_when always",
        shared=True,
    ),
    "method.rehearsal_coef": Reading(lambda m, t: m.rehearses, "where method.rehearsal is used", shared=True),
    "method.rehearsal_when": Reading(
        lambda m, t: m.judged_by_reference and m.rehearsal > 0,
        "with method.judge reference and method.rehearsal above 0",
    ),
    "method.distill.coef": None,
    "method.distill.form": Reading(lambda m, t: m.distills, DISTILLED),
    "method.distill.gate_beta": Reading(lambda m, t: m.distills, DISTILLED),
    "method.distill.clip": Reading(lambda m, t: m.distills, DISTILLED),
    "method.distill.text": Reading(lambda m, t: m.distills, DISTILLED),
    "method.distill.on": Reading(lambda m, t: m.distills, DISTILLED),
    "train.loss.name": None,
    **{
        f"train.loss.{name}": Reading(
            lambda m, t, name=name: name in LOSS_NAMES.get(t.loss.name).settings,  # type: ignore[misc]
            "with a loss that has it",
        )
        for name in LOSS_BOUNDS
    },
    "train.loss.aggregation": None,
    "train.loss.scale": Reading(
        lambda m, t: t.loss.aggregation == "seq-mean-token-sum-norm",
        "with train.loss.aggregation seq-mean-token-sum-norm",
    ),
    "train.loss.settings": None,
    "train.kl.form": Reading(lambda m, t: t.kl.coef > 0, "with train.kl.coef above 0", shared=True),
    "train.kl.coef": Reading(lambda m, t: t.kl.form != "none", "with a train.kl.form other than none", off=0),
    "train.kl.clamp": Reading(
        lambda m, t: t.kl.active and t.kl.form != "exact",
        "with a KL on the sampled token: train.kl.form neither exact nor none, train.kl.coef above 0",
    ),
}


def is_read(key: str, method: MethodSection, train: TrainSection) -> bool:
    """Whether a run of these settings reads the setting ``key``, such as "method.beta"."""
    section, _, name = key.partition(".")
    if key.startswith(f"{SOURCE_SECTION}."):
        return key.split(".")[2] in _sources(method)
    if key.startswith(f"{FURTHER}."):
        return key.split(".")[3] in LOSS_NAMES.get(train.loss.name).settings
    if key == "train.clip":
        return train.loss.name == "ppo_clip" and None in (train.loss.clip_low, train.loss.clip_high)
    if section == "method" and not reads_setting(method.credit, name):
        return False
    reading = READINGS.get(key)
    return reading is None or reading.read(method, train)


def without_effect(method: MethodSection, train: TrainSection) -> Iterator[str]:
    """A sentence for each setting of ``unread``, with what to do, and for what has the wrong effect."""
    yield from unread(method, train).values()
    if train.kl.form == "k1" and train.kl.coef > 0:
        yield (
            "train.kl.form is 'k1': as a loss its expected gradient is zero, so train.kl.coef above 0 would "
            "not hold the policy near the reference; k1+ has the same value with the gradient that does"
        )


def unread(method: MethodSection, train: TrainSection) -> dict[str, str]:
    """The settings that are given and that nothing reads, by name, each with a sentence.

    Given is what differs from the default and from what the method sets.
    """
    found: dict[str, str] = {}
    own_rule = not CREDIT.get(method.credit).shipped
    for key, value, default in (*_leaves("method", method), *_leaves("train", train)):
        reading = READINGS.get(key)
        if (reading is not None and reading.shared) or value in _kept(reading, method.name, key, default):
            continue
        name = key.partition(".")[2]
        if key.startswith("method.") and not reads_setting(method.credit, name):
            readers = ", ".join(READ_BY.get(name.partition(".")[0], ()))
            only = f"with the credit rule {method.credit!r}" + (f", only with {readers}" if readers else "")
        elif reading is None or reading.read(method, train):
            continue
        elif own_rule and name.partition(".")[0] in CreditSettings.model_fields and name != "boundary_coef":
            continue  # the user's own rule may read it
        else:
            only = f"here, only {reading.only}"
        found[key] = f"{key} has no effect {only}; leave it out"
    for source in method.progress_settings:
        if source not in _sources(method):
            key = f"{SOURCE_SECTION}.{source}"
            found[key] = f"{key} has no effect where nothing asks for the progress {source!r}; leave it out"
    return found


def _kept(reading: Reading | None, method: str, key: str, default: Any) -> tuple[Any, ...]:
    """Values of a setting that ask for nothing of their own: the default, what the method gives, and off.

    Where the method switches something off, such as ``reflect``, the default asks for it.
    """
    preset, off = _preset(method, key), None if reading is None else reading.off
    return (preset, off) if off is not None and preset is not _NOTHING else (preset, off, default)


def settings_in_table() -> set[str]:
    """The names of all fields that the table must have: those of ``method``, ``train.loss``, ``train.kl``."""
    method, train = MethodSection.model_construct(), TrainSection.model_construct()
    return {key for key, _, _ in (*_leaves("method", method), *_leaves("train", train))}


def _leaves(prefix: str, section: Section) -> Iterator[tuple[str, Any, Any]]:
    """Each setting below a section: its dotted name, its value and its default."""
    for name, field in type(section).model_fields.items():
        key, value = f"{prefix}.{name}", getattr(section, name)
        if prefix == "train" and name not in ("loss", "kl"):
            continue
        if section_of(field.annotation) is not None:
            yield from _leaves(key, value)
        else:
            yield key, value, field.default


def _preset(method: str, key: str) -> Any:
    """What the method itself gives for a setting; a value that equals none where it gives nothing."""
    if key.startswith("train.loss."):
        given: Any = METHOD_LOSSES.get(method) if method in METHOD_LOSSES.names() else {}
        path = key.split(".")[2:]
    else:
        given = METHODS.get(method) if method in METHODS.names() and key.startswith("method.") else {}
        path = key.split(".")[1:]
    for part in path:
        if not isinstance(given, Mapping) or part not in given:
            return _NOTHING
        given = given[part]
    return given
