"""What verl's supervised trainer makes of a row, and which chat templates that is refused for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from repro_rl.config import load_config
from repro_rl.errors import CheckpointError, ConfigError
from repro_rl.integrations.verl.data import sft_rows
from repro_rl.integrations.verl.launch import prepare_run
from repro_rl.integrations.verl.recipe import VerlRecipe
from repro_rl.integrations.verl.rendering import check_rendering, find_codec, row_form
from repro_rl.policy.tokens.codec import TextCodec
from repro_rl.policy.tokens.message_form import PLAIN, MessageForm
from repro_rl.run.setup import set_up
from support.chat_families import family_tokenizer
from support.qwen import small_codec
from support.verl_cases import CHAT_TEMPLATE


def family(name: str, *changes: tuple[str, str]) -> TextCodec:
    tokenizer = family_tokenizer(name)
    for old, new in changes:
        assert old in tokenizer.chat_template
        tokenizer.chat_template = tokenizer.chat_template.replace(old, new)
    return TextCodec(tokenizer)


AS_PARTS = ("{{ m.content }}", "{% for c in m.content if c.type == 'text' %}{{ c.text }}{% endfor %}")


@pytest.mark.parametrize("name", ["chatml", "phi4", "command-r", "olmo", "granite", "llama3", "vicuna"])
def test_templates_that_write_messages_one_by_one_are_taken(name):
    """As verl 0.9.1 itself renders them: its dataset gave the tokens of our warmup for each of these."""
    assert check_rendering(family(name)) == []


def test_contents_as_lists_of_parts_are_rendered_too():
    codec = family("chatml", AS_PARTS)
    assert codec.template.form == MessageForm(parts=True)
    assert check_rendering(codec) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gemma", "turns must alternate"),  # verl measures on two user turns
        ("mistral", "turns must alternate"),
        ("phi3", "other tokens"),  # writes an end of text behind the question
        ("zephyr", "other tokens"),  # its tokenizer begins every text with a space
        ("deepseek", "other tokens"),
    ],
)
def test_other_templates_are_refused(name, words):
    with pytest.raises(ConfigError, match=rf"(?s){words}.*'repro-rl warmup' in its place"):
        check_rendering(family(name))


def test_a_template_that_demands_a_system_message_is_refused():
    first = "{% if messages[0].role != 'system' %}<|im_start|>system\nBe of use<|im_end|>\n{% endif %}"
    demand = first.replace("<|im_start|>system\nBe of use<|im_end|>\n", "{{ raise_exception('no system') }}")
    codec = family("chatml", (first, demand))
    assert codec.template.form.system == ""
    with pytest.raises(ConfigError, match=r"demands a system message.*'repro-rl warmup' in its place"):
        check_rendering(codec)


def test_qwen_templates():
    """Qwen3 closes a thought before an answer, but not where it renders the answer by itself."""
    assert check_rendering(small_codec("qwen2.5")) == []
    with pytest.raises(ConfigError, match="other tokens"):
        check_rendering(small_codec("qwen3"))
    [remark] = check_rendering(small_codec("qwen3", thinking=True))
    assert "data.ignore_input_ids_mismatch=true" in remark


def model_with(template: str | None, warm, folder: Path) -> Path:
    """The warm start's model with a chat template."""
    shutil.copytree(warm.model, folder)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder


def test_rows_have_the_form_that_the_models_template_wants(warm, tmp_path):
    parts = CHAT_TEMPLATE.replace("{{ m.content }}", AS_PARTS[1])
    model = model_with(parts, warm, tmp_path / "model")
    setup = set_up(load_config(None, [*warm.settings, f"policy.model={model}"]))
    form, remarks = row_form(setup)
    assert (form, remarks) == (MessageForm(parts=True), [])
    plain, rows = sft_rows(setup, warm.demos), sft_rows(setup, warm.demos, form)
    assert plain
    for row, same in zip(rows, plain, strict=True):
        texts = [message["content"] for message in same["messages"]]
        assert [message["content"] for message in row["messages"]] == [
            [{"type": "text", "text": text}] for text in texts
        ]
        assert {key: row[key] for key in row if key != "messages"} == {
            key: same[key] for key in same if key != "messages"
        }


def test_models_that_verl_could_not_render_rows_for(warm, tmp_path):
    bare = model_with(None, warm, tmp_path / "bare")
    setup = set_up(load_config(None, [*warm.settings, f"policy.model={bare}"]))
    with pytest.raises(ConfigError, match="has no chat template, but verl's supervised trainer renders"):
        row_form(setup)
    chat = model_with(CHAT_TEMPLATE, warm, tmp_path / "chat")
    setup = set_up(load_config(None, [*warm.settings, f"policy.model={chat}", "policy.chat=off"]))
    with pytest.raises(ConfigError, match=r"policy\.chat is 'off', but verl's supervised trainer renders"):
        row_form(setup)


def test_a_model_that_is_not_here(warm, tmp_path):
    """The tiny model is not built yet; a hub name may be there where verl runs; a folder must be right."""
    assert row_form(set_up(load_config(None, warm.settings))) == (PLAIN, [])
    setup = set_up(load_config(None, [*warm.settings, "policy.model=someone/nothing-here"]))
    form, [remark] = row_form(setup)
    assert form == PLAIN
    assert "not checked with the tokenizer of someone/nothing-here, which cannot be read here: " in remark
    (tmp_path / "model").mkdir()
    with pytest.raises(CheckpointError):
        find_codec(setup, str(tmp_path / "model"))


def test_the_manifest_of_a_run_in_verl_tells_what_prompts_depend_on(warm, tmp_path, monkeypatch):
    model = model_with(CHAT_TEMPLATE.replace("{{ m.content }}", AS_PARTS[1]), warm, tmp_path / "model")
    monkeypatch.setattr("repro_rl.integrations.verl.launch.require_pyarrow", lambda: None)
    monkeypatch.setattr("repro_rl.integrations.verl.launch.write_tasks", lambda setup, folder: [])
    settings = ["method.rehearsal=0", "train.kl={form: k3}", "train.minibatches=1", f"train.init={model}"]
    recipe = VerlRecipe(load_config(None, [*warm.settings, *settings]), {})
    prepare_run(recipe, tmp_path / "run")
    text = json.loads((tmp_path / "run" / "manifest.json").read_text())["text"]
    assert (text["chat_template"], text["contents"], text["system_message"]) == (True, "parts", None)
