"""The functions behind the names of policy losses; what a user's own give is checked."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from repro_rl.errors import ConfigError, named_failure
from repro_rl.losses.cispo import CISPO
from repro_rl.losses.dppo import DPPO_KL, DPPO_TV
from repro_rl.losses.gspo import GSPO
from repro_rl.losses.named import LOSS_NAMES
from repro_rl.losses.ppo_clip import PPO_CLIP
from repro_rl.losses.sapo import SAPO
from repro_rl.losses.settings import LossSection
from repro_rl.losses.tokens import Loss, LossTokens

LOSSES: dict[str, Loss] = {  # of this package
    "ppo_clip": PPO_CLIP,
    "cispo": CISPO,
    "gspo": GSPO,
    "sapo": SAPO,
    "dppo_tv": DPPO_TV,
    "dppo_kl": DPPO_KL,
}
CLOSE = 1e-6  # how far, relative to the largest value, a sum of losses may be from the loss of the sum


def functions_of(name: str) -> Loss:
    """The functions of the policy loss called ``name``. Raises UnknownNameError for an unknown one.

    Those of a user's own raise ConfigError where they fail, or give other than they should.
    """
    named = LOSS_NAMES.get(name)
    if named.function is None:
        return LOSSES[name]
    return Loss(partial(_losses, name, named.function), partial(_clipped, name, named.clipped))


def check_loss(loss: LossSection) -> None:
    """Raises ConfigError for a loss of a user's own that training cannot use.

    It is tried on a few tokens, and must be linear in the advantages of one sign. For equal samples are
    merged, and their positive and their negative advantages summed (decision D55).
    """
    if LOSS_NAMES.get(loss.name).function is None:
        return
    functions, how = functions_of(loss.name), loss.values()
    log_prob = torch.tensor([-0.1, -2.0, -0.7, -3.0, -1.2, -0.4], dtype=torch.float64, requires_grad=True)
    ratios = torch.tensor([1.0, 3.0, 0.3, 1.1, 0.9, 1.6], dtype=torch.float64)
    one = torch.tensor([0.5, 0.0, 2.0, 1.0, 3.0, 0.25], dtype=torch.float64)
    two = torch.tensor([1.5, 1.0, 0.0, 0.3, 0.5, 4.0], dtype=torch.float64)
    row = torch.tensor([0, 0, 0, 1, 1, 1])

    def of(advantages: torch.Tensor) -> torch.Tensor:
        tokens = LossTokens(log_prob, (log_prob - ratios.log()).detach(), advantages, row)
        functions.clipped(tokens, **how)
        return functions.loss(tokens, **how)

    for sign, word in ((1.0, "positive"), (-1.0, "negative")):
        apart, together = of(sign * one) + of(sign * two), of(sign * (one + two))
        if not bool((apart + together).isfinite().all()):
            raise ConfigError(f"The policy loss {loss.name!r} gives NaN or infinity on a few usual tokens.")
        if bool(((apart - together).abs() > CLOSE * together.abs().max().clamp(min=1)).any()):
            raise ConfigError(
                f"The policy loss {loss.name!r} is not linear in {word} advantages: the losses with A and "
                "with B do not add up to the loss with A + B. Equal samples are merged and their advantages "
                "summed, so write it as tokens.advantages times what depends on their sign alone."
            )


def _losses(name: str, function: Callable[..., Any], tokens: LossTokens, **how: Any) -> torch.Tensor:
    """[T], of a user's own loss. Raises ConfigError."""
    with named_failure(f"The policy loss {name!r}"):
        values = function(tokens, **how)
    count = len(tokens.log_prob)
    if not _is_of_tokens(values, count) or not values.is_floating_point():
        raise ConfigError(
            f"The policy loss {name!r} gave {_shown(values)}; it must give the loss of each of the {count} "
            f"tokens, a tensor of floats [{count}]. train.loss.aggregation makes them one number."
        )
    if torch.is_grad_enabled() and tokens.log_prob.requires_grad and not values.requires_grad:
        raise ConfigError(
            f"The policy loss {name!r} gave a tensor without gradient; compute it from tokens.log_prob, or "
            "from tokens.ratio, without detach()."
        )
    result: torch.Tensor = values
    return result


def _clipped(name: str, function: Callable[..., Any] | None, tokens: LossTokens, **how: Any) -> torch.Tensor:
    """[T] bool, of a user's own loss. Raises ConfigError."""
    if function is None:
        return torch.zeros_like(tokens.log_prob, dtype=torch.bool)
    with named_failure(f"The function clipped of the policy loss {name!r}"):
        values = function(tokens, **how)
    count = len(tokens.log_prob)
    if not _is_of_tokens(values, count) or values.dtype is not torch.bool:
        raise ConfigError(
            f"The function clipped of the policy loss {name!r} gave {_shown(values)}; it must give a tensor "
            f"of bools [{count}], one a token."
        )
    result: torch.Tensor = values
    return result


def _is_of_tokens(values: Any, count: int) -> bool:
    return isinstance(values, torch.Tensor) and values.shape == (count,)


def _shown(values: Any) -> str:
    if isinstance(values, torch.Tensor):
        return f"a tensor of {str(values.dtype).removeprefix('torch.')} {list(values.shape)}"
    return f"{type(values).__name__} {values!r:.40}"
