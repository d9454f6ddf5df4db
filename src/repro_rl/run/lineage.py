"""What the run that made a model recorded: its context mode, its prompts, its demonstrations."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

from repro_rl.config import MethodSection, PromptSection, TrainSection, WarmupSection, is_api
from repro_rl.config.paths import after_renaming, read_run_section, resolved
from repro_rl.demos.store import has_digest
from repro_rl.errors import CheckpointError, ConfigError, PreflightError
from repro_rl.policy.loading.checksums import fingerprint
from repro_rl.policy.loading.hub import is_hub_name
from repro_rl.run.folder_kind import KIND, Kind
from repro_rl.run.inputs import DEMOS, DEMOS_DIGEST
from repro_rl.run.model_paths import kept_start, read_manifest, recorded_start, run_of, start_model
from repro_rl.run.templates import changed_templates, other_announcement

# The settings that change the words of prompts or answers, by the style that uses them.
COMPARED = {
    "compact": ("report", "resolution"),
    "full": ("think", "report", "history", "admissible", "notices"),
}
TRAINED: tuple[Kind, ...] = ("training", "verl")  # runs whose models have learned the prompts they act with


def section_of(model: str | Path, name: str) -> dict[str, Any] | None:
    """A section of the settings, as written, of the run that made a model; None where no run here did.

    Raises ConfigError for settings that are broken.
    """
    run = None if is_api(model) else run_of(model)
    return None if run is None else read_run_section(run, name)


def taught_prompt(model: str | Path) -> PromptSection | None:
    """The prompt settings of the run behind a model folder; None for a model that no run here made.

    Raises ConfigError for settings that are broken.
    """
    section = section_of(model, "prompt")
    if section is None:
        return None
    try:
        return PromptSection.model_validate(section)
    except ValueError as error:
        raise ConfigError(f"The section prompt of the run behind {model} is broken: {error}") from error


def taught_modes(model: str | Path) -> frozenset[str] | None:
    """The prompt modes that the warmup behind a model taught; None for a model that no run here made.

    ``model``: a run folder, a model folder in one, or anything else. A trained run is followed to its warm
    start. Raises ConfigError where that warmup's list of prompt modes is broken.
    """
    trained, taught = section_of(model, "train"), section_of(model, "warmup")
    if trained is None or taught is None:
        return None
    init = trained.get("init")
    earlier = taught_modes(init) if init and Path(init) not in (Path(model), run_of(model)) else None
    if earlier is not None:
        return earlier
    modes = taught.get("forward_modes")
    if modes is not None and not (isinstance(modes, list) and all(isinstance(mode, str) for mode in modes)):
        raise ConfigError(f"warmup.forward_modes of the run behind {model} is no list of names.")
    return frozenset(modes if modes is not None else WarmupSection().forward_modes)


def check_context(prompt: PromptSection, model: str | Path, taught: PromptSection | None) -> None:
    """A model must be used in the context mode that it was trained in, and write what it was taught.

    ``taught``: its ``taught_prompt``.

    Raises ConfigError in compact style, which is a code that must have been taught; warns in full style,
    which is language. A model that was taught free reflections may be guided, but not the other way.
    """
    if taught is None:
        return
    if taught.reflect_form == "guided" and prompt.reflect_form == "free":
        text = (
            f"{model} was taught guided reflections, so it knows their values but not their form, and this "
            "run has prompt.reflect_form=free; set prompt.reflect_form=guided."
        )
        if prompt.style == "compact":
            raise ConfigError(text)
        warnings.warn(text, stacklevel=2)
    if taught.context == prompt.context:
        return
    text = (
        f"{model} was trained with prompt.context={taught.context}, this run has "
        f"prompt.context={prompt.context}"
    )
    if prompt.style == "compact":
        raise ConfigError(
            f"{text}; a model of compact prompts reads only those it was taught. Set "
            f"prompt.context={taught.context}, or run a warmup with the other."
        )
    warnings.warn(f"{text}: it reads these prompts untaught.", stacklevel=2)


def other_settings(prompt: PromptSection, model: str | Path, taught: PromptSection | None) -> str | None:
    """A sentence where the run behind ``model`` had other prompts by its settings; else None.

    Settings that the style and the context mode do not use are not compared. None as well for a model that no
    run here made, and for another context mode (see ``check_context``). ``taught``: its ``taught_prompt``.
    """
    if taught is None or taught.context != prompt.context:
        return None
    names: Collection[str] = COMPARED[prompt.style] if taught.style == prompt.style else ("style",)
    if prompt.context == "chat":  # the whole episode is in the conversation
        names = [name for name in names if name != "history"]
    then, now = (
        {f"prompt.{name}": str(getattr(section, name)) for name in names} for section in (taught, prompt)
    )
    other = [name for name in then if then[name] != now[name]]
    if not other:
        return None
    was, are = (" ".join(f"{name}={values[name]}" for name in other) for values in (then, now))
    return (
        f"{model} was trained with {was}, this run has {are}: it reads these prompts untaught. Set what it "
        "was trained with, or run a warmup with these settings."
    )


def other_templates(
    prompt: PromptSection, method: MethodSection, model: str | Path, taught: PromptSection | None
) -> str | None:
    """A sentence where the run behind ``model`` made its prompts from other templates; else None.

    Its conversations may have announced a reflection at their beginning where those of ``method`` do not, or
    the other way round.

    None as well for a model that no run here made, or one in an older version. Another style or context mode
    has templates of its own (see ``other_settings`` and ``check_context``), so it gives None too. ``taught``:
    its ``taught_prompt``.
    """
    run = None if is_api(model) else run_of(model)
    if run is None or taught is None or (taught.context, taught.style) != (prompt.context, prompt.style):
        return None
    manifest = read_manifest(run)
    if other_announcement(prompt, manifest, method.reflect):
        then, now = ("did not announce", "do") if method.reflect else ("announced", "do not")
        return (
            f"The conversations that {model} was trained with {then} a reflection at their beginning, and "
            f"those of method {method.name} {now}: it reads this turn untaught."
        )
    changed = changed_templates(prompt, manifest, method.reflect)
    if changed is None:
        return None
    return f"{model} was made with other prompts: {changed}, or make it anew."


def untaught_prompts(method: MethodSection, model: str | Path) -> str | None:
    """A sentence where the runs behind ``model`` did not teach the prompts that this method acts with.

    None where they did, and for a model that no run here made. Raises as ``taught_modes``.
    """
    taught = taught_modes(model)
    if taught is None:
        return None
    if _mode(method.progress) == _trained_mode(model):
        return None
    return untaught_by(f"The warmup behind {model} taught", taught, method)


def untaught_by(warmup: str, taught: Collection[str], method: MethodSection) -> str | None:
    """A sentence where the modes ``taught`` are not those of the prompts that ``method`` acts with, or None.

    ``warmup``: the words for whose modes they are, such as "The warmup teaches".
    """
    if _mode(method.progress) in taught:
        return None
    asked = "for progress" if method.progress else "for the action alone"
    other = "repro-act" if method.progress else "meta"
    return (
        f"Method {method.name} has prompts that ask {asked}. {warmup} others "
        f"(warmup.forward_modes={','.join(sorted(taught))}), so the model reads them untaught and may begin "
        "lower than with other methods. Run a warmup with warmup.forward_modes=[action,progress], or take a "
        f"method whose prompts were taught, such as -m {other}."
    )


def untaught_scoring(method: MethodSection, model: str | Path) -> str | None:
    """A sentence where the warmup behind ``model`` did not teach the prompts of this method's scorings.

    None where it did, where the method has none, and for a model that no run here made. RL only scores with
    such prompts, so the warmup alone teaches them. Raises as ``taught_modes``.
    """
    taught = taught_modes(model) if method.privileged_modes else None
    return None if taught is None else unscored_by(f"The warmup behind {model} taught", taught, method)


def unscored_by(warmup: str, taught: Collection[str], method: MethodSection) -> str | None:
    """A sentence where the modes ``taught`` lack prompts that ``method`` scores answers with, or None.

    ``warmup``: as of ``untaught_by``.
    """
    missing = [mode for mode in method.privileged_modes if mode not in taught]
    shown = "Where rollout/hindsight_gain or rollout/teacher_gain is far below 0, it does not read them."
    if method.progress and method.privileged_modes:
        return (
            f"Method {method.name} also scores answers with prompts that ask for progress and tell how the "
            f"episode went. No mode of warmup.forward_modes teaches these. {shown}"
        )
    if not missing:
        return None
    names = " and ".join(missing)
    return (
        f"Method {method.name} also scores answers with prompts of the mode {names}. {warmup} others "
        f"(warmup.forward_modes={','.join(sorted(taught))}), so the model may not read these. {shown} Run a "
        f"warmup that has {names} in warmup.forward_modes."
    )


def _mode(progress: bool) -> str:
    """The name in ``warmup.forward_modes`` of prompts that act, and ask for progress or not."""
    return "progress" if progress else "action"


def _trained_mode(model: str | Path) -> str | None:
    """The mode of the prompts that a model acted with in the RL run that made it; None for any other."""
    run = run_of(model)
    if run is None or read_manifest(run).get(KIND) not in TRAINED:
        return None
    return _mode(bool(read_run_section(run, "method").get("progress")))


def judge_of(init: str, model: str | Path) -> Path:
    """The frozen judge of episodes of ``model``, where ``train.init`` is ``init``.

    For the model of a run it is what that run began with. Raises CheckpointError where that is not there any
    more.
    """
    run, found = _run_begun_with(init, model), start_model(init)
    return found if run is None else kept_start(run, found)


def _run_begun_with(init: str, model: str | Path) -> Path | None:
    """The run that a model lies in, where that run began with ``init``."""
    run = None if is_api(model) else run_of(model)
    return run if run is not None and read_run_section(run, "train").get("init") == init else None


def judge_fingerprint(init: str, model: str | Path) -> str:
    """Tells the weights of frozen judges (see ``judge_of``) apart; "" for one of the hub or that is gone."""
    run = _run_begun_with(init, model)
    began_with = None if run is None else recorded_start(run)
    if began_with is not None:
        return began_with[1]  # no other weights may judge, see ``judge_of``
    try:
        return fingerprint(judge_of(init, model))
    except CheckpointError:  # a result that is there needs no judge any more
        return ""


def check_base(model: str, init: str) -> None:
    """``policy.model`` beside ``train.init``: the same model, or the one that this warm start was made from.

    Training starts from ``init`` alone. Raises ConfigError for another ``model``, which would not be used.
    """
    if _same_model(model, init):
        return
    run = run_of(init)
    base = None if run is None else str(read_run_section(run, "policy").get("model", "tiny"))
    if base is not None and _same_model(model, base):
        return
    if base is None and not (Path(init).exists() or is_hub_name(init)):
        return  # there is no such model, which loading it says
    made = f"was made from {base}" if base is not None else "is another model"
    raise ConfigError(
        f"policy.model={model}, but --init {init} {made}. Training starts from --init; policy.model only "
        "says what a warmup starts from. Leave out the one that you do not mean."
    )


def _same_model(one: str, other: str) -> bool:
    """Whether two names mean one model: the same text, or one folder or file."""
    if one == other:
        return True
    paths = (Path(one), Path(other))
    return all(path.exists() for path in paths) and paths[0].samefile(paths[1])


def _kept_demos(run: Path, manifest: dict[str, Any]) -> Path:
    """The demonstrations that the manifest names. After a renaming: those with the digest that it holds."""
    named = resolved(run, manifest[DEMOS])
    if named.exists():
        return named
    same = (p for p in after_renaming(run, manifest[DEMOS]) if has_digest(p, manifest.get(DEMOS_DIGEST)))
    return next(same, named)


def demos_of(train: TrainSection) -> Path:
    """The demonstrations to rehearse from: ``train.demos``, else those that the warm start was made from.

    A run that began with another run's model goes back to that run's. Raises PreflightError where none are
    recorded.
    """
    demos: str | Path | None = train.demos
    init = train.init
    visited: set[Path] = set()
    while demos is None and init is not None:
        run = run_of(init)
        if run is None or run.resolve() in visited:
            break
        visited.add(run.resolve())
        section = read_run_section(run, "train")
        manifest = read_manifest(run)
        made_from = manifest.get(DEMOS)
        demos = _kept_demos(run, manifest) if isinstance(made_from, str) else section.get("demos")
        init = section.get("init")
    if demos is not None:
        return Path(demos)
    raise PreflightError(
        f"method.rehearsal needs demonstrations, but {train.init} does not know those it was made from; give "
        "train.demos=FOLDER (made by 'repro-rl demos'), or set method.rehearsal=0."
    )
