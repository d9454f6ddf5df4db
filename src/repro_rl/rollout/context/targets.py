"""The answers of demonstrations as tokens to imitate: which of them are trained.

A step of a demonstration may hold a mistake: another action than the expert's was executed
(``demos.mistakes``). In the conversation the executed answer stands, but the action is never trained on. Its
progress is: reported before the action, it is that of the expert's answer, which a policy that errs has in
mind; reported after it, the true one of the executed action.
"""

from __future__ import annotations

from repro_rl.policy.text import TextCodec
from repro_rl.rollout.samples import first_token_beyond
from repro_rl.text.parse import parse_action
from repro_rl.text.prompts import PromptBuilder
from repro_rl.types import Ids, Step, TokenKind

Pieces = list[tuple[Ids, TokenKind]]


def expert_answer(step: Step, prompts: PromptBuilder, text: TextCodec) -> Ids:
    """The expert's answer in the state of ``step``; empty where it had none."""
    advice = step.advice
    if advice is None:
        return text.encode_target(prompts.action_target(step.online, step.action))
    if not advice.action:
        return ()
    return text.encode_target(prompts.action_target(advice.online, advice.action))


def executed_answer(step: Step, prompts: PromptBuilder, text: TextCodec) -> Pieces:
    """The executed answer of ``step``, in pieces that are trained (ACT) and that are not (CONTEXT)."""
    if step.advice is None or not step.mistake:
        return [(expert_answer(step, prompts, text), TokenKind.ACT)]
    if not step.action.strip():
        return [(text.encode_target(""), TokenKind.CONTEXT)]
    after = prompts.fmt.report == "after"
    # Where the expert had no answer, nothing is known that could be reported before the action.
    online = step.online if after or step.advice.online is None else step.advice.online
    answer = prompts.action_target(online, step.action)
    ids = text.encode_target(answer)
    if not prompts.fmt.progress or (not after and not step.advice.action):
        return [(ids, TokenKind.CONTEXT)]
    parsed = parse_action(answer, prompts.fmt)
    begin = first_token_beyond(ids, parsed.action_start, text.decode) if parsed.action_start > 0 else 0
    end = first_token_beyond(ids, parsed.action_end, text.decode)
    pieces = [
        (ids[:begin], TokenKind.ACT),
        (ids[begin:end], TokenKind.CONTEXT),
        (ids[end:], TokenKind.ACT if after else TokenKind.CONTEXT),
    ]
    return [piece for piece in pieces if piece[0]]
