"""What transformers lets pass silently is an error: foreign models are right, or refused by name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from repro_rl.errors import CheckpointError, ConfigError, DeviceMemoryError
from repro_rl.policy import SamplingSettings, load_codec
from repro_rl.policy.forward.packed import forward
from repro_rl.policy.forward.tree import build_tree
from repro_rl.policy.loading.hub import reason_of
from repro_rl.policy.loading.pretrained import check_causal, check_finite
from support.foreign_models import (
    BERT_LIKE,
    LLAMA_LIKE,
    change_json,
    change_weights,
    copy_tokenizer,
    save_foreign,
)
from support.models import keys_of, load_cpu

LAYER = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture
def llama(tiny_folder, tmp_path) -> Path:
    return save_foreign(tmp_path / "llama", tiny_folder, "llama", tie_word_embeddings=False, **LLAMA_LIKE)


def test_a_padding_token_that_is_read_is_trained_by_the_models_own_pass_too(tiny_folder, tmp_path):
    """SmolLM2 pads with its end of turn. torch.nn.Embedding gives the padding token no gradient."""
    folder = save_foreign(
        tmp_path / "padded", tiny_folder, "llama", **LLAMA_LIKE, tie_word_embeddings=False, pad_token_id=3
    )
    gradients = []
    for packed in (True, False):
        policy = load_cpu(folder, training=True, packed=packed)
        assert policy.model.config.pad_token_id == 3
        tree = build_tree([np.array([1, 3, 2])])
        if packed:
            logits = forward(policy.model, tree, tree.ends())[0]
        else:
            logits = policy.model(input_ids=torch.tensor([[1, 3, 2]]), use_cache=False).logits[0, -1]
        logits.square().sum().backward()
        gradients.append(policy.model.model.embed_tokens.weight.grad)
    assert gradients[0][3].abs().max() > 0
    assert torch.allclose(*gradients, atol=1e-5 * float(gradients[0].abs().max()))


# Weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lm_head.weight", "model.norm.weight", LAYER])
def test_missing_weights_are_named(llama, name):
    change_weights(llama, lambda tensors: tensors.pop(name))
    with pytest.raises(
        CheckpointError, match=rf"{llama}: its file lacks {name}, which would be random"
    ) as caught:
        load_cpu(llama)
    assert "\n" not in str(caught.value)


def test_layers_that_the_file_lacks_are_counted(llama):
    change_json(llama / "config.json", num_hidden_layers=3)
    with pytest.raises(CheckpointError, match=r"lacks model\.layers\.2\.\S+, .* and 6 more"):
        load_cpu(llama)


def test_tied_output_weights_need_not_be_in_the_file(tiny_folder, tmp_path):
    folder = save_foreign(tmp_path / "tied", tiny_folder, "llama", tie_word_embeddings=True, **LLAMA_LIKE)
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    model = load_cpu(folder).model
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


def test_a_folder_without_weights_is_no_model_of_random_ones(llama):
    (llama / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no file named .*model\.safetensors"):
        load_cpu(llama)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", [LAYER, "model.embed_tokens.weight"])
def test_weights_that_are_not_finite_are_named(llama, name, value):
    change_weights(llama, lambda tensors: tensors[name].view(-1)[:1].fill_(value))
    with pytest.raises(CheckpointError, match=rf"{name} hold numbers that are NaN or infinite in float32"):
        load_cpu(llama)


def test_a_buffer_that_is_saved_and_not_a_number_is_named(llama):
    model = load_cpu(llama).model
    model.register_buffer("scale", torch.ones(2))
    model.register_buffer("mask", torch.tensor([0.0, float("-inf")]))
    model.register_buffer("unsaved", torch.tensor([float("nan")]), persistent=False)
    check_finite(model, llama)
    model.scale[1] = float("nan")
    with pytest.raises(CheckpointError, match=r"scale hold numbers that are NaN"):
        check_finite(model, llama)


def test_every_column_of_the_first_logits_is_looked_at(llama):
    model = load_cpu(llama).model
    with torch.no_grad():
        model.lm_head.weight[-1] = float("nan")
    with pytest.raises(CheckpointError, match="its logits are not finite"):
        check_causal(model, llama)


def test_a_first_pass_without_memory_says_nothing_of_the_model(llama, monkeypatch):
    model = load_cpu(llama).model

    def full(*args, **kwargs):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(model, "forward", full)
    with pytest.raises(DeviceMemoryError, match=r"while trying out .*Take a smaller model"):
        check_causal(model, llama)


@pytest.mark.parametrize(
    "values",
    [
        {"output_attentions": True},
        {"output_hidden_states": True},
        {"return_dict": False},
        {"output_attentions": True, "attn_implementation": "eager"},
        {"torchscript": True},
    ],
    ids=lambda values: "-".join(values),
)
def test_which_outputs_a_configuration_asks_for_plays_no_part(llama, tmp_path, values):
    keys, settings = keys_of(1), SamplingSettings(3)
    [expected] = load_cpu(llama).generate(["left a"], keys, settings)
    change_json(llama / "config.json", **values)
    policy = load_cpu(llama, training=True, packed=False)
    [answer] = policy.generate(["left a"], keys, settings)
    assert answer.token_ids == expected.token_ids
    assert isinstance(policy.model(input_ids=torch.tensor([[1, 2]])).logits, torch.Tensor)
    policy.save(tmp_path / "saved")
    [again] = load_cpu(tmp_path / "saved").generate(["left a"], keys, settings)
    assert again.token_ids == expected.token_ids


def test_weights_that_overflow_in_the_dtype_asked_for_are_named(llama):
    change_weights(llama, lambda tensors: tensors[LAYER].view(-1)[:1].fill_(1e6))
    assert load_cpu(llama).model.dtype == torch.float32
    with pytest.raises(CheckpointError, match=rf"{LAYER} hold numbers .* in float16"):
        load_cpu(llama, dtype="float16")


def test_weights_that_the_model_leaves_out_are_an_error(llama, tmp_path):
    """A layer more than config.json says, or a bias that it denies: another model would be computed."""
    fewer = shutil.copytree(llama, tmp_path / "fewer")
    change_json(fewer / "config.json", num_hidden_layers=1)
    with pytest.raises(
        CheckpointError, match=r"has model\.layers\.1\.\S+, .* and 6 more, for which .* no place"
    ):
        load_cpu(fewer)
    name = "model.layers.0.self_attn.q_proj.bias"
    change_weights(llama, lambda tensors: tensors.update({name: torch.ones(32)}))
    with pytest.raises(CheckpointError, match=rf"has {name}, for which the model has no place"):
        load_cpu(llama)


@pytest.mark.parametrize("name", ["v_head.summary.weight", "vision_tower.patch.weight"])
def test_weights_beside_the_language_model_are_reported(llama, name):
    change_weights(llama, lambda tensors: tensors.update({name: torch.ones(2, 2)}))
    with pytest.warns(UserWarning, match=rf"{name} beside the language model's weights, not used"):
        load_cpu(llama)


def test_shards_are_read_and_a_lost_one_is_an_error(llama, tmp_path):
    whole = load_cpu(llama)
    whole.model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    copy_tokenizer(llama, tmp_path / "shards")
    shards = sorted((tmp_path / "shards").glob("model-*.safetensors"))
    assert len(shards) > 2
    again = load_cpu(tmp_path / "shards")
    for one, two in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, two)
    shards[1].unlink()
    with pytest.raises(
        CheckpointError, match=f"Cannot load a causal LM from {tmp_path / 'shards'}"
    ) as caught:
        load_cpu(tmp_path / "shards")
    assert shards[1].name in str(caught.value)


class _Mark:
    """Unpickled, it writes a file: what a malicious checkpoint does."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_pickled_weights_are_read_as_tensors_alone(llama, tmp_path):
    expected = load_cpu(llama)
    tensors = load_file(llama / "model.safetensors")
    (llama / "model.safetensors").unlink()
    torch.save(tensors, llama / "pytorch_model.bin")
    for one, two in zip(expected.model.parameters(), load_cpu(llama).model.parameters(), strict=True):
        assert torch.equal(one, two)
    torch.save(tensors | {"lm_head.weight": _Mark(tmp_path / "ran")}, llama / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"[Ww]eights.only"):
        load_cpu(llama)
    assert not (tmp_path / "ran").exists()


def test_weights_of_other_shapes_are_named_with_them(llama):
    change_json(llama / "config.json", intermediate_size=48)
    with pytest.raises(CheckpointError, match=r"down_proj\.weight \[32, 64\] for \[32, 48\], .* and 3 more"):
        load_cpu(llama)


def test_the_reason_of_the_library_is_whole_and_one_line():
    error = OSError("Cannot read it.\n  Line two says why.")
    error.__cause__ = ValueError("header too large")
    assert reason_of(error) == "Cannot read it. Line two says why. (header too large)"
    assert reason_of(KeyError()) == "KeyError"
    same = ValueError("x is wrong")
    same.__cause__ = ValueError("is wrong")
    assert reason_of(same) == "x is wrong"


# Kinds of models ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra"])
def test_encoders_are_refused(tiny_folder, tmp_path, kind):
    folder = save_foreign(tmp_path / kind, tiny_folder, kind, **BERT_LIKE)
    with pytest.raises(CheckpointError, match="depend on the token after it, as those of an encoder"):
        load_cpu(folder)


def test_an_encoder_trained_as_a_decoder_is_a_causal_model(tiny_folder, tmp_path):
    folder = save_foreign(tmp_path / "decoder", tiny_folder, "bert", is_decoder=True, **BERT_LIKE)
    assert load_cpu(folder).model.config.is_decoder


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, "encoder-decoder"),
        ({"model_type": "bart", "architectures": ["BartForConditionalGeneration"]}, "encoder-decoder"),
        (
            {"model_type": "qwen2_vl", "architectures": ["Qwen2VLForConditionalGeneration"]},
            "not among the causal",
        ),
        ({"model_type": "llava", "architectures": ["LlavaForConditionalGeneration"]}, "not among the causal"),
        (
            {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"]},
            "not a model of text alone",
        ),
        ({"model_type": "vit", "architectures": ["ViTForImageClassification"]}, "not among the causal"),
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else "",
)
def test_other_kinds_of_models_are_refused_by_name(llama, config, kind):
    """Before any weight is read: those in the folder are not even theirs."""
    (llama / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        CheckpointError, match=rf"{config['architectures'][0]} \({config['model_type']}\) is"
    ) as caught:
        load_cpu(llama)
    assert kind in str(caught.value)
    assert len(str(caught.value)) < 400  # and not the names of all models there are


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes, 4 bits"),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes, 8 bits"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "gptq, 4 bits"),
        ({"quant_method": "fp8", "activation_scheme": "dynamic"}, "fp8"),
        ({"quant_method": "awq", "bits": 4}, "awq, 4 bits"),
        ({"quant_method": "mxfp4"}, "mxfp4"),
        ({"quant_method": "of-tomorrow"}, "of-tomorrow"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_quantised_folders_are_refused_by_name(llama, settings, name):
    change_json(llama / "config.json", quantization_config=settings)
    with pytest.raises(CheckpointError, match=rf"quantised \({name}\).*neither trains nor saves"):
        load_cpu(llama)


def test_no_quantisation_is_no_quantisation(llama):
    change_json(llama / "config.json", quantization_config=None)
    assert load_cpu(llama).model.dtype == torch.float32


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}),  # a table of positions
        ("mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64}),  # ALiBi, built for so many
        ("opt", LLAMA_LIKE | {"ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 64}),
    ],
)
def test_positions_bound_prompts_however_they_are_named(tiny_folder, tmp_path, kind, settings):
    policy = load_cpu(save_foreign(tmp_path / kind, tiny_folder, kind, **settings))
    assert policy.codec.positions == load_codec(tmp_path / kind).positions == 64
    one, two = policy.generate(["a " * 60, "a " * 61], keys_of(2), SamplingSettings(4))
    assert one.error is None
    assert (
        two.error == "prompt_too_long: 61 tokens and 4 new ones are more than the 64 positions of the model"
    )


def test_the_text_part_of_a_larger_model_is_used_where_transformers_loads_it(tiny_folder, tmp_path):
    """Llama 4, built small: what is computed is the text part of the whole, and it is saved alone."""
    from transformers import Llama4Config, Llama4ForConditionalGeneration

    text = LLAMA_LIKE | {"head_dim": 8, "intermediate_size_mlp": 64, "num_local_experts": 2, "vocab_size": 55}
    vision = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    small = {"image_size": 28, "patch_size": 14, "vision_output_dim": 32, "projector_input_dim": 32}
    more = {"projector_output_dim": 32, "attention_dropout": 0.0}
    config = Llama4Config(
        text_config=text
        | {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None, "attention_dropout": 0.5},
        vision_config=vision | small | more,
    )
    torch.manual_seed(0)
    whole = Llama4ForConditionalGeneration(config).eval()
    whole.save_pretrained(tmp_path / "whole")
    copy_tokenizer(tiny_folder, tmp_path / "whole")
    with pytest.warns(UserWarning, match="vision_model"):
        policy = load_cpu(tmp_path / "whole", attention="eager")
    ids = torch.tensor([[3, 4, 5, 6]])
    with torch.no_grad():
        expected = whole(input_ids=ids).logits
        assert torch.allclose(policy.model(input_ids=ids).logits, expected, atol=1e-5)
        policy.save(tmp_path / "text")
        again = load_cpu(tmp_path / "text", attention="eager")
        assert torch.allclose(again.model(input_ids=ids).logits, expected, atol=1e-5)
    saved = json.loads((tmp_path / "text" / "config.json").read_text())
    assert (saved["model_type"], saved["attention_dropout"]) == ("llama4_text", 0.5)
    assert "text_config" not in saved


# Attention ------------------------------------------------------------------------------------

GEMMA2 = LLAMA_LIKE | {"head_dim": 8}
GPT_OSS = GEMMA2 | {"num_local_experts": 4, "num_experts_per_tok": 2}


@pytest.mark.parametrize(
    ("kind", "settings", "attention"),
    [
        ("llama", LLAMA_LIKE, "sdpa"),
        ("gemma2", GEMMA2, "eager"),
        ("gpt_oss", GPT_OSS, "eager"),
        ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}, "eager"),
        ("gptj", {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 128}, "eager"),
    ],
)
def test_attention_is_the_fastest_that_the_model_supports(tiny_folder, tmp_path, kind, settings, attention):
    folder = save_foreign(tmp_path / kind, tiny_folder, kind, **settings)
    assert load_cpu(folder).describe()["attention"] == attention
    if attention == "eager":
        with pytest.raises(
            ConfigError, match=rf"policy\.attention is 'sdpa', .*\({kind}\).*Choices: auto, eager"
        ):
            load_cpu(folder, attention="sdpa")


@pytest.mark.parametrize("attention", ["sdpda", "flash", "paged|sdpa", "somebody/kernels", ""])
def test_an_unknown_attention_is_an_error_with_the_choices(llama, attention):
    with pytest.raises(
        ConfigError, match=r"policy\.attention is .* Choices: auto, sdpa, eager, flex_attention"
    ):
        load_cpu(llama, attention=attention)


def test_flash_attention_that_is_not_here_is_an_error_of_the_setting(llama):
    with pytest.raises(ConfigError, match=r"policy\.attention is 'flash_attention_2'.*Choices: auto, sdpa"):
        load_cpu(llama, attention="flash_attention_2")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_an_explicit_choice_is_what_computes(llama, attention):
    policy = load_cpu(llama, attention=attention)
    assert policy.describe()["attention"] == policy.model.config._attn_implementation == attention


# Code of the model's own ----------------------------------------------------------------------

CODE = """
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
open({mark!r}, "w").close()
class OwnConfig(LlamaConfig):
    model_type = "own"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.fixture
def own_code(llama, tmp_path, monkeypatch) -> tuple[Path, Path]:
    """A folder whose model is code of its own, and the file that this code writes when it runs."""
    mark = tmp_path / "ran"
    (llama / "own.py").write_text(CODE.format(mark=str(mark)))
    change_json(
        llama / "config.json",
        model_type="own",
        architectures=["OwnModel"],
        auto_map={"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"},
    )
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    return llama, mark


def test_code_of_a_model_runs_only_where_a_setting_says_so(own_code):
    folder, mark = own_code
    for load in (load_cpu, load_codec):
        with pytest.raises(
            CheckpointError, match=r"code of its own.*policy\.trust_remote_code=true"
        ) as caught:
            load(folder)
        assert "You can inspect the repository" in str(caught.value)  # transformers' reason, whole
        assert not mark.exists()
    policy = load_cpu(folder, trust_remote_code=True)
    assert mark.exists()
    assert type(policy.model).__name__ == "OwnModel"
    assert load_codec(folder, trust_remote_code=True).eos_ids == policy.codec.eos_ids


def test_code_of_a_tokenizer_is_code_too(llama, tmp_path):
    mark = tmp_path / "ran"
    (llama / "own.py").write_text(CODE.format(mark=str(mark)))
    change_json(
        llama / "tokenizer_config.json",
        tokenizer_class="OwnTokenizer",
        auto_map={"AutoTokenizer": [None, "own.OwnTokenizer"]},
    )
    with pytest.raises(CheckpointError, match=r"a tokenizer .*policy\.trust_remote_code=true"):
        load_cpu(llama)
    assert not mark.exists()


def test_transformers_own_class_is_taken_where_there_is_one(llama, tmp_path):
    """The folder offers code as well; nothing asks for it."""
    mark = tmp_path / "ran"
    (llama / "own.py").write_text(CODE.format(mark=str(mark)))
    change_json(llama / "config.json", auto_map={"AutoModelForCausalLM": "own.OwnModel"})
    assert type(load_cpu(llama).model).__name__ == "LlamaForCausalLM"
    assert not mark.exists()


def test_nothing_is_asked_on_stdin(own_code):
    """A "y" that stands on stdin must not run the code."""
    folder, mark = own_code
    code = "import sys; from repro_rl.policy import TransformersPolicy; TransformersPolicy.load(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        input="y\n" * 9,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert "policy.trust_remote_code" in done.stderr
    assert "[y/N]" not in done.stdout
    assert not mark.exists()


def test_saving_keeps_what_was_loaded(llama, tmp_path):
    policy = load_cpu(llama)
    policy.save(tmp_path / "again")
    before, after = (load_file(folder / "model.safetensors") for folder in (llama, tmp_path / "again"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    save_file(
        after, tmp_path / "again" / "model.safetensors"
    )  # without the metadata that transformers writes
    assert torch.equal(load_cpu(tmp_path / "again").model.lm_head.weight, policy.model.lm_head.weight)
