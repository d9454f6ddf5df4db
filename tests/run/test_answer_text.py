"""Tokenizers that change what is written: answers that would all be malformed are refused."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from repro_rl import make
from repro_rl.errors import PreflightError
from repro_rl.policy.tokens.codec import TextCodec
from repro_rl.run.answer_length import answer_lengths, check_answers
from repro_rl.run.answer_text import misread_actions, misread_reflection
from repro_rl.text import PromptBuilder, TextFormat
from support.chat_families import FAMILIES, family_tokenizer

FULL = TextFormat("full")


def wordpiece() -> Any:
    """As that of BERT: spaces around punctuation are not kept."""
    words = ["push", "up", "down", "left", "right", "action", "progress", "step"]
    letters = [chr(code) for code in range(33, 127)]
    tokens = ["[PAD]", "[UNK]", "[SEP]", *letters, *(f"##{letter}" for letter in letters), *words]
    core = Tokenizer(models.WordPiece({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]"))
    core.pre_tokenizer, core.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="[UNK]", pad_token="[PAD]", eos_token="[SEP]"
    )


def normalising(normalizer: Any) -> Any:
    """Byte-level, but ``normalizer`` changes texts before."""
    core = Tokenizer(models.BPE())
    core.normalizer = normalizer
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(special_tokens=["<eos>"], initial_alphabet=alphabet, show_progress=False)
    core.train_from_iterator(["go to shelf 1"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>")


def test_tags_with_spaces_in_them_are_refused():
    codec, prompts = TextCodec(wordpiece()), PromptBuilder(TextFormat("full", progress=False))
    env = make("sokoban")
    found = answer_lengths(env, env.panel("train").ids[0], prompts, codec)
    assert found.misread.share == 1
    with pytest.raises(PreflightError) as caught:
        check_answers(1000, prompts.fmt, found)
    message = str(caught.value)
    assert "cannot write 4 of 4 answers" in message
    assert "'<action>up</action>' reads back as '< action > up < / action >'" in message
    assert "the action '' with text_outside_tags, no_action, and not 'up'" in message


def test_small_letters_are_another_action():
    codec, prompts = TextCodec(normalising(normalizers.Lowercase())), PromptBuilder(FULL)
    actions = ["go to Shelf 1", "look", "wait"]
    answers = {prompts.action_target(0, action): action for action in actions}
    found = misread_actions(answers, FULL, codec)
    assert found.share == pytest.approx(1 / 3)
    assert not found.most
    assert "1 of 3 answers" in found.sentence
    assert "which is the action 'go to shelf 1', and not 'go to Shelf 1'" in found.sentence
    assert misread_actions(dict(list(answers.items())[1:]), FULL, codec) is None


def test_reflections_need_their_lines():
    codec = TextCodec(normalising(normalizers.Replace(Regex(r"\s+"), " ")))
    prompts = PromptBuilder(FULL)
    assert misread_actions({prompts.action_target(40, "go to shelf 1"): "go to shelf 1"}, FULL, codec) is None
    assert "reads back as '<progress> step 1: 0 step 2: 40 step 3: 100 </progress>', with " in (
        misread_reflection(prompts, codec) or ""
    )


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("style", ["full", "compact"])
def test_the_tokenizers_of_all_families_write_both(name, style):
    codec, prompts = TextCodec(family_tokenizer(name)), PromptBuilder(TextFormat(style))
    answers = {prompts.action_target(n, "go to Shelf 1"): "go to Shelf 1" for n in (0, 100)}
    assert misread_actions(answers, prompts.fmt, codec) is None
    assert misread_reflection(prompts, codec) is None
