"""A model's chat template must go with the prompts, wherever the model is used."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest

from repro_rl.config import PromptSection, load_config
from repro_rl.errors import PreflightError
from repro_rl.policy import TextCodec
from repro_rl.run.preflight import check_model_text
from repro_rl.run.setup import Setup, set_up
from repro_rl.study.evaluate import EvalRequest, evaluate
from support.chat_families import family_tokenizer
from support.qwen import small_codec

ALLOWED = {  # template, policy.thinking -> the formats that go with it
    ("qwen3", False): ("off", "optional"),  # the template closes the thought
    ("qwen3", True): ("optional", "required"),
    ("qwen2.5", False): ("off", "optional", "required"),  # has no switch
    ("qwen2.5", True): (),
    ("deepseek", False): ("optional", "required"),  # always opens a thought
    ("deepseek", True): ("optional", "required"),
    ("deepseek-v3.1", False): ("off", "optional"),  # opens or closes one
    ("deepseek-v3.1", True): ("optional", "required"),
    ("chatml", False): ("off", "optional", "required"),
    ("chatml", True): (),
}
REASONS = {
    ("qwen3", False, "required"): r"'required', but with policy.thinking=false",
    ("qwen3", True, "off"): r"'off', but with policy.thinking=true",
    ("qwen2.5", True, "optional"): "has no such switch; set policy.thinking=false",
    ("deepseek", False, "off"): "opens a thought before every answer, but the format has none",
    ("deepseek", True, "off"): "opens a thought before every answer, but the format has none",
    ("deepseek-v3.1", False, "required"): "closes the thought before the answer begins",
    ("deepseek-v3.1", True, "off"): r"'off', but with policy.thinking=true",
    ("chatml", True, "required"): "has no such switch",
}


def codec_of(name: str, thinking: bool = False) -> TextCodec:
    if name.startswith("qwen"):
        return small_codec(name, thinking=thinking)
    return TextCodec(family_tokenizer(name), thinking=thinking)


@pytest.mark.parametrize("think", ["off", "optional", "required"])
@pytest.mark.parametrize(("name", "thinking"), ALLOWED)
def test_the_template_and_the_format_must_agree_on_thoughts(name, thinking, think):
    text, prompt = codec_of(name, thinking), PromptSection(style="full", think=think)
    if think in ALLOWED[name, thinking]:
        check_model_text(prompt, text)
        return
    with pytest.raises(PreflightError, match=REASONS.get((name, thinking, think), "think")):
        check_model_text(prompt, text)


def test_a_template_that_always_closes_a_thought_needs_no_switch():
    tokenizer = family_tokenizer("chatml")
    tokenizer.chat_template += "{% if add_generation_prompt %}<think></think>{% endif %}"
    text = TextCodec(tokenizer)
    check_model_text(PromptSection(style="full", think="optional"), text)
    with pytest.raises(PreflightError, match=r"before the answer begins; set prompt\.think"):
        check_model_text(PromptSection(style="full", think="required"), text)


@pytest.mark.parametrize("think", ["off", "optional", "required"])
def test_a_thought_in_other_tags_than_answers_have_is_refused(think):
    tokenizer = family_tokenizer("chatml")
    tokenizer.chat_template += "{% if add_generation_prompt %}<thought>\n{% endif %}"
    with pytest.raises(PreflightError, match=r"opens a thought with <thought> .*policy\.chat=off"):
        check_model_text(PromptSection(style="full", think=think), TextCodec(tokenizer))


def test_compact_prompts_have_no_thoughts():
    check_model_text(PromptSection(style="compact"), codec_of("qwen3", True))
    with pytest.raises(PreflightError, match=r"opens a thought .*prompt\.style=full"):
        check_model_text(PromptSection(style="compact"), codec_of("deepseek"))


def test_without_its_chat_template_a_model_has_no_switch_to_check():
    text = small_codec("qwen3", chat="off", thinking=True)
    for think in ("off", "required"):
        check_model_text(PromptSection(style="full", think=think, context="chat"), text)


def test_conversations_need_a_template_whose_conversations_can_grow():
    tokenizer = family_tokenizer("chatml")
    tokenizer.chat_template = "ask: {{ messages[-1].content }} tell: "
    check_model_text(PromptSection(style="full"), TextCodec(tokenizer))
    with pytest.raises(PreflightError, match=r"'chat', but .* does not show earlier answers"):
        check_model_text(PromptSection(style="full", context="chat"), TextCodec(tokenizer))


def test_a_date_is_warned_of():
    with pytest.warns(UserWarning, match=r"writes today's date. It is fixed to 2024-07-26"):
        check_model_text(PromptSection(style="full"), codec_of("llama3"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_model_text(PromptSection(style="full"), codec_of("gemma"))


# Wherever a model is used -------------------------------------------------------------------------


@pytest.fixture
def thinker(warm, tmp_path) -> Path:
    """The warm start with a chat template that opens a thought before every answer."""
    folder = tmp_path / "thinker"
    shutil.copytree(warm.model, folder)
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content }} {% endfor %}{% if add_generation_prompt %}<think>{% endif %}"
    )
    return folder


USES = {
    "train or warmup": lambda setup, folder: setup.load_trained(folder, resumed=False),
    "pilot or play": lambda setup, folder: setup.agent(folder),
    "evaluation": lambda setup, folder: evaluate(setup.config, folder, EvalRequest("x")),
    "frozen judge": lambda setup, folder: judged_by(setup, folder).frozen_judge(folder),
}


def judged_by(setup: Setup, folder: Path) -> Setup:
    method = setup.config.method.model_copy(update={"judge": "reference"})
    train = setup.config.train.model_copy(update={"init": str(folder)})
    config = setup.config.model_copy(update={"method": method, "train": train})
    assert config.method.judged_by_reference
    return set_up(config)


@pytest.mark.parametrize("use", USES)
def test_every_use_is_checked(use, warm, thinker):
    setup = set_up(load_config(None, [*warm.settings, "eval.tasks=8"]))
    with pytest.raises(PreflightError, match=f"chat template of {thinker} opens a thought"):
        USES[use](setup, thinker)
