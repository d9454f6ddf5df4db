"""Small tokenizers with the control tokens and chat templates of the model families, in our own words.

The templates write what the families' own templates write for turns of text without tools. Tokenizers are of
three kinds: byte-level BPE (Llama 3, Qwen), BPE and Unigram with a sign for spaces (Llama 2, Mistral, Gemma).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from repro_rl.policy.tokens.qwen_tokenizer import qwen_facts

CORPUS = [
    "push up push down push left push right <action> </action> <progress> </progress> step 1: 20 you are",
    "User: what now? Assistant: go to shelf 1 [INST] [/INST] user assistant model system \n\n",
] * 50


@dataclass(frozen=True, slots=True)
class Family:
    """How a family writes conversations."""

    kind: str  # "bytes" | "spaces" | "unigram", the kind of tokenizer
    special: tuple[str, ...]  # control tokens
    eos: str  # that the tokenizer names
    end: tuple[str, ...]  # what the template writes behind an answer, as tokens
    template: str  # Jinja2
    bos: str | None = None
    plain: tuple[str, ...] = ()  # control tokens that the tokenizer does not call special
    rstrip: bool = False  # control tokens take in the white space behind them
    same_history: bool = True  # earlier turns are written as new ones


_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_ALTERNATE = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('turns must alternate') }}{% endif %}{% endfor %}"
)
_LLAMA3_TURN = "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>"
_DEEPSEEK_SPECIAL = ("<|begin|>", "<|end|>", "<|User|>", "<|Assistant|>")

FAMILIES: dict[str, Family] = {
    "chatml": Family(
        "bytes",
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        "<|im_end|>",
        ("<|im_end|>",),
        "{% if messages[0].role != 'system' %}<|im_start|>system\nBe of use<|im_end|>\n{% endif %}" + _CHATML,
    ),
    "gemma": Family(
        "spaces",
        ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
        "<eos>",
        ("<end_of_turn>",),
        "{{ bos_token }}" + _ALTERNATE + "{% for m in messages %}<start_of_turn>"
        "{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
        "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
        bos="<bos>",
    ),
    "llama3": Family(
        "bytes",
        ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|end_of_text|>",
        ("<|eot_id|>",),
        "{{ bos_token }}<|start_header_id|>system<|end_header_id|>\n\nToday Date: "
        "{{ strftime_now('%d %b %Y') }}\n\n<|eot_id|>{% for m in messages %}" + _LLAMA3_TURN + "{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
        bos="<|begin_of_text|>",
    ),
    "llama2": Family(
        "spaces",
        ("<unk>", "<s>", "</s>"),
        "</s>",
        ("▁", "</s>"),
        _ALTERNATE + "{% for m in messages %}{% if m.role == 'user' %}"
        "{{ bos_token + '[INST] ' + m.content.strip() + ' [/INST]' }}{% else %}"
        "{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
        bos="<s>",
    ),
    "mistral": Family(
        "spaces",
        ("<unk>", "<s>", "</s>", "[INST]", "[/INST]"),
        "</s>",
        ("</s>",),
        "{{ bos_token }}" + _ALTERNATE + "{% for m in messages %}{% if m.role == 'user' %}"
        "[INST] {{ m.content }}[/INST]{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}",
        bos="<s>",
    ),
    "zephyr": Family(
        "spaces",
        ("<unk>", "<s>", "</s>"),
        "</s>",
        ("</s>",),
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content + eos_token }}\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
        bos="<s>",
    ),
    "phi3": Family(
        "spaces",
        ("<unk>", "<s>", "</s>", "<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"),
        "<|endoftext|>",
        ("<|end|>",),
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}",
        bos="<s>",
        rstrip=True,
    ),
    "phi4": Family(
        "bytes",
        ("<|endoftext|>", "<|im_start|>", "<|im_sep|>", "<|im_end|>"),
        "<|endoftext|>",
        ("<|im_end|>",),
        "{% for m in messages %}<|im_start|>{{ m.role }}<|im_sep|>{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}",
    ),
    "command-r": Family(
        "bytes",
        ("<BOS>", "<EOS>", "<|START|>", "<|END|>", "<|USER|>", "<|CHATBOT|>"),
        "<EOS>",
        ("<|END|>",),
        "{{ bos_token }}{% for m in messages %}<|START|>"
        "{{ '<|CHATBOT|>' if m.role == 'assistant' else '<|USER|>' }}{{ m.content.strip() }}<|END|>"
        "{% endfor %}{% if add_generation_prompt %}<|START|><|CHATBOT|>{% endif %}",
        bos="<BOS>",
    ),
    "deepseek": Family(
        "bytes",
        _DEEPSEEK_SPECIAL,
        "<|end|>",
        ("<|end|>",),
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<|User|>{{ m.content }}{% else %}"
        "<|Assistant|>{{ m.content.split('</think>')[-1] }}<|end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}",
        bos="<|begin|>",
        plain=("<think>", "</think>"),
        same_history=False,
    ),
    "deepseek-v3.1": Family(
        "bytes",
        _DEEPSEEK_SPECIAL,
        "<|end|>",
        ("<|end|>",),
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<|User|>{{ m.content }}{% else %}"
        "<|Assistant|></think>{{ m.content.split('</think>')[-1] }}<|end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|Assistant|>{{ '<think>' if thinking else '</think>' }}{% endif %}",
        bos="<|begin|>",
        plain=("<think>", "</think>"),
    ),
    "glm": Family(
        "bytes",
        ("<|endoftext|>", "[gMASK]", "<sop>", "<|user|>", "<|assistant|>"),
        "<|endoftext|>",
        ("<|user|>",),
        "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}",
    ),
    "granite": Family(
        "bytes",
        ("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"),
        "<|end_of_text|>",
        ("<|end_of_text|>",),
        "{% for m in messages %}<|start_of_role|>{{ m.role }}<|end_of_role|>{{ m.content }}<|end_of_text|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}",
    ),
    "olmo": Family(
        "bytes",
        ("<|endoftext|>", "<|pad|>"),
        "<|endoftext|>",
        ("<|endoftext|>",),
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<|user|>\n{{ m.content }}\n{% else %}"
        "<|assistant|>\n{{ m.content }}{{ eos_token }}\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
        bos="<|endoftext|>",
    ),
    "vicuna": Family(
        "unigram",
        ("<unk>", "<s>", "</s>"),
        "</s>",
        ("</s>",),
        "{{ bos_token }}A chat. {% for m in messages %}{% if m.role == 'user' %}USER: {{ m.content }} "
        "{% else %}ASSISTANT: {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT:{% endif %}",
        bos="<s>",
    ),
    "exaone": Family(
        "bytes",
        ("[BOS]", "[|endofturn|]", "[|user|]", "[|assistant|]"),
        "[|endofturn|]",
        ("[|endofturn|]",),
        "{% for m in messages %}[|{{ m.role }}|]{{ m.content }}"
        "{{ '[|endofturn|]\n' if m.role == 'assistant' else '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}[|assistant|]{% endif %}",
        bos="[BOS]",
    ),
    "harmony": Family(
        "bytes",
        ("<|return|>", "<|start|>", "<|channel|>", "<|message|>", "<|end|>"),
        "<|return|>",
        ("<|end|>",),
        "{% for m in messages %}{% if m.role == 'user' %}<|start|>user<|message|>{{ m.content }}<|end|>"
        "{% else %}<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|end|>{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}",
    ),
    "chatml without a generation prompt": Family(
        "bytes",
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        "<|endoftext|>",
        ("<|im_end|>",),
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}",
    ),
}


def family_tokenizer(name: str) -> Any:
    """The family's tokenizer with its chat template; a new object at every call."""
    family = FAMILIES[name]
    return tokenizer_of(
        family.kind,
        family.special,
        bos=family.bos,
        eos=family.eos,
        plain=family.plain,
        rstrip=family.rstrip,
        template=family.template,
    )


def tokenizer_of(
    kind: str,
    special: Sequence[str],
    *,
    eos: str,
    bos: str | None = None,
    plain: Sequence[str] = (),
    rstrip: bool = False,
    template: str | None = None,
) -> Any:
    """A fast tokenizer of transformers. A BOS is written before every text, as Llama's does."""
    from tokenizers import AddedToken, Tokenizer, processors
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer.from_str(_trained(kind, tuple(special)))
    core.add_special_tokens([AddedToken(n, special=True, normalized=False, rstrip=rstrip) for n in special])
    core.add_tokens([AddedToken(n, special=False, normalized=False) for n in plain])
    if bos is not None:
        core.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, core.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=bos,
        eos_token=eos,
        unk_token="<unk>" if "<unk>" in special else None,
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )


@cache
def _trained(kind: str, special: tuple[str, ...]) -> str:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    alphabet = sorted({*"".join(CORPUS).replace(" ", "▁"), *map(chr, range(33, 127)), "▁"})
    if kind == "bytes":
        core = Tokenizer(models.BPE())
        core.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(qwen_facts().pattern), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        core.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=350,
            special_tokens=list(special),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    elif kind == "spaces":
        core = Tokenizer(models.BPE())
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        core.decoder = decoders.Metaspace(prepend_scheme="first")
        trainer = trainers.BpeTrainer(
            vocab_size=250, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
        )
    else:
        core = Tokenizer(models.Unigram())
        core.normalizer = normalizers.NFKC()
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        core.decoder = decoders.Metaspace(prepend_scheme="always")
        trainer = trainers.UnigramTrainer(
            vocab_size=200,
            special_tokens=list(special),
            unk_token="<unk>",
            initial_alphabet=alphabet,
            show_progress=False,
        )
    core.train_from_iterator(CORPUS, trainer)
    return str(core.to_str())
