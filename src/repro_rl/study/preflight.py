"""What a study would find out hours later: checks of every arm's panels, trackers and evaluations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import lru_cache
from typing import Any

from repro_rl.config import EvalSection, RunConfig, TrainSection
from repro_rl.envs.base import TextEnv
from repro_rl.errors import ConfigError, ReproError
from repro_rl.files import key_of
from repro_rl.run.lineage import unscored_by, untaught_by
from repro_rl.run.panels import PanelOf, Use, eval_panel, training_uses, warmup_validates
from repro_rl.run.preflight import check_installed, preflight
from repro_rl.run.setup import build_pool
from repro_rl.study.definition import Arm, Evaluation, Study, check_settings, notes_on_set, run_config
from repro_rl.study.jobs import temperatures


def check_study(study: Study) -> list[str]:
    """Check all arms before the first job: their panels, trackers, callbacks, and that they are comparable.

    Raises what ``check_settings`` raises, and ConfigError naming the arm for what would fail, or could not
    stand in one table. Returns sentences on what cannot be meant, each once.
    """
    check_settings(study)
    found: dict[str, None] = {}
    first: tuple[str, list[dict[str, str]]] | None = None  # an arm, and how it is evaluated
    with ExitStack() as stack:
        environment = _cached_environments(stack)
        for item in study.methods:
            played = []
            try:
                for config in _configs(study, item):
                    env, panel = environment(config)
                    uses, model = _uses(item, config), _given_model(item)
                    found |= dict.fromkeys(preflight(config, env, uses, panel=panel, model=model))
                    played.append(_played(config.eval, panel, env.max_steps))
                found |= dict.fromkeys(_untaught(item, config))
                if item.train or item.init == "warm":
                    check_installed(config)
                _check_checkpoints(study.evaluation, item, config.train)
            except ReproError as error:
                raise ConfigError(f"Arm {item.name!r}: {error}") from error
            first = first or (item.name, played)
            _check_comparable(first, (item.name, played))
    return [*notes_on_set(study), *_unequal_budgets(study), *_own_by_plugins(study), *found]


def _unequal_budgets(study: Study) -> list[str]:
    """A sentence where nothing sets the environment steps of the trained arms, of which there are several."""
    trained = [item for item in study.methods if item.train]
    configs = [run_config(study, item) for item in trained]
    if len(trained) < 2 or study.env_steps is not None or all(c.train.env_steps for c in configs):
        return []
    return [
        "Every run has train.iterations iterations, but not equally many environment steps: a method whose "
        "episodes are longer plays more. Give --env-steps (in a study file env_steps) for equal steps."
    ]


def _own_by_plugins(study: Study) -> list[str]:
    """A sentence where arms make warm starts of their own for nothing but the modules that they import."""
    names = [
        item.name
        for item in study.methods
        if item.init == "warm"
        and (own := item.own_warm_start())
        and all(setting.startswith("plugins") for setting in own)
    ]
    if not names or len(study.methods) < 2:
        return []
    return [
        f"{', '.join(names)}: plugins of an arm may change its environment or demonstrations, so it has warm "
        "starts of its own. Put plugins into the study's set, and all arms share one a seed."
    ]


def _check_comparable(
    first: tuple[str, list[dict[str, str]]], other: tuple[str, list[dict[str, str]]]
) -> None:
    """Raises ConfigError where two arms are evaluated differently: they cannot stand in one table."""
    for one, another in zip(first[1], other[1], strict=True):
        for name, value in another.items():
            if one[name] != value:
                raise ConfigError(
                    f"Arm {other[0]!r} would be evaluated with {name} {value}, {first[0]!r} with "
                    f"{one[name]}; these cannot stand in one table. Set it for all arms."
                )


def _cached_environments(stack: ExitStack) -> Callable[[RunConfig], tuple[TextEnv, PanelOf]]:
    """A run's environment and its panels; environments of equal settings are built once.

    ``stack`` closes them.
    """
    built: dict[str, tuple[TextEnv, PanelOf]] = {}

    def environment(config: RunConfig) -> tuple[TextEnv, PanelOf]:
        key = key_of(config.env.model_dump(mode="json"))
        if key not in built:
            pool = stack.enter_context(closing(build_pool(config.env)))
            built[key] = pool.first, lru_cache(pool.panel)
        return built[key]

    return environment


def _configs(study: Study, item: Arm) -> Iterator[RunConfig]:
    """The settings of an arm's evaluations: one for every temperature."""
    section = study.evaluation
    changes: dict[str, Any] = {
        name: value for name in ("split", "tasks", "rollouts") if (value := vars(section)[name]) is not None
    }
    config = run_config(study, item)
    for temperature in temperatures(section):
        also = {} if temperature is None else {"temperature": temperature}
        yield config.model_copy(update={"eval": config.eval.model_copy(update={**changes, **also})})


def _uses(item: Arm, config: RunConfig) -> set[Use]:
    """What the jobs of an arm play tasks for."""
    warm = item.init == "warm" or (item.init == "untrained" and config.policy.model == "tiny")
    return {
        Use.EVAL,
        *(training_uses(config.train) if item.train else ()),
        *({Use.DEMOS, *warmup_validates(config.warmup)} if warm else ()),
    }


def _given_model(item: Arm) -> str | None:
    """The model that an arm starts from, where no job of the study makes it."""
    return None if item.init in ("warm", "untrained") else item.init


def _untaught(item: Arm, config: RunConfig) -> list[str]:
    """Sentences where the arm's warm starts will not be taught the prompts of its method."""
    if item.init != "warm":
        return []
    case = "The study's warmup teaches", config.warmup.forward_modes, config.method
    found = (untaught_by(*case), unscored_by(*case) if item.train else None)
    return [line for line in found if line is not None]


def _played(section: EvalSection, panel: PanelOf, max_steps: int) -> dict[str, str]:
    """What must be equal in all arms; ``max_steps``: the environment's limit, which no digest holds."""
    return {
        "the panel": eval_panel(section, panel).label(),
        "the environment's max_steps": str(max_steps),
        "eval.rollouts": str(section.rollouts),
        "eval.seed": str(section.seed),
        "eval.temperature": str(section.temperature),
    }


def _check_checkpoints(section: Evaluation, item: Arm, train: TrainSection) -> None:
    if "best" in section.checkpoints and item.train and not train.validate_every:
        raise ConfigError(
            "evaluation.checkpoints has 'best', but with train.validate_every=0 nothing is validated, so "
            "there is no best checkpoint; set train.validate_every, or take 'last'."
        )
