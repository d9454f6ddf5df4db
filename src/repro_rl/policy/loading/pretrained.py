"""Loading a whole model of transformers: refused by name before anything is spent, or right.

What transformers lets pass silently is an error here. That is weights that the file lacks (they would be
random) or that the model does not take, and numbers that are not finite. So is a model that is no causal
language model of text. Nothing is asked on stdin, and Python code of a model's folder runs only where a
setting says so.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from repro_rl.config import PolicySection
from repro_rl.errors import CheckpointError, ConfigError, DeviceMemoryError, clause, some
from repro_rl.policy.loading.dropout import turn_off_modules
from repro_rl.policy.loading.hub import files_of, reason_of
from repro_rl.policy.loading.stop_tokens import load_generation_config, stop_ids
from repro_rl.policy.model.memory import LOADING, memory_explained

# Names of sub-configurations that only models of more than text have.
OTHER_MEDIA = {
    *("text_config", "vision_config", "audio_config", "vq_config"),
    *("text_encoder", "audio_encoder", "audio_encoder_config"),
}
# Of configurations: which outputs a forward pass has, and in which form.
OUTPUTS = {
    "output_attentions": False,
    "output_hidden_states": False,
    "output_router_logits": False,
    "return_dict": True,
    "torchscript": False,
}
ATTENTION = ("sdpa", "eager", "flex_attention", "flash_attention_2", "flash_attention_3")
CAUSAL_TOLERANCE = 0.01  # share of the logits' spread: above it a token's logits depend on the next token
OTHERWISE = "Give a decoder-only language model, such as Qwen/Qwen2.5-0.5B-Instruct."


@contextmanager
def named_load(what: str, path: str | Path) -> Iterator[None]:
    """Errors of the libraries inside become a CheckpointError "Cannot load WHAT from PATH: reason"."""
    try:
        with memory_explained(f"loading {what} from {path}", LOADING):
            yield
    except (CheckpointError, ConfigError, DeviceMemoryError):
        raise
    except Exception as error:  # safetensors, tokenizers and transformers each raise their own
        reason = reason_of(error)
        if "trust_remote_code" in reason:
            raise CheckpointError(
                f"Cannot load {what} from {path}: it has Python code of its own, which is not run unless "
                "policy.trust_remote_code=true. Read that code first: it may do anything on this machine. "
                f"(transformers: {reason})"
            ) from error
        raise CheckpointError(f"Cannot load {what} from {path}: {reason}") from error


def load_tokenizer(
    path: str | Path, *, trust_remote_code: bool = False, local_only: bool | None = None
) -> Any:
    """The tokenizer of a folder or hub name. Raises CheckpointError.

    ``local_only``: of a hub name, look only into the local cache; None: where the hub cannot be reached.
    """
    from transformers import AutoTokenizer

    with named_load("a tokenizer", path):
        files = files_of(path, local_only=local_only)
        return AutoTokenizer.from_pretrained(files, trust_remote_code=trust_remote_code)


def load_model_config(
    path: str | Path, *, trust_remote_code: bool = False, local_only: bool | None = None
) -> Any:
    """The configuration of a causal language model of text, see ``load_tokenizer``.

    A model of more media passes where transformers loads its text part alone. Raises CheckpointError for any
    other model, naming what it is.
    """
    from transformers import AutoConfig

    with named_load("a causal LM", path):
        files = files_of(path, local_only=local_only)
        config = _causal_config(path, AutoConfig.from_pretrained(files, trust_remote_code=trust_remote_code))
        stop_ids(getattr(config, "eos_token_id", None), f"{path}/config.json")
        _plain_outputs(config)
        return config


def _plain_outputs(config: Any) -> None:
    """Reset what only changes which outputs a forward pass has, and in which form.

    Nothing here reads more than logits by name. transformers does not save some of these, and others need
    eager attention.
    """
    for part in (config, config.get_text_config()):
        for name, value in OUTPUTS.items():
            if getattr(part, name, value) != value:
                setattr(part, name, value)


def _causal_config(path: str | Path, config: Any) -> Any:
    """See ``load_model_config``."""
    kind = f"{', '.join(config.architectures or ()) or type(config).__name__} ({config.model_type})"
    if config.is_encoder_decoder:
        raise CheckpointError(
            f"Cannot load a causal LM from {path}: {kind} is an encoder-decoder model. {OTHERWISE}"
        )
    method = quantization(config)
    if method is not None:
        raise CheckpointError(
            f"Cannot load a causal LM from {path}: its weights are quantised ({method}), which this package "
            "neither trains nor saves. Give the folder or hub name that it was quantised from; policy.dtype "
            "and policy.lora save memory instead."
        )
    if own_code(config):  # its class is not known before its code has run
        return config
    model_class = model_class_of(config)
    if model_class is None:
        raise CheckpointError(
            f"Cannot load a causal LM from {path}: {kind} is not among the causal language models of "
            f"transformers. {OTHERWISE}"
        )
    if OTHER_MEDIA.isdisjoint(config.sub_configs):
        return config
    text_config = config.get_text_config()
    if text_config is config or model_class.config_class is not type(text_config):
        raise CheckpointError(
            f"Cannot load a causal LM from {path}: {kind} is not a model of text alone, and transformers "
            f"does not load its text part by itself. {OTHERWISE}"
        )
    return config


def quantization(config: Any) -> str | None:
    """How the weights of a configuration are quantised; None for ordinary weights."""
    settings = getattr(config, "quantization_config", None)  # most configurations have none
    if settings is None:
        return None
    if not isinstance(settings, Mapping):
        settings = settings.to_dict()
    if settings.get("load_in_4bit") or settings.get("load_in_8bit"):
        return "bitsandbytes, 4 bits" if settings.get("load_in_4bit") else "bitsandbytes, 8 bits"
    method, bits = settings.get("quant_method") or "an unnamed method", settings.get("bits")
    return f"{method}, {bits} bits" if bits else str(method)


def own_code(config: Any) -> bool:
    """Whether the class of the model is code in its folder, and not one of transformers."""
    return type(config).__module__.startswith("transformers_modules") or (
        "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {}) and model_class_of(config) is None
    )


def model_class_of(config: Any) -> Any:
    """The class of transformers that loads a causal LM with this configuration; None where there is none."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING as CLASSES

    return CLASSES.get(type(config), None)


def attention_choices(model_class: Any) -> list[str]:
    """The values of ``policy.attention`` that a class of transformers supports, beside auto."""
    supported = {
        "eager": True,
        "sdpa": model_class._supports_sdpa,
        "flex_attention": model_class._supports_flex_attn,
        "flash_attention_2": model_class._supports_flash_attn,
        "flash_attention_3": model_class._supports_flash_attn,
    }
    return [name for name in ATTENTION if supported[name]]


def load_model(path: str | Path, config: Any, section: PolicySection, dtype: torch.dtype) -> Any:
    """The model of a folder or hub name in evaluation mode on the CPU, its own dropout off.

    ``config``: from ``load_model_config``, its dropout off already. Raises CheckpointError for weights that
    are missing, not finite or of another model; ConfigError for an attention that the model lacks.
    """
    from transformers import AutoModelForCausalLM

    attention = None if section.attention == "auto" else section.attention
    _check_attention(path, config, attention)
    generation = load_generation_config(path)
    with named_load("a causal LM", path), _own_report():
        try:
            model, info = AutoModelForCausalLM.from_pretrained(
                files_of(path),
                config=config,
                dtype=dtype,
                attn_implementation=attention,
                generation_config=generation,
                trust_remote_code=section.trust_remote_code,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # check_weights names them
            )
        except (ImportError, ValueError) as error:
            if attention is None or not _about_attention(error, attention):
                raise
            raise _attention_error(path, config, attention, reason_of(error)) from error
    if attention is not None and model.config._attn_implementation != attention:
        used = model.config._attn_implementation
        raise _attention_error(path, config, attention, f"transformers would use {used} instead")
    if generation is not None:
        model.generation_config = generation  # transformers has copied it, and would not save each copy
    check_weights(path, model, info)
    check_finite(model, path)
    turn_off_modules(model)
    train_padding_token(model)
    model.eval()
    check_causal(model, path)
    return model


def train_padding_token(model: Any) -> None:
    """Give the padding token's embedding a gradient where it is read.

    ``torch.nn.Embedding`` leaves it out. In many models that token ends every turn (SmolLM2's is <|im_end|>),
    so it is text. Where it is padding nothing attends to it, and its gradient is 0 anyway. The packed forward
    pass, which has no padding, trains it as well.
    """
    table = None
    with suppress(NotImplementedError, AttributeError):  # not every architecture names its table
        table = model.get_input_embeddings()
    if type(table) is torch.nn.Embedding:  # other classes may use the attribute
        table.padding_idx = None


@contextmanager
def _own_report() -> Iterator[None]:
    """Hide transformers' table of weights that are missing or left over: ``check_weights`` says it."""
    logger = logging.getLogger("transformers.modeling_utils")

    def keeps(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    logger.addFilter(keeps)
    try:
        yield
    finally:
        logger.removeFilter(keeps)


def _about_attention(error: Exception, attention: str) -> bool:
    text = str(error).lower()
    return attention in text or "attn_implementation" in text or "flash" in text or "attention" in text


def _check_attention(path: str | Path, config: Any, attention: str | None) -> None:
    if attention is None:
        return
    model_class = model_class_of(config)
    known = ATTENTION if model_class is None else attention_choices(model_class)
    if attention not in known:
        raise _attention_error(path, config, attention, "the model does not have it")


def _attention_error(path: str | Path, config: Any, attention: str, reason: str) -> ConfigError:
    model_class = model_class_of(config)
    known = ATTENTION if model_class is None else attention_choices(model_class)
    return ConfigError(
        f"policy.attention is {attention!r}, which cannot be used for {path} ({config.model_type}): "
        f"{clause(reason)}. Choices: auto, {', '.join(known)}."
    )


def width_of(config: Any) -> int | None:
    """Numbers in a hidden state; None where the configuration does not say."""
    width = getattr(config.get_text_config(), "hidden_size", None)  # not every architecture has the name
    return int(width) if width else None


# What was loaded --------------------------------------------------------------------------------


def check_weights(path: str | Path, model: Any, info: Mapping[str, Collection[Any]]) -> None:
    """Every weight of the model must come from its file, and every weight of its layers be taken.

    ``info``: transformers' report on the load. Raises CheckpointError; warns of weights beside the model's
    layers, such as those of another head.
    """
    other = [
        f"{name} {list(there)} for {list(here)}" for name, there, here in sorted(info["mismatched_keys"])
    ]
    if other:
        raise CheckpointError(
            f"Cannot load a causal LM from {path}: weights in its file have other shapes than "
            f"config.json says: {some(other)}. One of the two files belongs to another model."
        )
    missing = sorted(str(name) for name in info["missing_keys"])
    unexpected = sorted(str(name) for name in info["unexpected_keys"])
    if missing:
        beside = f" It has {some(unexpected)} instead." if unexpected else ""
        raise CheckpointError(
            f"Cannot load a causal LM from {path}: its file lacks {some(missing)}, which would be random "
            f"numbers.{beside} The folder is incomplete, or its config.json describes another model."
        )
    inside = [name for name in unexpected if _belongs_to(model, name)]
    if inside:
        raise CheckpointError(
            f"Cannot load a causal LM from {path}: its file has {some(inside)}, for which the model has no "
            "place: its config.json describes another model, perhaps one with fewer layers or without biases."
        )
    if unexpected:
        warnings.warn(
            f"{path}: the file has {some(unexpected)} beside the language model's weights, not used.",
            stacklevel=4,
        )


def _belongs_to(model: Any, name: str) -> bool:
    """Whether a weight that the model does not have is of a layer that it has, or of one layer more."""
    parts = name.split(".")
    module, parameter = model, parts[-1]
    for part in parts[:-1]:
        children = dict(module.named_children())
        if part not in children:
            return isinstance(module, torch.nn.ModuleList) and part.isdigit()
        module = children[part]
    return parameter in ("weight", "bias") and any(True for _ in module.parameters(recurse=False))


@torch.no_grad()
def check_finite(model: Any, path: str | Path) -> None:
    """Raises CheckpointError naming the weights that are NaN or infinite, in the dtype of the model."""
    bad = [name for name, weight in model.named_parameters() if not is_finite(weight)]
    saved = model.state_dict(keep_vars=True).keys()
    # Infinite numbers in buffers may be a mask.
    bad += [name for name, value in model.named_buffers() if name in saved and torch.isnan(value).any()]
    if bad:
        kind = str(next(model.parameters()).dtype).removeprefix("torch.")
        raise CheckpointError(
            f"Cannot load a causal LM from {path}: {some(bad)} hold numbers that are NaN or infinite in "
            f"{kind}. The file is damaged, or a training that diverged saved it; use an earlier checkpoint."
        )


def is_finite(weight: torch.Tensor) -> bool:
    """Whether no number of a tensor is NaN or infinite, without a copy of it."""
    if weight.numel() == 0 or weight.is_meta:
        return True
    return bool(torch.isfinite(torch.stack(torch.aminmax(weight.detach()))).all())


@torch.no_grad()
def check_causal(model: Any, path: str | Path) -> None:
    """A first forward pass: two tokens twice, the last one different.

    Raises CheckpointError for a model that cannot do it, or whose logits are not finite. So it does where the
    logits at the first token depend on the second, as those of encoders do.
    """
    try:
        with memory_explained(f"trying out {path}", LOADING):
            ids = torch.tensor([[1, 2], [1, 3]], device=model.device)
            logits = model(input_ids=ids, use_cache=False).logits
    except DeviceMemoryError:
        raise
    except Exception as error:  # whatever the model's code raises
        raise CheckpointError(
            f"Cannot use {path} as a causal LM: a forward pass of two tokens fails: {reason_of(error)}"
        ) from error
    logits = logits[:, 0].float()
    finite = torch.isfinite(logits).all(dim=0)
    # Tokens that the model never gives have -inf in some architectures.
    if not finite.any() or torch.isnan(logits).any() or torch.isposinf(logits).any():
        raise CheckpointError(
            f"Cannot use {path} as a causal LM: its logits are not finite; its weights are damaged, or "
            f"policy.dtype={str(model.dtype).removeprefix('torch.')} is too narrow for them."
        )
    logits = logits[:, finite]
    difference = (logits[0] - logits[1]).abs().max()
    if difference > CAUSAL_TOLERANCE * logits.std():
        raise CheckpointError(
            f"Cannot use {path} as a causal LM: its logits at a token depend on the token after it, as those "
            f"of an encoder such as BERT do. {OTHERWISE}"
        )


def check_embeddings(model: Any, tokenizer: Any, path: str | Path, adapters: Sequence[Path]) -> None:
    """Every token that an adapter's own tokenizer adds needs an embedding. Raises CheckpointError."""
    rows = model.config.get_text_config().vocab_size  # follows resized embeddings
    if Path(path) in adapters and len(tokenizer) > rows:
        raise CheckpointError(
            f"The tokenizer in {path} has {len(tokenizer)} tokens, and the model with its adapter {rows} "
            "embeddings: the adapter was saved without those of the added tokens, which would be random "
            "numbers. Save it with its embeddings (peft: modules_to_save or save_embedding_layers)."
        )
