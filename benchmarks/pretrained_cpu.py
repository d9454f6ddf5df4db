"""A pretrained-sized model on one CPU core: ours beside transformers, TRL and llama.cpp, in one run.

``python benchmarks/pretrained_cpu.py [--model FOLDER] [--out FILE.json]``. Without a model: random weights of
SmolLM2-135M's shape and words as tokens. The texts are those of generated ALFWorld households in full style,
played at random: ``--tasks`` x ``--rollouts`` episodes of ``--steps`` steps. As in the recipe alfworld-135m,
prompts do not list the possible actions; ``--admissible`` lists them.

- prefill and decode: 8 x 256 tokens; one more token for each of 32 rows with 512 in the cache. The same for
  one row (``decode_one``: a single stream). Ours with the weights as they are too, beside those that oneDNN
  has reordered (``policy/model/prepacked.py``), and without compiled kernels (``policy/decoding/kernels``).
- window, chat: answers of ``--answer`` tokens at every step, beside ``model.generate`` on the same ids,
  left-padded, its own cache on. A conversation is read again at every turn there.
- kernels: sampling on the same prompts over compiled kernels and by torch alone.
- update: forward and backward of the policy loss on these samples, beside the model's own padded pass. On
  AMD's processors also with the products of MKL.
- memory: the keys and values of 32 conversations of 3,000 tokens in bfloat16, grown turn by turn.
- ``--trl PYTHON``: whole iterations beside TRL's ``GRPOTrainer`` (see rl_iteration.py); the interpreter is
  one that has trl and datasets. ``--llama FOLDER --gguf FILE``: llama.cpp reading, and decoding one stream
  and 32; the folder is one in which ``npm install node-llama-cpp`` ran (see llama_cpp.mjs).

The two sides of a comparison take turns, step by step. Ratios are of the processor's seconds, one thread.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from side_by_side import Times, versions

from repro_rl import make
from repro_rl.config import KlSection, PolicySection
from repro_rl.policy import SamplingSettings, TransformersPolicy
from repro_rl.policy.decoding.kv_slots import SlotTable
from repro_rl.policy.decoding.wide.decoder import WideSlots
from repro_rl.policy.decoding.wide.prefix_store import PrefixStore
from repro_rl.policy.forward import packed
from repro_rl.policy.forward.tree import build_tree
from repro_rl.policy.model import linear, prepacked
from repro_rl.random_streams import name_key
from repro_rl.text import PromptBuilder, StepInputs, TextFormat
from repro_rl.text.turns import TurnPrompts
from repro_rl.train.batch import Batch, Collation, Row, merge
from repro_rl.train.loss import LossSettings, policy_loss
from repro_rl.types import Completion, Ids, Sample, TokenKind

SHAPE: dict[str, Any] = {  # SmolLM2-135M
    "vocab_size": 49_152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
MICRO_TOKENS = 4096


@dataclass(slots=True)
class Job:
    """Recorded texts: by step, then by episode; episodes of a task side by side."""

    window: list[list[str]]
    chat: list[list[str]]
    rollouts: int  # of each task


# The job ------------------------------------------------------------------------------------------


def record(tasks: int, rollouts: int, steps: int, *, admissible: bool = False) -> Job:
    """Play at random. Every episode has all its steps: one that ends begins again with the same goal."""
    env = make("alfworld", style="text")
    prompts = PromptBuilder(TextFormat("full", progress=True, think="off"), history=2, admissible=admissible)
    turns = TurnPrompts(prompts)
    job = Job([[] for _ in range(steps)], [[] for _ in range(steps)], rollouts)
    names = env.panel("train").ids
    for task in names[:: len(names) // tasks][:tasks]:
        for rollout in range(rollouts):
            rng = np.random.default_rng([rollout, len(task)])
            observation, info = env.reset(options={"task": task})
            history: list[tuple[str, str]] = []
            for t in range(1, steps + 1):
                inputs = StepInputs(
                    env.instructions, info["goal"], observation, info["admissible"], t, steps, tuple(history)
                )
                job.window[t - 1].append(prompts.act(inputs))
                job.chat[t - 1].append(turns.act(replace(inputs, history=())))
                action = str(rng.choice(info["admissible"]))
                history.append((observation, action))
                observation, _, terminated, _, info = env.step(action)
                if terminated:
                    observation, info = env.reset(options={"task": task})
    return job


def random_model(folder: Path, job: Job, shape: dict[str, Any]) -> Path:
    """Random weights, and a tokenizer of the words in the texts."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = sorted({word for texts in (*job.window, *job.chat) for text in texts for word in text.split()})
    vocabulary = ["<pad>", "<eos>", "<unk>", *words]
    vocabulary += [f"<{i}>" for i in range(shape["vocab_size"] - len(vocabulary))]
    core = Tokenizer(WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
    core.pre_tokenizer = WhitespaceSplit()
    names = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=core, **names).save_pretrained(folder)
    torch.manual_seed(0)
    ids = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}
    LlamaForCausalLM(LlamaConfig(**shape, **ids)).save_pretrained(folder)
    return folder


def load(folder: Path, dtype: str) -> TransformersPolicy:
    """A policy that never stops early, so that both sides sample as many tokens."""
    policy = TransformersPolicy.load(folder, PolicySection(device="cpu", dtype=dtype))
    assert policy.uses_wide
    policy.codec.answer_tokens = replace(policy.codec.answer_tokens, stop=frozenset())
    policy.model.generation_config.eos_token_id = None
    return policy


# Parts --------------------------------------------------------------------------------------------


def speed(count: int, times: Times) -> float:
    """Tokens a second, of the fastest repetition."""
    return count / min(times.cpu)


def fill_caches(policy: TransformersPolicy, rows: int, tokens: int) -> tuple[WideSlots, Any]:
    """Our slots and a cache of transformers with the same random keys and values."""
    from transformers import DynamicCache

    model, config = policy.model, policy.model.config
    heads, layers = config.num_key_value_heads, config.num_hidden_layers
    table, store = SlotTable(), PrefixStore(layers)
    store.reserve(rows, tokens)
    cache = DynamicCache(config=config)
    slots, columns = torch.arange(rows).repeat_interleave(tokens), torch.arange(tokens).repeat(rows)
    for row in range(rows):
        table.lengths[table.add([row])] = tokens
    for layer in range(layers):
        size = config.hidden_size // config.num_attention_heads
        keys, values = torch.randn(2, rows * tokens, heads, size, dtype=model.dtype)
        store.write(layer, slots, columns, (keys, values))
        by_row = (states.view(rows, tokens, heads, size).transpose(1, 2) for states in (keys, values))
        cache.update(next(by_row), next(by_row), layer)
    return WideSlots(model, table, store, range(rows), 32_768, policy.decode_kernels), cache


def by_torch(slots: WideSlots, work: Callable[[], Any]) -> Callable[[], Any]:
    """``work`` with these slots, without compiled kernels."""

    def run() -> Any:
        with patch.object(slots, "compiled", None):
            return work()

    return run


def as_they_are(work: Callable[[], Any]) -> Callable[[], Any]:
    """``work`` over weights that are not reordered."""

    def run() -> Any:
        with patch.object(prepacked, "supported", frozenset):
            return work()

    return run


@torch.no_grad()
def raw_speed(policy: TransformersPolicy, repetitions: int) -> dict[str, float]:
    """Tokens a second of reading and of decoding, all sides."""
    model = policy.model
    ids = torch.from_numpy(np.random.default_rng(0).integers(1, model.config.vocab_size, size=(8, 256)))
    tree = build_tree(list(ids.numpy()))
    slots, cache = fill_caches(policy, 32, 512)
    one_slot, one_cache = fill_caches(policy, 1, 512)

    def decode() -> Any:
        return slots.append(range(32), [(5,)] * 32)

    def decode_one() -> Any:
        return one_slot.append(range(1), [(5,)])

    sides: dict[str, tuple[int, Callable[[], Any]]] = {
        "prefill": (ids.numel(), lambda: packed.forward(model, tree, tree.ends())),
        "prefill_transformers": (ids.numel(), lambda: model(input_ids=ids, logits_to_keep=1)),
        "decode": (32, decode),
        "decode_by_torch": (32, by_torch(slots, decode)),
        "prefill_as_they_are": (ids.numel(), as_they_are(lambda: packed.forward(model, tree, tree.ends()))),
        "decode_as_they_are": (32, as_they_are(decode)),
        "decode_transformers": (
            32,
            lambda: model(input_ids=torch.full((32, 1), 5), past_key_values=cache, use_cache=True),
        ),
        "decode_one": (1, decode_one),
        "decode_one_by_torch": (1, by_torch(one_slot, decode_one)),
        "decode_one_transformers": (
            1,
            lambda: model(input_ids=torch.full((1, 1), 5), past_key_values=one_cache, use_cache=True),
        ),
    }
    times = {name: Times() for name in sides}
    for _ in range(repetitions + 1):
        for name, (tokens, work) in sides.items():
            for _ in range(16 if tokens == 1 else 1):  # short, so more of them
                times[name].spend(work)
    result = {name: speed(sides[name][0], times[name]) for name in sides}
    result["decode_over_prefill"] = result["decode"] / result["prefill"]
    result["decode_over_prefill_transformers"] = (
        result["decode_transformers"] / result["prefill_transformers"]
    )
    return result


def generate(policy: TransformersPolicy, prompts: Sequence[Ids], new_tokens: int) -> None:
    """``model.generate`` on the left-padded batch."""
    width = max(map(len, prompts))
    ids = torch.zeros(len(prompts), width, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    with torch.no_grad():
        out = policy.model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=new_tokens,
            do_sample=True,
            top_k=None,
            top_p=None,
            pad_token_id=0,
        )
    assert out.shape[1] == width + new_tokens


def keys_of(count: int, *names: object) -> Any:
    return np.array([name_key("pretrained", *names, i) for i in range(count)], dtype=np.uint64)


def sample_of(completions: Sequence[Completion], group: int) -> Sample:
    """Completions one after another as one row, with random advantages."""
    pieces = [(ids, kind) for c in completions for ids, kind in ((c.prompt_ids, 0), (c.token_ids, 1))]
    kind = np.concatenate([np.full(len(ids), TokenKind.ACT if k else TokenKind.CONTEXT) for ids, k in pieces])
    logprob = np.concatenate([x for c in completions for x in (np.zeros(len(c.prompt_ids)), c.logprobs)])
    advantage = np.random.default_rng(len(kind)).normal(size=len(kind)) * (kind != TokenKind.CONTEXT)
    ids = np.array([token for ids, _ in pieces for token in ids], dtype=np.int64)
    return Sample(ids, kind.astype(np.int8), advantage.astype(np.float32), logprob.astype(np.float32), group)


def play(
    policy: TransformersPolicy, job: Job, mode: str, answer: int
) -> tuple[Times, Times, list[Sample], int]:
    """Both sides, step by step; our samples and the tokens that ``generate`` was given."""
    texts = job.chat if mode == "chat" else job.window
    count, how = len(texts[0]), SamplingSettings(answer)
    ours, theirs = Times(), Times()
    session = policy.open_chat()
    played: list[list[Completion]] = [[] for _ in range(count)]
    given = 0
    for t, step in enumerate(texts):
        keys = keys_of(count, mode, t)
        if mode == "chat":
            before = [tuple(session.conversation(row).ids) for row in range(count)]
            done = ours.spend(partial(session.answer, range(count), step, keys, how))
            prompts = [(*ids, *c.prompt_ids) for ids, c in zip(before, done, strict=True)]
        else:
            done = ours.spend(partial(policy.generate, step, keys, how))
            prompts = [c.prompt_ids for c in done]
        theirs.spend(partial(generate, policy, prompts, answer))
        given += sum(map(len, prompts))
        for row, completion in enumerate(done):
            assert len(completion.token_ids) == answer
            played[row].append(completion)
        print(
            f"  {mode} step {t + 1}: ours {ours.cpu[-1]:.1f} s, generate {theirs.cpu[-1]:.1f} s", flush=True
        )
    rows = played if mode == "chat" else [[c] for episode in played for c in episode]
    groups = job.rollouts * (1 if mode == "chat" else len(texts))
    return ours, theirs, [sample_of(row, i // groups) for i, row in enumerate(rows)], given


def with_and_without_kernels(policy: TransformersPolicy, job: Job, answer: int) -> dict[str, float]:
    """Seconds of sampling on the same prompts over compiled kernels and by torch, step by step."""
    how, found = SamplingSettings(answer), {}
    for mode, texts in (("chat", job.chat), ("window", job.window)):
        times = {"auto": Times(), "off": Times()}
        sessions = {switch: policy.open_chat() for switch in times}
        for t, step in enumerate(texts):
            keys = keys_of(len(step), mode, t)
            for switch, spent in times.items():
                work: Callable[[], Any] = partial(sessions[switch].answer, range(len(step)), step, keys, how)
                if mode == "window":
                    work = partial(policy.generate, step, keys, how)
                with patch.object(policy, "kernels", switch):
                    spent.spend(work)
        kernels, plain = (sum(spent.cpu) for spent in times.values())
        found |= {f"{mode}_seconds": kernels, f"{mode}_by_torch": plain, f"{mode}_faster": plain / kernels}
    return found


def update(policy: TransformersPolicy, samples: Sequence[Sample]) -> dict[str, float]:
    """Forward and backward of all micro-batches: as trees, as trees with MKL's products alone, and padded."""
    rows, how = merge(samples), LossSettings(0.2, KlSection(form="none", coef=0.0), 0.0, 1.0)
    model = policy.model.train()
    trees, padded = (_micro_batches(policy, rows, as_tree) for as_tree in (True, False))
    seconds, total = _gradients(model, trees, how)
    with patch.object(linear, "mkl_leaves_avx512", lambda: False):  # as on processors other than AMD's
        seconds_mkl, total_mkl = _gradients(model, trees, how)
    seconds_padded, total_padded = _gradients(model, padded, how)
    model.eval()
    for other in (total_mkl, total_padded):
        assert abs(total - other) < 1e-3 * max(1.0, abs(other))
    tokens = sum(len(row.ids) for row in rows)
    return {
        "seconds": seconds,
        "seconds_mkl": seconds_mkl,
        "seconds_padded": seconds_padded,
        "times_faster": seconds_padded / seconds,
        "tokens": tokens,
        "nodes": sum(len(batch.inputs.tree.token) for batch in trees),
        "tokens_a_second": tokens / seconds,
    }


def _micro_batches(policy: TransformersPolicy, rows: Sequence[Row], as_tree: bool) -> list[Batch]:
    collation = Collation(policy.codec.pad_id, policy.device, as_tree=as_tree)
    return [collation.collate(part, {TokenKind.ACT: 1.0}) for part in collation.split(rows, MICRO_TOKENS)]


def _gradients(model: Any, batches: Sequence[Batch], how: LossSettings) -> tuple[float, float]:
    """Seconds of the processor, and the sum of the losses."""
    model.zero_grad()
    spent, total = Times(), 0.0
    for batch in batches:
        total += float(spent.spend(partial(_gradient, model, batch, how)).total.detach())
    model.zero_grad(set_to_none=True)
    return sum(spent.cpu), total


def _gradient(model: Any, batch: Any, how: LossSettings) -> Any:
    terms = policy_loss(model, batch, how)
    terms.total.backward()
    return terms


def cache_memory(
    config: Any, conversations: int = 32, tokens: int = 3000, first: int = 400
) -> dict[str, float]:
    """GB of keys and values in bfloat16, each conversation alone, and with first turns shared by eight."""
    heads, size = config.num_key_value_heads, config.hidden_size // config.num_attention_heads
    layers = config.num_hidden_layers
    result = {"arithmetic": conversations * tokens * layers * 2 * heads * size * 2 / 1e9}
    one = torch.zeros(1, heads, size, dtype=torch.bfloat16)
    for name, group in (("alone", 1), ("first_turns_shared", 8)):
        store, slot = PrefixStore(layers), torch.zeros(1, dtype=torch.int64)
        starts = conversations // group
        store.reserve(starts, first)
        for layer in range(layers):
            store.write(layer, slot, slot, (one, one))
        pairs = [(i % starts, i) for i in range(starts, conversations)]
        store.reserve(conversations, 0)
        store.fork(pairs, [first] * starts + [0] * (conversations - starts))
        for length in range(first, tokens + 1, 65):
            store.reserve(conversations, length - store.prefix_length(0))
        store.reserve(conversations, tokens - store.prefix_length(0))
        result[name] = store.nbytes / 1e9
    return result


# Other programs -----------------------------------------------------------------------------------


def llama(folder: Path, gguf: Path) -> dict[str, Any]:
    """Tokens a second of llama.cpp, by the number of streams."""
    script = Path(__file__).with_name("llama_cpp.mjs")
    found = {}
    for streams in ("1", "32"):
        command = ["node", str(script), str(folder), str(gguf), streams]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found[streams] = json.loads(done.stdout.splitlines()[-1])
    return found


def trl(arguments: argparse.Namespace, folder: Path) -> dict[str, str]:
    """The last lines of rl_iteration.py on this model."""
    job = [
        *("--recipe", "alfworld-tiny", "--init", str(folder), "--repetitions", "1"),
        *("--groups", str(arguments.tasks), "--minibatches", str(arguments.tasks)),  # a task a step
        *("--group-size", str(arguments.rollouts)),
        f"env.settings={{style: text, max_steps: {arguments.steps}}}",
        f"prompt={{style: full, context: chat, action_tokens: {arguments.answer}, max_prompt_tokens: 2048, "
        f"max_chat_tokens: 8000, admissible: {'on' if arguments.admissible else 'off'}}}",
    ]
    script = Path(__file__).with_name("rl_iteration.py")
    done = subprocess.run([arguments.trl, str(script), *job], stdout=subprocess.PIPE, text=True, check=True)
    print(done.stdout)
    lines = [line for line in done.stdout.splitlines() if line.startswith("ratio")]
    return dict(line.split(": ", 1) for line in lines)


# Everything ---------------------------------------------------------------------------------------


def measure(
    arguments: argparse.Namespace, policy: TransformersPolicy, job: Job, folder: Path
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    parts = arguments.parts
    if "raw" in parts:
        found["raw"] = raw_speed(policy, arguments.repetitions)
    for mode in ("chat", "window"):
        if mode not in parts:
            continue
        ours, theirs, samples, given = play(policy, job, mode, arguments.answer)
        found[mode] = {
            "seconds": sum(ours.cpu),
            "seconds_generate": sum(theirs.cpu),
            "times_faster": sum(theirs.cpu) / sum(ours.cpu),
            "prompt_tokens_given_to_generate": given,
        }
        if "update" in parts:
            found[f"update_{mode}"] = update(policy, samples)
    if "kernels" in parts:
        found["kernels"] = with_and_without_kernels(policy, job, arguments.answer)
    if "memory" in parts:
        found["cache_gb"] = cache_memory(policy.model.config)
    if arguments.llama:
        found["llama_cpp"] = llama(arguments.llama, arguments.gguf)
    if arguments.trl:
        found["trl"] = trl(arguments, folder)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, help="a folder with a model  [default: random weights]")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--quick", action="store_true", help="a small job and a small model, seconds")
    parser.add_argument("--tasks", type=int, default=2)
    parser.add_argument("--rollouts", type=int, default=8)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--admissible", action="store_true", help="prompts list the possible actions")
    parser.add_argument("--answer", type=int, default=20, help="tokens of an answer")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument(
        "--parts", nargs="*", default=["raw", "chat", "window", "kernels", "update", "memory"]
    )
    parser.add_argument("--trl", help="an interpreter with trl and datasets")
    parser.add_argument("--llama", type=Path, help="a folder with node-llama-cpp (see llama_cpp.mjs)")
    parser.add_argument("--gguf", type=Path, help="the model for llama.cpp")
    parser.add_argument("--out", type=Path, help="where to write the figures, as JSON")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    shape = dict(SHAPE)
    if arguments.quick:
        shape |= {"num_hidden_layers": 1, "vocab_size": 2000}
        arguments.tasks, arguments.rollouts, arguments.steps = 1, 2, 2
        arguments.answer, arguments.repetitions = 3, 1
    job = record(arguments.tasks, arguments.rollouts, arguments.steps, admissible=arguments.admissible)
    with tempfile.TemporaryDirectory() as made:
        folder = arguments.model or random_model(Path(made), job, shape)
        policy = load(folder, arguments.dtype)
        found = measure(arguments, policy, job, folder)
    found["run"] = {"argv": sys.argv[1:], "versions": versions("torch", "transformers")}
    text = json.dumps(found, indent=1)
    if arguments.out:
        arguments.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
