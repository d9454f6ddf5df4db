"""The answers of demonstrations as tokens to imitate: which of them are trained.

A step of a demonstration may hold a mistake: another action than the expert's was executed
(``demos.mistakes``). In the conversation the executed answer stands, but the action is never trained on. Its
progress is. Reported before the action, it is that of the expert's answer, which a policy that errs has in
mind. Reported after it, it is the true one of the executed action. The expert's answer is a branch of the
conversation at that step.
"""

from __future__ import annotations

from collections.abc import Sequence

from repro_rl.policy.tokens.codec import TextCodec
from repro_rl.rollout.samples import action_span
from repro_rl.text.parse import TextFormat, parse_action
from repro_rl.text.prompts import PromptBuilder
from repro_rl.types import AnswerPart, Ids, Piece, Step, TokenKind

UNTRAINED = TokenKind.CONTEXT


def expert_text(step: Step, prompts: PromptBuilder) -> str | None:
    """The expert's answer in the state of ``step``; None in a dead end, in which it had none."""
    advice = step.advice
    if advice is None:
        return prompts.action_target(step.online, step.action)
    return prompts.action_target(advice.online, advice.action) if advice.action else None


def expert_answer(step: Step, prompts: PromptBuilder, codec: TextCodec) -> list[Piece]:
    """The expert's answer in the state of ``step``, all of it trained; empty where it had none."""
    answer = expert_text(step, prompts)
    return [] if answer is None else answer_pieces(answer, prompts.fmt, codec)


def executed_answer(step: Step, prompts: PromptBuilder, codec: TextCodec) -> list[Piece]:
    """The executed answer of ``step``; of a mistake, only the progress is trained."""
    if step.advice is None or not step.mistake:
        return expert_answer(step, prompts, codec)
    if not step.action.strip():
        return [Piece(codec.encode_target(""), UNTRAINED)]
    after = prompts.fmt.report == "after"
    # Where the expert had no answer, nothing is known that could be reported before the action.
    online = step.online if after or step.advice.online is None else step.advice.online
    trained = after or bool(step.advice.action)
    pieces = answer_pieces(prompts.action_target(online, step.action), prompts.fmt, codec)
    return [
        piece if trained and piece.part is AnswerPart.PROGRESS else Piece(piece.ids, UNTRAINED)
        for piece in pieces
    ]


def branch_answer(step: Step, prompts: PromptBuilder, codec: TextCodec) -> tuple[Piece, ...]:
    """The expert's answer where a mistake was executed, without what ``executed_answer`` trains already."""
    if not step.mistake:
        return ()
    known = prompts.fmt.report == "before"  # the progress, which comes first
    return tuple(
        Piece(piece.ids, UNTRAINED) if known and piece.part is AnswerPart.PROGRESS else piece
        for piece in expert_answer(step, prompts, codec)
    )


def answer_pieces(answer: str, fmt: TextFormat, codec: TextCodec) -> list[Piece]:
    """The tokens of an answer as its progress and its action, in their order, all trained.

    What closes a thought that the chat template opened belongs to the part that comes first.
    """
    ids = codec.encode_target(answer)
    # Of the tokens, not of ``answer``: the template may add to its beginning, or take from it.
    begin, end = action_span(ids, parse_action(codec.decode(ids), fmt), codec.decode)
    if not fmt.progress or fmt.report == "after":  # no progress stands before the action
        begin = 0
    pieces = [
        Piece(ids[:begin], TokenKind.ACT, AnswerPart.PROGRESS),
        Piece(ids[begin:end], TokenKind.ACT, AnswerPart.ACTION),
        Piece(ids[end:], TokenKind.ACT, AnswerPart.PROGRESS),
    ]
    return [piece for piece in pieces if piece.ids]


def ids_of(pieces: Sequence[Piece]) -> Ids:
    """All tokens of ``pieces``."""
    return tuple(token for piece in pieces for token in piece.ids)
