"""Any Hugging Face causal LM as a policy: batched sampling with the log-probs of the sampled ids.

Three things make it faster than ``model.generate`` for grouped agent rollouts, without touching the model:
rows whose prompts are equal share one forward pass until they sample different tokens; what prompts share at
their beginning is computed once (see ``decode``); and finished rows leave the batch.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from repro_rl.errors import CheckpointError, ConfigError
from repro_rl.policy import lora as adapters
from repro_rl.policy.base import SamplingSettings
from repro_rl.policy.decode import Decoder, HubDecoder, PackedDecoder, PrefixCache
from repro_rl.policy.encode import plain_ids
from repro_rl.policy.packed import packable
from repro_rl.policy.qwen_tokenizer import END_OF_TEXT, TURN_END
from repro_rl.random_streams import uniforms
from repro_rl.types import Completion, Ids

CACHE_LIMIT = 200_000  # remembered decoded texts
CACHE_TOKENS = 4_000_000  # of remembered prompt encodings: about 150 MB of Python integers
DRAW_BYTES = 64 << 20  # of float64 running sums at a time while sampling


class TransformersPolicy:
    """A causal LM with its tokenizer.

    ``chat``: "auto" uses the tokenizer's chat template when it has one. ``thinking`` is Qwen3's switch
    (``enable_thinking`` of its chat template); other templates ignore it. ``packed``: the forward
    pass of ``packed.py`` stands in for the model's own where it can.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        chat: Literal["auto", "on", "off"] = "auto",
        thinking: bool = False,
        max_batch_tokens: int = 32_768,
        mixed: bool = False,
        packed: bool = True,
    ):
        self.packed = packed
        self.mixed = mixed  # forward passes run under bfloat16 autocast
        self.model, self.tokenizer = model, tokenizer
        if chat == "on" and not getattr(tokenizer, "chat_template", None):
            raise ConfigError(
                "policy.chat is 'on' but the tokenizer has no chat template; use 'auto' or 'off'."
            )
        self.chat = chat != "off" and bool(getattr(tokenizer, "chat_template", None))
        self.thinking = thinking
        self.max_batch_tokens = max_batch_tokens
        self.eos_ids = _eos_ids(model, tokenizer)
        self.pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(self.eos_ids)
        self._encoded: dict[str, Ids] = {}
        self._encoded_tokens = 0
        self._decoded: dict[Ids, str] = {}
        self._prefix = PrefixCache()

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str = "auto",
        dtype: str = "auto",
        training: bool = False,
        chat: Literal["auto", "on", "off"] = "auto",
        thinking: bool = False,
        max_batch_tokens: int = 32_768,
        attention: str = "sdpa",
        frozen: bool = False,
        packed: bool = True,
    ) -> TransformersPolicy:
        """Load a Hugging Face folder or hub name, or an adapter's folder with the model it belongs on.

        ``dtype``, ``training`` and ``frozen`` (an adapter will be trained, not these weights): see
        ``choose_precision``. Raises CheckpointError when it cannot be loaded.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        quiet()
        where = Path(path)
        local = where.exists()
        if not local and (
            str(path).startswith((".", "/", "~")) or os.sep in str(path)[str(path).find("/") + 1 :]
        ):
            raise CheckpointError(
                f"No model folder at {path}. Give a folder that holds config.json, or a hub name."
            )
        if local and adapters.is_adapter(where):
            policy = cls.load(
                adapters.base_of(where),
                device=device,
                dtype=dtype,
                training=training,
                chat=chat,
                thinking=thinking,
                max_batch_tokens=max_batch_tokens,
                attention=attention,
                frozen=True,
                packed=packed,
            )
            policy.merge()
            policy.model = adapters.load_onto(policy.model, where, training)
            return policy
        if local and not (where / "config.json").exists():
            raise CheckpointError(
                f"{path} is not a model folder: config.json is missing. Is it a run folder? "
                f"Its models lie in {path}/checkpoints/<iteration>."
            )
        name = resolve_device(device)
        kind, mixed = choose_precision(dtype, name, training, frozen)
        try:
            tokenizer = AutoTokenizer.from_pretrained(path)
            model = AutoModelForCausalLM.from_pretrained(path, dtype=kind, attn_implementation=attention)
        except Exception as error:  # safetensors, tokenizers and transformers each raise their own
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            raise CheckpointError(f"Cannot load a causal LM from {path}: {reason}") from error
        return cls(
            model.to(name).eval(),
            tokenizer,
            chat=chat,
            thinking=thinking,
            max_batch_tokens=max_batch_tokens,
            mixed=mixed,
            packed=packed,
        )

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device  # type: ignore[no-any-return]

    @property
    def positions(self) -> int | None:
        """Tokens that the model can hold; None where its configuration names no limit."""
        limit = getattr(self.model.config, "max_position_embeddings", None)
        return int(limit) if limit else None

    def precision(self) -> AbstractContextManager[Any]:
        """The context of every forward pass on these weights: sampling, training and reference alike."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.mixed else nullcontext()

    def weights_changed(self) -> None:
        """Call after an update: the cached instruction prefix belongs to the old weights."""
        self._prefix.entry = None

    def before_update(self) -> None:
        """See Sampler: sampler and trainer are one model, so there is no room to make."""

    def describe(self) -> dict[str, Any]:
        return {"backend": "transformers"}

    def close(self) -> None:
        """See Sampler: the model belongs to its user."""

    @property
    def adapted(self) -> bool:
        """Whether an adapter is trained beside the weights."""
        return adapters.has_adapter(self.model)

    def adapt(self, settings: adapters.LoraSettings, base: str | Path, seed: int) -> None:
        """Freeze the weights (of ``base``) and put a new adapter beside them."""
        self.model = adapters.attach(self.model, settings, base, seed)

    def merge(self) -> None:
        """Add an adapter, if there is one, to the weights for good."""
        if self.adapted:
            self.model = self.model.merge_and_unload().eval()

    def save(self, folder: Path) -> None:
        """Write model and tokenizer as an ordinary Hugging Face folder; of an adapted model the adapter."""
        quiet()
        if self.adapted:
            adapters.save_adapter(self.model, folder)
        else:
            self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def save_merged(self, folder: Path) -> None:
        """Write model and tokenizer as an ordinary folder, the adapter (if any) added to the weights."""
        quiet()
        (adapters.merged(self.model) if self.adapted else self.model).save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def encode(self, prompt: str) -> Ids:
        ids = self._encoded.get(prompt)
        if ids is None:
            text = self.render(prompt, self.thinking) if self.chat else prompt
            ids = plain_ids(self.tokenizer, text)
            if not ids:
                raise ConfigError("A prompt has no tokens; check the prompt template and the tokenizer.")
            if self._encoded_tokens > CACHE_TOKENS:
                self._encoded.clear()
                self._encoded_tokens = 0
            self._encoded[prompt] = ids
            self._encoded_tokens += len(ids)
        return ids

    def render(self, prompt: str, thinking: bool) -> str:
        """The prompt as one user turn of the chat template, up to where the answer begins."""
        return str(
            self.tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}],
                add_generation_prompt=True,
                tokenize=False,
                enable_thinking=thinking,
            )
        )

    def encode_target(self, text: str) -> Ids:
        """Ids of a completion to imitate, with the end-of-text token."""
        return (*plain_ids(self.tokenizer, text), self._end_id())

    def decode(self, ids: Ids) -> str:
        """Text of sampled ids.

        Only the end-of-text token is left out: a sampled pad or unknown token must show, so that the parser
        can object to it.
        """
        text = self._decoded.get(ids)
        if text is None:
            if len(self._decoded) > CACHE_LIMIT:
                self._decoded.clear()
            kept = list(ids[:-1] if ids and ids[-1] in self.eos_ids else ids)
            text = str(self.tokenizer.decode(kept, skip_special_tokens=False))
            self._decoded[ids] = text
        return text

    def _end_id(self) -> int:
        turn_end = self.tokenizer.get_added_vocab().get(TURN_END) if self.chat else None
        if turn_end is not None:
            return int(turn_end)
        eos = self.tokenizer.eos_token_id
        return int(eos) if eos is not None else min(self.eos_ids)

    def generate(
        self, prompts: Sequence[str], keys: NDArray[np.uint64], settings: SamplingSettings
    ) -> list[Completion]:
        """See Policy.generate. Rows are cut into batches of at most ``max_batch_tokens`` cells."""
        return self.generate_ids([self.encode(prompt) for prompt in prompts], keys, settings)

    @torch.no_grad()
    def generate_ids(
        self, encoded: Sequence[Ids], keys: NDArray[np.uint64], settings: SamplingSettings
    ) -> list[Completion]:
        """As ``generate``, for prompts that are token ids already."""
        was_training = self.model.training
        self.model.eval()
        order = sorted(range(len(encoded)), key=lambda i: (len(encoded[i]), encoded[i]))
        out: list[Completion | None] = [None] * len(encoded)
        start = 0
        while start < len(order):
            stop, width, distinct = start, 0, 0
            while stop < len(order):
                ids = encoded[order[stop]]
                distinct += stop == start or ids != encoded[order[stop - 1]]
                width = max(width, len(ids) + settings.max_new_tokens)
                if stop > start and distinct * width > self.max_batch_tokens:
                    break
                stop += 1
            rows = order[start:stop]
            with self.precision():
                batch = self._generate_batch([encoded[i] for i in rows], keys[rows], settings)
            for row, completion in zip(rows, batch, strict=True):
                out[row] = completion
            start = stop
        self.model.train(was_training)
        return [completion for completion in out if completion is not None]

    def _generate_batch(
        self, prompts: list[Ids], keys: NDArray[np.uint64], settings: SamplingSettings
    ) -> list[Completion]:
        rows = len(prompts)
        unique: dict[Ids, int] = {}
        node = np.array([unique.setdefault(ids, len(unique)) for ids in prompts])  # [rows] -> node
        decoder = self._decoder()
        logits = decoder.prefill(list(unique), settings.max_new_tokens)
        tokens: list[list[int]] = [[] for _ in range(rows)]
        logps: list[list[float]] = [[] for _ in range(rows)]
        entropies = np.zeros(rows)
        finished = np.zeros(rows, dtype=bool)
        alive = np.arange(rows)
        for index in range(settings.max_new_tokens):
            chosen, chosen_logp, entropy = self._sample(logits, node, uniforms(keys[alive], index), settings)
            for row, token, logp in zip(alive.tolist(), chosen.tolist(), chosen_logp.tolist(), strict=True):
                tokens[row].append(token)
                logps[row].append(logp)
            entropies[alive] += entropy
            ended = np.isin(chosen, list(self.eos_ids))
            finished[alive[ended]] = True
            alive, node, chosen = alive[~ended], node[~ended], chosen[~ended]
            if not len(alive) or index + 1 == settings.max_new_tokens:
                break
            # Rows that share a prompt and sampled the same token stay one node.
            pair, node = np.unique(node * (1 << 32) + chosen, return_inverse=True)
            parent, token = pair >> 32, pair & 0xFFFFFFFF
            logits = decoder.advance(parent, token)
        completions = []
        for row in range(rows):
            ids = tuple(tokens[row])
            completions.append(
                Completion(
                    prompt_ids=prompts[row],
                    token_ids=ids,
                    logprobs=np.asarray(logps[row], dtype=np.float32),
                    text=self.decode(ids),
                    finished=bool(finished[row]),
                    entropy=float(entropies[row] / max(len(ids), 1)),
                )
            )
        return completions

    def _decoder(self) -> Decoder:
        if self.packs:
            return PackedDecoder(self.model)
        return HubDecoder(self.model, self._prefix)

    @property
    def packs(self) -> bool:
        """Whether the forward pass of ``packed.py`` stands in for the model's own."""
        return self.packed and not self.mixed and packable(self.model)

    def _sample(
        self,
        logits: torch.Tensor,
        node: NDArray[np.int64],
        uniform: NDArray[np.float64],
        settings: SamplingSettings,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
        """Tokens, their log-probs and the entropy for each row, from node logits [nodes, V]."""
        scaled = logits.float()
        if settings.temperature > 0:
            scaled = scaled / settings.temperature
        logp = torch.log_softmax(scaled, dim=-1)
        probs = logp.exp()
        entropy = -(probs * logp.clamp(min=-1e4)).sum(-1)
        rows = torch.as_tensor(node, device=logits.device)
        if settings.temperature == 0:
            chosen = logp.argmax(-1)[rows]
        else:
            weights = top_p_filter(probs, settings.top_p) if settings.top_p < 1 else probs
            chosen = draw(weights, node, uniform)
        picked = logp[rows, chosen]
        return chosen.cpu().numpy(), picked.float().cpu().numpy(), entropy[rows].cpu().numpy()


def quiet() -> None:
    """Hide transformers' own progress bars; ours show what matters."""
    from transformers.utils import logging as hf_logging

    hf_logging.disable_progress_bar()


def draw(weights: torch.Tensor, node: NDArray[np.int64], uniform: NDArray[np.float64]) -> torch.Tensor:
    """An index drawn with each of ``uniform`` [rows] from the weights [nodes, V] of the row's node.

    The float64 running sums are shared by the rows of a node, and made for a few nodes at a time.
    """
    nodes, size = weights.shape
    counts = np.bincount(node, minlength=nodes)
    order = np.argsort(node, kind="stable")
    place = np.empty_like(node)  # of each row among those of its node
    place[order] = np.arange(len(node)) - np.repeat(np.cumsum(counts) - counts, counts)
    table = np.zeros((nodes, counts.max()))
    table[node, place] = uniform
    targets = torch.as_tensor(table, device=weights.device)
    chosen = torch.empty(targets.shape, dtype=torch.int64, device=weights.device)
    at_once = max(1, DRAW_BYTES // (8 * size))
    for start in range(0, nodes, at_once):
        part = slice(start, start + at_once)
        cumulative = weights[part].double().cumsum(-1)
        chosen[part] = torch.searchsorted(cumulative, targets[part] * cumulative[:, -1:], right=True)
    return chosen.clamp(max=size - 1)[torch.as_tensor(node), torch.as_tensor(place)]


def top_p_filter(probs: torch.Tensor, top_p: float) -> torch.Tensor:
    """Zero the tail of each row of [N, V] outside the smallest set of tokens with mass ``top_p``."""
    ordered, index = probs.sort(dim=-1, descending=True)
    keep = ordered.cumsum(-1) - ordered < top_p
    return torch.zeros_like(probs).scatter(-1, index, ordered * keep)


def choose_precision(
    dtype: str, device: str, training: bool, frozen: bool = False
) -> tuple[torch.dtype, bool]:
    """Dtype of the weights, and whether forward passes run under bfloat16 autocast.

    "auto": float32 on CPU. On a GPU, bfloat16 weights unless they are trained: a step of AdamW at lr 1e-6 is
    lost in their rounding, so float32 weights are trained under autocast; ``frozen`` weights, beside which a
    float32 adapter is trained, stay bfloat16. Raises ConfigError for an unknown
    name.
    """
    if dtype == "auto":
        gpu = torch.device(device).type != "cpu"
        low = gpu and (frozen or not training)
        return (torch.bfloat16 if low else torch.float32), gpu and training
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype):
        raise ConfigError(
            f"policy.dtype {dtype!r} is not a torch dtype; use auto, float32, bfloat16 or float16."
        )
    return kind, False


def resolve_device(device: str) -> str:
    """ "auto" is the first GPU when there is one, else the CPU. Raises ConfigError for an absent device."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"policy.device is {device!r} but torch sees no GPU; use 'auto' or 'cpu'.")
    try:
        torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"policy.device is {device!r}; use auto, cpu, cuda or cuda:1.") from error
    return device


def _eos_ids(model: Any, tokenizer: Any) -> set[int]:
    found: set[int] = set()
    for value in (
        tokenizer.eos_token_id,
        getattr(model.config, "eos_token_id", None),
        getattr(getattr(model, "generation_config", None), "eos_token_id", None),
    ):
        if value is not None:
            found.update(value if isinstance(value, (list, tuple)) else [value])
    # A Qwen base checkpoint names only <|endoftext|>, its chat template ends turns with <|im_end|>.
    known = tokenizer.get_added_vocab()
    found.update(known[name] for name in (TURN_END, END_OF_TEXT) if name in known)
    if not found:
        raise ConfigError("The model names no end-of-text token; set eos_token in its tokenizer.")
    return found
