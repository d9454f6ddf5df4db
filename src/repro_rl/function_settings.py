"""Settings of a function that plugs in by name: its keyword-only parameters with a default.

Policy losses, credit rules and sources of progress have them. A run gives them by name; they are checked when
the settings are read, against the types of the parameters.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from repro_rl.errors import ConfigError, clause, did_you_mean
from repro_rl.settings import problems_in

SCALARS = (bool, int, float, str)  # Python types that a default alone tells the type of a setting by
FINITE = ConfigDict(allow_inf_nan=False)


def parameters_of(owner: str, function: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters of a function, with its annotations read where they can be.

    ``owner`` begins messages, such as "The policy loss 'mine'". Raises ConfigError for what has none to read.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{owner} must be a function with parameters to read: {clause(error)}.") from error
    names = getattr(inspect.unwrap(function), "__globals__", {})
    return [parameter.replace(annotation=_evaluated(parameter.annotation, names)) for parameter in parameters]


def keyword_settings(
    owner: str, function: Callable[..., Any], section: str, inputs: Container[str] = ()
) -> dict[str, Any]:
    """The settings of a function with their defaults: keyword-only parameters that are no ``inputs``.

    ``section``: where a run gives them. Raises ConfigError for one without a default, and for a default
    that no settings file can hold or that is not of the annotated type.
    """
    found: dict[str, Any] = {}
    for parameter in _settings(owner, function, inputs):
        name, default = parameter.name, parameter.default
        if default is parameter.empty:
            raise ConfigError(f"{owner}: give its setting {name!r} a default.")
        if not _is_plain(default):
            raise ConfigError(
                f"{owner}: the default of its setting {name!r} is {default!r}, which a settings file cannot "
                f"hold. {section}.{name} takes numbers, texts, true or false, null, and lists and mappings "
                "of these."
            )
        try:
            found[name] = _adapter(parameter).validate_python(default)
        except ValidationError as error:
            raise ConfigError(
                f"{owner}: the default of its setting {name!r} is {default!r}, but its type says: "
                f"{problems_in(error)[0]['msg']}."
            ) from error
        except PydanticUserError as error:
            raise ConfigError(
                f"{owner}: the type {parameter.annotation!r} of its setting {name!r} cannot be checked: "
                f"{str(error).splitlines()[0]}"
            ) from error
    return found


def check_keyword_only(owner: str, parameters: Sequence[inspect.Parameter], section: str) -> None:
    """Raise ConfigError for one of ``parameters`` that has a default and stands before the ``*``."""
    for parameter in parameters:
        positional = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        if positional and parameter.default is not parameter.empty:
            raise ConfigError(
                f"{owner}: {parameter.name!r} has a default, but is not keyword-only, so nothing ever sets "
                f"it. Write it after a * to make it the setting {section}.{parameter.name}."
            )


def read_settings_of(
    owner: str,
    function: Callable[..., Any],
    section: str,
    given: Mapping[str, Any],
    inputs: Container[str] = (),
) -> dict[str, Any]:
    """All settings of a function: those ``given``, in the types of its parameters, else its defaults.

    Raises ValueError, one line a problem, for names that it has not and values of another type.
    """
    values = keyword_settings(owner, function, section, inputs)
    problems = [unknown_setting(owner, section, name, values) for name in given if name not in values]
    for parameter in _settings(owner, function, inputs):
        if parameter.name not in given:
            continue
        value = given[parameter.name]
        try:
            values[parameter.name] = _adapter(parameter).validate_python(value)
        except ValidationError as error:
            said = "; ".join(dict.fromkeys(problem["msg"] for problem in problems_in(error)))
            problems.append(f"{section}.{parameter.name}: {said} (got {value!r}){_advice(parameter, value)}")
    if problems:
        raise ValueError("\n".join(problems))
    return values


def unknown_setting(owner: str, section: str, name: str, known: Iterable[str]) -> str:
    """A line on a setting that ``owner`` does not have."""
    return f"{section}: {owner[0].lower()}{owner[1:]} has no setting {name!r}{did_you_mean(name, known)}"


def _settings(
    owner: str, function: Callable[..., Any], inputs: Container[str]
) -> Iterator[inspect.Parameter]:
    for parameter in parameters_of(owner, function):
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name not in inputs:
            yield parameter


def _evaluated(annotation: Any, names: dict[str, Any]) -> Any:
    """An annotation that ``from __future__ import annotations`` left as text; as it is where it has no value.

    ``names``: those of the function's module. One that is imported for type checkers alone has no value.
    """
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, names)  # as inspect.signature does with eval_str, but one by one
    except Exception:
        return annotation


def _adapter(parameter: inspect.Parameter) -> TypeAdapter[Any]:
    annotation = _type_of(parameter)
    try:
        return TypeAdapter(annotation, config=FINITE)
    except PydanticUserError:  # a type with settings of its own
        return TypeAdapter(annotation)


def _type_of(parameter: inspect.Parameter) -> Any:
    """The type of a setting: as annotated, else that of its default."""
    if _is_annotated(parameter):
        return parameter.annotation
    kind = type(parameter.default)
    return kind if kind in (*SCALARS, list, tuple, dict) else Any


def _is_annotated(parameter: inspect.Parameter) -> bool:
    return parameter.annotation is not parameter.empty and not isinstance(parameter.annotation, str)


def _advice(parameter: inspect.Parameter, value: Any) -> str:
    """What else may be meant by a value of another type; "" where nothing else is likely."""
    if isinstance(parameter.default, str) and not isinstance(value, str | Mapping | list | None):
        return ". Text that YAML reads as something else, such as off or 01, needs quotes"
    if _is_annotated(parameter) or type(parameter.default) is not int or not isinstance(value, float):
        return ""
    return f". Its default is {parameter.default}; with {parameter.default}.0 it takes any number"


def _is_plain(value: Any) -> bool:
    """Whether a settings file can hold the value."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, bool | int | str)
