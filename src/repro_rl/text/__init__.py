"""Text: prompts from template files, and total parsers for action, progress and reflection."""

from repro_rl.text.parse import ForwardParse, ReflectionParse, TextFormat, parse_forward, parse_reflection
from repro_rl.text.prompts import PromptBuilder, ReflectStep, ShownEpisode, ShownStep

__all__ = [
    "ForwardParse",
    "PromptBuilder",
    "ReflectStep",
    "ReflectionParse",
    "ShownEpisode",
    "ShownStep",
    "TextFormat",
    "parse_forward",
    "parse_reflection",
]
