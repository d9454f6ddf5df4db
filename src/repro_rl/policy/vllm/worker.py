"""What we add to vLLM's workers: taking over a trainer's weights. Imported by vLLM, in its own process.

vLLM is told of it by ``worker_extension_cls`` (a server: ``--worker-extension-cls``) and calls its methods by
``collective_rpc``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from repro_rl.policy.loading.merging import is_tied

UNSEEN, OTHER_HEAD = "the server sees no weights in", "the server's model has another output layer:"
EXTENSION = "repro_rl.policy.vllm.worker.WeightLoader"


class WeightLoader:
    """A mixin of vLLM's worker class."""

    reload_weights: Any  # of vLLM's worker
    get_model: Any
    model_config: Any

    def repro_rl_load(self, folder: str | None = None, weights: Any = None) -> str:
        """Replace the model's weights in place.

        ``folder`` holds safetensors; ``weights`` is, for an engine of the same process, a list of (name,
        tensor) under Hugging Face's names. Returns "loaded", or what is wrong: an exception would end the
        server.
        """
        if weights is not None:
            self.reload_weights(weights_iterator=iter(weights))
        elif folder is None or not any(Path(folder).glob("*.safetensors")):
            return f"{UNSEEN} {folder}"
        elif (problem := other_head(folder, self.model_config)) is not None:
            return problem
        else:
            self.reload_weights(weights_path=folder)
        refresh_head(self.get_model())
        return "loaded"


def other_head(folder: str, served: Any) -> str | None:
    """What is wrong where the weights in ``folder`` do not fit the output layer that is served; else None.

    vLLM builds an output layer that is the input embeddings where the configuration that it was started with
    says so (``tie_word_embeddings``). It then leaves out one that comes with the weights, without a word. The
    other way round it keeps the one that it was started with. ``served``: vLLM's ``ModelConfig``.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=served.trust_remote_code)
    except (OSError, ValueError):  # of code that the server does not run: the weights cannot fit either
        return None
    ours, theirs = is_tied(config), is_tied(served.hf_config)
    if ours == theirs:
        return None
    shared, own = "its input embeddings (tie_word_embeddings)", "a weight of its own"
    return f"{OTHER_HEAD} it is {shared if theirs else own} there, and {own if theirs else shared} in ours"


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
