"""What we add to vLLM's workers: taking over a trainer's weights. Imported by vLLM, in its own process.

vLLM is told of it by ``worker_extension_cls`` (a server: ``--worker-extension-cls``) and calls its methods by
``collective_rpc``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

EXTENSION = "repro_rl.policy.vllm.worker.WeightLoader"


class WeightLoader:
    """A mixin of vLLM's worker class."""

    reload_weights: Any  # of vLLM's worker
    get_model: Any

    def repro_rl_load(self, folder: str | None = None, weights: Any = None) -> str:
        """Replace the model's weights in place.

        ``folder`` holds safetensors; ``weights`` is, for an engine of the same process, a list of (name,
        tensor) under Hugging Face's names. Returns "loaded", or what is wrong: an exception would end the
        server.
        """
        if weights is not None:
            self.reload_weights(weights_iterator=iter(weights))
        elif folder and any(Path(folder).glob("*.safetensors")):
            self.reload_weights(weights_path=folder)
        else:
            return f"the server sees no weights in {folder}"
        refresh_head(self.get_model())
        return "loaded"


def refresh_head(model: Any) -> None:
    """Compute anew what vLLM keeps of the output layer beside its weights.

    On CPU vLLM multiplies with a packed copy of the weights. A reload packs every layer that it was given
    weights for. An output layer tied to the embedding gets none of its own: with vLLM 0.32 it went on with
    the old ones.
    """
    head = getattr(model, "lm_head", None)
    method = getattr(head, "quant_method", None)
    if head is not None and hasattr(head, "cpu_linear") and method is not None:
        method.process_weights_after_loading(head)
