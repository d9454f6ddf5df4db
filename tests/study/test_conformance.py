"""``check_model``: its record, failing models, the command, and the table of docs/architectures.md."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from repro_rl.config import load_config
from repro_rl.errors import CheckpointError
from repro_rl.policy import TransformersPolicy
from repro_rl.policy.exactness import logprobs_of
from repro_rl.policy.tokens.codec import TextCodec
from repro_rl.study import conformance
from repro_rl.study.conformance import check_model
from repro_rl.study.model_facts import model_facts
from support import architectures
from support.architectures import FAMILIES
from support.command import run_command

BY_NAME = {family.name: family for family in FAMILIES}
CHECKS = ["window sampling", "chat sampling", "update", "learning", "checkpoint"]


@pytest.fixture(scope="module")
def words():
    return architectures.tokenizer()


@pytest.fixture(scope="module")
def llama(tmp_path_factory, words):
    return architectures.save(BY_NAME["Llama"], tmp_path_factory.mktemp("llama"), words)


def config(*overrides):
    return load_config("sokoban-tiny", ["policy.packed=false", *overrides])


def failed(found):
    return {check.name: check.detail for check in found.checks if not check.ok}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_the_page_says_what_the_check_says(family, tmp_path, words):
    assert architectures.written_rows()[family.name] == architectures.row(family, tmp_path, words)


def test_the_page_lists_these_families_and_no_other():
    assert list(architectures.written_rows()) == [family.name for family in FAMILIES]


def test_a_model_that_passes(llama):
    found = check_model(llama, config())
    assert failed(found) == {}
    assert found.ok
    assert [check.name for check in found.checks] == CHECKS
    assert found.model == str(llama)
    assert max(found.window.largest, found.chat.largest) <= 1e-5
    # 5 answers to single prompts; of 5 conversations 4 have three turns
    assert found.window.tokens <= 5 * conformance.WINDOW_TOKENS
    assert found.chat.tokens <= 14 * conformance.CHAT_TOKENS


def test_the_facts_by_hand(llama):
    facts = check_model(llama, config()).facts
    assert facts["stop tokens"] == "'<|endoftext|>' (0), '<|im_end|>' (2)"
    assert facts["an answer ends with"] == "'<|im_end|>' (2)"
    assert facts["prompts begin with"].startswith("'<|im_start|>user")
    assert facts["positions"] == "256"
    assert facts["chat context"] == "the KV cache is kept between turns"
    # keys and values of 2 layers x 2 heads x 8 numbers of 4 bytes, 1,000 tokens
    assert "KV cache 256.0 kB for 1,000 tokens," in facts["memory"]
    parameters = int(facts["model"].split()[1].replace(",", ""))
    assert f"weights {4 * parameters / 1e3:.1f} kB" in facts["memory"]
    assert f"training {16 * parameters / 1e3:.1f} kB" in facts["memory"]


def test_what_a_chat_template_demands_or_opens_is_said():
    demand = "{% if messages[0].role != 'system' %}{{ raise_exception('system first') }}{% endif %}"
    for before, after, said in (
        (demand, "", "it demands a system message, which is ''"),
        ("", "{% if add_generation_prompt %}[THINK]{% endif %}", "it opens a thought with [THINK]"),
    ):
        tokenizer = architectures.tokenizer()
        tokenizer.chat_template = before + tokenizer.chat_template + after
        model = architectures.build(BY_NAME["Llama"], len(tokenizer))
        facts = model_facts(TransformersPolicy(model, TextCodec(tokenizer)), "adamw")
        assert f"policy.thinking=false; {said}" in facts["chat template"]


def test_an_adapter_is_trained_and_comes_back(llama):
    found = check_model(llama, config("policy.lora.rank=4"))
    assert failed(found) == {}
    assert "of them trained (an adapter)" in found.facts["model"]


def test_the_packed_engine(tmp_path, words):
    folder = architectures.save(BY_NAME["Qwen3"], tmp_path, words)
    found = check_model(folder, config("policy.packed=true"))
    assert failed(found) == {}
    assert found.facts["sampling"].startswith("packed engine")


def test_bfloat16_has_a_wider_tolerance(llama):
    found = check_model(llama, config("policy.dtype=bfloat16"))
    assert found.window.largest > 1e-5
    assert set(failed(found)) <= {"learning"}  # small steps may be lost in rounding, which is said


def test_numbers_that_overflow_in_a_step_are_named(llama, monkeypatch):
    monkeypatch.setattr(conformance, "LEARNING_RATES", (float("inf"),))
    found = failed(check_model(llama, config()))
    assert "numbers overflow the range of float32" in found["learning"]
    assert "the loss is nan after an optimizer step" in found["learning"]


def test_noise_in_training_mode_is_found(llama, monkeypatch):
    """What dropout does: the update is another distribution than the sampler's."""
    load = TransformersPolicy.load.__func__

    def noisy(cls, *args, **kwargs):
        policy = load(cls, *args, **kwargs)
        policy.model.model.norm.register_forward_hook(
            lambda module, inputs, out: (
                out * (1 + 0.1 * torch.randn_like(out)) if policy.model.training else out
            )
        )
        return policy

    monkeypatch.setattr(TransformersPolicy, "load", classmethod(noisy))
    assert set(failed(check_model(llama, config()))) == {"update"}


def test_a_step_that_does_not_learn_is_found(llama, monkeypatch):
    monkeypatch.setattr(conformance, "LEARNING_RATES", (0.0,))
    found = check_model(llama, config())
    assert set(failed(found)) == {"learning"}
    assert "policy.dtype=float32" in failed(found)["learning"]


def test_a_checkpoint_that_is_another_model_is_found(llama, monkeypatch):
    save = TransformersPolicy.save

    def spoiled(self, folder):
        with torch.no_grad():
            self.model.lm_head.weight.mul_(1.5)
        save(self, folder)

    monkeypatch.setattr(TransformersPolicy, "save", spoiled)
    assert set(failed(check_model(llama, config()))) == {"checkpoint"}


def test_too_little_memory_is_said_before_the_step(llama, monkeypatch):
    monkeypatch.setattr(conformance, "free_bytes", lambda device: 1000)
    assert "policy.lora.rank=16" in failed(check_model(llama, config()))["learning"]


@pytest.mark.parametrize(
    ("place", "check"),
    [
        ("window_deviation", "window sampling"),
        ("chat_deviation", "chat sampling"),
        ("policy_loss", "update"),
        ("build_optimizer", "learning"),
        ("imitation_loss", "learning"),
    ],
)
def test_memory_that_runs_out_in_a_check_is_explained(place, check, llama, monkeypatch):
    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 GiB.")

    monkeypatch.setattr(conformance, place, full)
    assert failed(check_model(llama, config())) == {
        check: f"Out of memory while checking {check}: CUDA out of memory. Tried to allocate 2.00 GiB. Train "
        "an adapter (policy.lora.rank=16), or take a smaller model or a larger machine. 'repro-rl plan' says "
        "what each part takes."
    }


def test_memory_that_an_adapter_lacks_calls_for_no_adapter(llama, monkeypatch):
    pytest.importorskip("peft")
    monkeypatch.setattr(conformance, "free_bytes", lambda device: 1)
    adapted = failed(check_model(llama, config("policy.lora.rank=2")))["learning"]
    assert adapted.endswith("are free; take a smaller model or a larger machine")


def test_settings_of_prompts_that_the_template_contradicts(llama):
    found = check_model(llama, config("prompt.action_tokens=20"), prompts=True)
    assert [check.name for check in found.checks] == [*CHECKS[:-1], "prompts", "checkpoint"]
    assert found.ok


def test_a_limit_that_cuts_off_every_answer(llama):
    """That of a recipe for tiny models, whose words are a token each."""
    assert "every answer would be cut off" in failed(check_model(llama, config(), prompts=True))["prompts"]


def test_a_tokenizer_that_cannot_write_the_prompts(tiny_folder):
    """The tiny model of another environment has no tokens for these prompts."""
    settings = load_config("alfworld-tiny", [])
    found = check_model(tiny_folder, settings, prompts=True)
    assert "The tokenizer does not know" in failed(found)["prompts"]


def test_a_refused_model(tmp_path, words):
    folder = architectures.save(BY_NAME["BERT, RoBERTa and other encoders"], tmp_path, words)
    with pytest.raises(CheckpointError, match="decoder-only"):
        check_model(folder, config())


# The command --------------------------------------------------------------------------------------


def test_the_command(llama, capsys, monkeypatch):
    status, printed = run_command(capsys, monkeypatch, "doctor", "--model", llama, "policy.packed=false")
    assert status == 0, printed
    assert re.search(r"stop tokens\W+'<\|endoftext\|>' \(0\), '<\|im_end\|>' \(2\)", printed)
    assert printed.count("✓") == len(CHECKS)


def test_the_command_fails_with_what_to_do(llama, capsys, monkeypatch):
    monkeypatch.setattr(conformance, "LEARNING_RATES", (0.0,))
    words = ("doctor", "-m", llama, "-c", "sokoban-tiny", "policy.packed=false", "prompt.action_tokens=20")
    status, printed = run_command(capsys, monkeypatch, *words)
    assert status == 1
    assert "(learning failed); see docs/refused-models.md" in printed
    assert "policy.dtype=float32" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "x", "sokoban"], "only SECTION.KEY=VALUE may follow"),
        (["-c", "sokoban-tiny"], "--config belongs to --model"),
    ],
)
def test_words_that_do_not_belong_there(words, message, capsys, monkeypatch):
    status, printed = run_command(capsys, monkeypatch, "doctor", *words)
    assert status == 2
    assert message in " ".join(printed.split())


def test_the_update_is_checked_on_tokens_that_the_model_samples(tmp_path, words, monkeypatch):
    """In half precision the log-probs of improbable tokens are coarse; a run never trains on them."""
    folder = architectures.save(BY_NAME["Llama"], tmp_path, words)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] *= 150  # a model that is sure of its tokens
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    def coarse(policy, ids):
        found = logprobs_of(policy, ids)
        return np.where(found < -20, found + 1, found)

    monkeypatch.setattr(conformance, "logprobs_of", coarse)
    assert failed(check_model(folder, config())) == {}
