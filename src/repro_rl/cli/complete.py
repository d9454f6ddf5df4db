"""What the shell offers for names of recipes, methods and settings, with few imports each."""

from __future__ import annotations


def recipes(incomplete: str) -> list[str]:
    """Names of recipes that begin with ``incomplete``; the shell adds files itself."""
    paper = [f"paper/{name}" for name in _shipped("recipes/paper")]
    return _beginning(incomplete, [*_shipped("recipes"), *paper])


def methods(incomplete: str) -> list[str]:
    """Names of methods."""
    from repro_rl.config import METHODS

    return _beginning(incomplete, METHODS.names())


def environments(incomplete: str) -> list[str]:
    """Names of environments."""
    from repro_rl.envs.base import ENVS

    return _beginning(incomplete, ENVS.names())


def overrides(incomplete: str) -> list[str]:
    """Names of settings with the ``=`` behind them."""
    from repro_rl.config.reference import setting_names

    return _beginning(incomplete, [f"{name}=" for name in setting_names()])


def studies(incomplete: str) -> list[str]:
    """Names of studies, and settings of their runs."""
    found = _beginning(incomplete, _shipped("studies"))
    return found + overrides(incomplete) if incomplete else found


def plans(incomplete: str) -> list[str]:
    """Names of recipes, and settings of a run."""
    return recipes(incomplete) + overrides(incomplete) if incomplete else recipes(incomplete)


def sections(incomplete: str) -> list[str]:
    """Names of sections, settings, recipes, studies, and parts that plug in by name."""
    from repro_rl.config.named_parts import part_names
    from repro_rl.config.reference import sections as all_sections, setting_names

    names = [section.name for section in all_sections()]
    shipped = [*recipes(incomplete), *_shipped("studies")]
    return _beginning(incomplete, [*names, *setting_names(), *part_names(), *shipped])


def _shipped(folder: str) -> list[str]:
    """Names of the YAML files in a folder of the package, without the imports of ``repro_rl.config``."""
    from importlib.resources import files

    names = (item.name for item in files("repro_rl").joinpath(folder).iterdir())
    return [name.removesuffix(".yaml") for name in names if name.endswith(".yaml")]


def _beginning(incomplete: str, names: list[str]) -> list[str]:
    return sorted({name for name in names if name and name.startswith(incomplete)})
