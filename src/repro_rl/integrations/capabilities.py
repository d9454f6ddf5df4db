"""What each engine and each adapter can do: the settings of every feature are put to an engine's own checks.

A cell says what the code says. ``python -m repro_rl.integrations.capabilities`` prints docs/capabilities.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from repro_rl.config import RunConfig, load_config
from repro_rl.config.origins import without_places
from repro_rl.errors import ReproError
from repro_rl.integrations.adapters import ADAPTERS, FEATURES as ADAPTER_FEATURES
from repro_rl.integrations.verl.recipe import checked

RECIPE = "sokoban-qwen3"


@dataclass(slots=True, frozen=True)
class Feature:
    """A row of the matrix."""

    name: str  # text of the row
    settings: tuple[str, ...] = ()  # that switch the feature on, as "name=value"
    trains: bool = True  # False: an evaluation can have it too
    ranks: bool = False  # in several processes


@dataclass(slots=True, frozen=True)
class Engine:
    """A column."""

    name: str  # heading of the column
    settings: tuple[str, ...]  # that choose it, and what it asks for beside every feature
    check: Callable[[Feature, RunConfig], None]  # raises ReproError for what the engine refuses


FEATURES = (
    Feature("evaluation on a fixed panel", trains=False),
    Feature("one prompt a step (window)", ("prompt.context=window",), trains=False),
    Feature("multi-turn chat", ("prompt.context=chat",), trains=False),
    Feature("reflections, free text", ("method.name=repro",), trains=False),
    Feature("reflections, guided", ("prompt.reflect_form=guided", "api.guided=json_schema"), trains=False),
    Feature("true progress, where the environment knows it", ("method.name=oracle",), trains=False),
    Feature("training: RePro-PO", ("method.name=repro",)),
    Feature("credit of whole episodes (grpo, rloo, maxrl, …)", ("method.name=grpo",)),
    Feature("credit in equal states (gigpo, hgpo, pace, …)", ("method.name=gigpo",)),
    Feature("credit from state graphs (graphgpo, g2po)", ("method.name=graphgpo",)),
    Feature("judged values in credit rules", ("method.name=graphgpo-judged",)),
    Feature("hindsight log-probs (hcapo)", ("method.name=hcapo",)),
    Feature("progress from the reference's log-probs", ("method.name=progress-advantage",)),
    Feature("self-distillation", ("method.name=self-distill",)),
    Feature("a frozen judge", ("method.name=repro-fixed-judge",)),
    Feature("rehearsal of demonstrations", ("method.rehearsal=8",)),
    Feature("KL to the reference, exact", ("train.kl.form=exact",)),
    Feature("KL to the reference, k3", ("train.kl.form=k3",)),
    Feature("policy losses beside PPO's (gspo, cispo, …)", ("train.loss.name=gspo",)),
    Feature("dynamic sampling", ("train.dynamic_sampling=2",)),
    Feature("low-rank adapters", ("policy.lora.rank=8",)),
    Feature("trackers and callbacks", ("train.trackers=[tensorboard]",)),
    Feature("a budget of environment steps", ("train.env_steps=1000",)),
    Feature("several processes (ranks)", ranks=True),
)


def _own(feature: Feature, config: RunConfig) -> None:
    """The settings' own rules have run already."""


def _vllm(feature: Feature, config: RunConfig) -> None:
    """What ``build_sampler`` refuses before it starts anything."""
    from repro_rl.dist.launcher import refuse_ranks

    refuse_ranks(config.policy.backend, world=2 if feature.ranks else 1)


def _api(feature: Feature, config: RunConfig) -> None:
    """An evaluation takes the model as an argument; training would need it as ``policy.model``."""
    if feature.trains:
        load_config(RECIPE, [*feature.settings, "policy.model=api:MODEL"])


def _verl(feature: Feature, config: RunConfig) -> None:
    """What the verl integration refuses."""
    checked(config)


ENGINES = (
    Engine("own trainer", (), _own),
    Engine("vLLM sampler", ("policy.backend=vllm",), _vllm),
    Engine(
        "vLLM server", ("policy.backend=vllm-server", "policy.vllm.server.url=http://localhost:8000"), _vllm
    ),
    Engine("API model", (), _api),
    Engine("verl", ("train.kl.form=k3", "method.rehearsal=0"), _verl),
)


def refusal(engine: Engine, feature: Feature) -> str | None:
    """Why ``engine`` cannot have ``feature``, in its own words; None where its checks accept it."""
    try:
        config = load_config(RECIPE, [*engine.settings, *feature.settings])
        engine.check(feature, config)
    except ReproError as error:
        return " ".join(without_places(str(error)).split())
    return None


PAGE_HEAD = """# Capabilities

Which engine can do what? The table is made from the code: the settings of each feature are put to
the checks of each engine (`python -m repro_rl.integrations.capabilities`). The word "yes" means
that they are accepted; a number leads to the engine's own refusal below.

Each "yes" is for one feature alone. Some pairs are refused. With chat: a frozen judge, hcapo,
progress from the reference's log-probs, self-distillation. With several processes: the last three,
and dynamic sampling. No engine takes a model from elsewhere as the judge of RL.

- **own trainer**: `policy.backend=transformers`, the model samples and trains itself.
- **vLLM sampler**, **vLLM server**: the own trainer, sampling with vLLM ([vllm.md](vllm.md)).
- **API model**: `repro-rl eval api:MODEL` ([api.md](api.md)); it acts and reflects, nothing trains.
- **verl**: `repro-rl verl train` ([verl.md](verl.md)).

A repeated command continues a run to the last bit with the own trainer ([stopping and
continuing](resume.md)). For the other engines nothing of the kind is claimed. With vLLM the
arithmetic depends on what else is in a batch, and verl continues from its own checkpoints."""


ADAPTERS_HEAD = """## Adapters

What can other libraries do with our environments ([adapters.md](adapters.md))? The tests of each
adapter try every row but the last against the real package. Refusals are numbered as above."""


def as_markdown() -> str:
    """The page docs/capabilities.md."""
    reasons: list[str] = []
    engines = {item.name: [refusal(engine, item) for engine in ENGINES] for item in FEATURES}
    adapters = {name: [adapter.refusal(name) for adapter in ADAPTERS] for name in ADAPTER_FEATURES}
    tables = [
        _table([engine.name for engine in ENGINES], engines, reasons),
        _table([adapter.name for adapter in ADAPTERS], adapters, reasons),
    ]
    notes = [f"{number}. {text}" for number, text in enumerate(reasons, 1)]
    parts = [PAGE_HEAD, tables[0], ADAPTERS_HEAD, tables[1], "## Refusals", "\n".join(notes)]
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], rows: Mapping[str, Sequence[str | None]], reasons: list[str]) -> str:
    """A row for each feature: "yes" where there is no reason against it, else the number of the reason."""
    lines = [f"| | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    for name, cells in rows.items():
        lines.append(f"| {name} | {' | '.join(_cell(cell, reasons) for cell in cells)} |")
    return "\n".join(lines)


def _cell(reason: str | None, reasons: list[str]) -> str:
    if reason is None:
        return "yes"
    if reason not in reasons:
        reasons.append(reason)
    return f"no ({reasons.index(reason) + 1})"


if __name__ == "__main__":
    sys.stdout.write(as_markdown())
