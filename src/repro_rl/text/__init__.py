"""Prompts from template files, and total parsers for action, progress and reflection."""

from repro_rl.text.guided import GuidedText
from repro_rl.text.parse import ActionParse, ReflectionParse, TextFormat, parse_action, parse_reflection
from repro_rl.text.prompts import DemoEpisode, DemoStep, PromptBuilder, ReflectStep, StepInputs
from repro_rl.text.turns import TurnPrompts

__all__ = [
    "ActionParse",
    "DemoEpisode",
    "DemoStep",
    "GuidedText",
    "PromptBuilder",
    "ReflectStep",
    "ReflectionParse",
    "StepInputs",
    "TextFormat",
    "TurnPrompts",
    "parse_action",
    "parse_reflection",
]
