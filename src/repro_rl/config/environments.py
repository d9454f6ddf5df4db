"""What is wrong with the section ``env``, as far as it is known before an environment is built."""

from __future__ import annotations

from repro_rl.config.problems import Problem
from repro_rl.config.sections import EnvSection
from repro_rl.errors import UnknownNameError


def env_problems(section: EnvSection) -> list[Problem]:
    """An unknown name, and settings that this environment does not take.

    What only its own code finds out is told when it is built. Raises MissingDependencyError as its registry
    does.
    """
    from repro_rl.envs.base import ENVS, setting_problems  # the environments take a while to import

    try:
        ENVS.get(section.name)
    except UnknownNameError as error:
        return [Problem(f"env.name: {error}", ("env", "name"))]
    found = []
    for problem in setting_problems(section.name, section.settings):
        path = ("env", "settings", *problem.keys) if problem.given else ("env", "name")
        found.append(Problem(problem.text, path, rule=not problem.keys))
    return found
