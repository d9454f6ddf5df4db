"""Can the tokenizer write answers? One that changes the tags, or an action, makes answers malformed.

Some tokenizers put spaces around punctuation (BERT), others write small letters alone or join lines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from repro_rl.policy.tokens.codec import TextCodec
from repro_rl.text.parse import TextFormat, parse_action, parse_reflection
from repro_rl.text.prompts import PromptBuilder

_OTHER = "Use a model whose tokenizer keeps a text as it is."
REFLECTED = (0, 40, 100)  # values of the reflection that is tried


@dataclass(frozen=True, slots=True)
class Misread:
    """Answers that do not read back as what was meant."""

    share: float  # of those that were tried
    sentence: str  # shows one of them

    @property
    def most(self) -> bool:
        """Whether it is most of them, so that nothing can be learnt."""
        return self.share > 0.5


def misread_actions(actions: Mapping[str, str], fmt: TextFormat, codec: TextCodec) -> Misread | None:
    """Of ``actions``, answer -> the action that it holds; None where each reads back."""
    wrong = [
        text for text in actions if not _reads_back(text, codec, lambda read: parse_action(read, fmt)[:3])
    ]
    if not wrong:
        return None
    shown = min(wrong, key=len)
    kept = parse_action(_read(shown, codec), fmt)
    defects = f" with {', '.join(kept.defects)}" if kept.defects else ""
    count = f"{len(wrong)} of {len(actions)} answers that were tried" if len(actions) > 1 else "this answer"
    return Misread(
        len(wrong) / len(actions),
        f"The tokenizer cannot write {count}: {shown!r} reads back as {_read(shown, codec)!r}, which is the "
        f"action {kept.action!r}{defects}, and not {actions[shown]!r}. {_OTHER}",
    )


def misread_reflection(prompts: PromptBuilder, codec: TextCodec) -> str | None:
    """A sentence on a reflection that does not read back; None where it does."""
    text = prompts.reflection_target(REFLECTED)
    fmt, steps = prompts.fmt, len(REFLECTED)
    if _reads_back(text, codec, lambda read: parse_reflection(read, fmt, steps)):
        return None
    read = _read(text, codec)
    defects = ", ".join(parse_reflection(read, fmt, steps).defects) or "other values"
    return (
        f"The tokenizer cannot write reflections: {text!r} reads back as {read!r}, with {defects}. {_OTHER}"
    )


def _meant(text: str, codec: TextCodec) -> str:
    """An answer as the chat template has it written: behind the end of a thought, perhaps."""
    return text if codec.template is None else codec.template.answer(text)


def _read(text: str, codec: TextCodec) -> str:
    return codec.decode(codec.encode_target(text))


def _reads_back(text: str, codec: TextCodec, parse: Callable[[str], object]) -> bool:
    """Whether what is decoded parses as what was meant; an answer with unknown words is not judged."""
    ids = codec.encode_target(text)
    if codec.tokenizer.unk_token_id is not None and codec.tokenizer.unk_token_id in ids[:-1]:
        return True  # ``preflight.unknown_words`` names them
    return parse(codec.decode(ids)) == parse(_meant(text, codec))
