"""The public names of the losses; ``__init__.py`` imports each when it is first used."""

from .aggregation import MODES as MODES, aggregate as aggregate, token_weight as token_weight
from .cispo import cispo_loss as cispo_loss
from .distill import (
    gated_distillation as gated_distillation,
    signed_distillation as signed_distillation,
)
from .dppo import dppo_kl_loss as dppo_kl_loss, dppo_tv_loss as dppo_tv_loss
from .entry import evaluate as evaluate
from .functions import LOSSES as LOSSES
from .gspo import gspo_loss as gspo_loss
from .kl import kl_estimate as kl_estimate
from .named import LOSS_NAMES as LOSS_NAMES, PolicyLoss as PolicyLoss, register_loss as register_loss
from .ppo_clip import ppo_clip_loss as ppo_clip_loss
from .sapo import sapo_loss as sapo_loss
from .settings import DistillSection as DistillSection, LossSection as LossSection
from .tokens import LossTokens as LossTokens, row_means as row_means
