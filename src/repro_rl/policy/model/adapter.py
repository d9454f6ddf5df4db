"""The adapter of a model in memory: whether there is one, whether it is on, and the model without it."""

from __future__ import annotations

import sys
from typing import Any


def has_adapter(model: Any) -> bool:
    """Whether ``model`` is one of peft's."""
    peft = sys.modules.get("peft")  # nobody can have made such a model without importing it
    return peft is not None and isinstance(model, peft.PeftModel)


def base_model(model: Any) -> Any:
    """The model of transformers inside an adapter's wrapper, or ``model`` itself."""
    return model.get_base_model() if has_adapter(model) else model


def adapter_active(model: Any) -> bool:
    """Whether a forward pass of ``model`` goes through an adapter now."""
    if not has_adapter(model):
        return False
    from peft.tuners.tuners_utils import BaseTunerLayer

    return any(isinstance(m, BaseTunerLayer) and not m.disable_adapters for m in model.modules())


# Kinds of peft that change layers, but by more than the layer's own input.
OTHER_KINDS = ("XLORA", "POLY")


def changes_layers_alone(config: Any) -> bool:
    """Whether an adapter of this configuration changes layers, each a function of its own input, and no more.

    Others put tokens or a cache before the prompt, or change the layers from a mark in the text on (aLoRA).
    """
    from peft import PEFT_TYPE_TO_TUNER_MAPPING
    from peft.tuners.tuners_utils import BaseTuner

    tuner = PEFT_TYPE_TO_TUNER_MAPPING.get(config.peft_type)
    return (
        tuner is not None
        and issubclass(tuner, BaseTuner)
        and not config.is_prompt_learning
        and kind_of_adapter(config) not in OTHER_KINDS
        and not getattr(config, "alora_invocation_tokens", None)  # LoRA alone has it
    )


def kind_of_adapter(config: Any) -> str:
    """peft's name of an adapter's kind."""
    return str(getattr(config.peft_type, "value", config.peft_type))


class AdapterOff:
    """The model without its adapter, as a callable: the frozen reference without a second copy."""

    def __init__(self, model: Any):
        self.model = model

    def __call__(self, **inputs: Any) -> Any:
        with self.model.disable_adapter():
            return self.model(**inputs)

    def get_output_embeddings(self) -> Any:
        """See PreTrainedModel: the layer that computes logits."""
        return self.model.get_output_embeddings()
