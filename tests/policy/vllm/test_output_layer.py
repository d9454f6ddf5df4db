"""An output layer that is the input embeddings in the server's model and not in ours, or the reverse."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from repro_rl.config import VllmSection
from repro_rl.errors import ConfigError
from repro_rl.policy.vllm import colocated
from repro_rl.policy.vllm.server import ServerSampler
from repro_rl.policy.vllm.worker import OTHER_HEAD, UNSEEN, WeightLoader, other_head
from support.foreign_models import LLAMA_LIKE, save_foreign
from support.models import keys_of, load_cpu
from support.vllm_server import GREEDY, PROMPTS, VllmServer, same_completions


@pytest.fixture(scope="module")
def folders(tiny_folder, tmp_path_factory) -> dict[bool, Path]:
    """A model whose embeddings are one weight (True), and one with two."""
    out = tmp_path_factory.mktemp("models")
    return {
        tied: save_foreign(out / str(tied), tiny_folder, "llama", tie_word_embeddings=tied, **LLAMA_LIKE)
        for tied in (True, False)
    }


@pytest.fixture
def adapter(folders, tmp_path) -> Path:
    """A foreign adapter on the output layer alone, which is one weight with the embeddings before."""
    from peft import LoraConfig, get_peft_model

    base = load_cpu(folders[True]).model
    config = LoraConfig(r=2, target_modules=["lm_head"], task_type="CAUSAL_LM", init_lora_weights=False)
    with pytest.warns(UserWarning, match="tie_word_embeddings"):
        adapted = get_peft_model(base, config)
    adapted.save_pretrained(tmp_path / "adapter")
    changed = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    changed["base_model_name_or_path"] = str(folders[True])
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(changed))
    return tmp_path / "adapter"


def sampler(policy, url: str) -> ServerSampler:
    section = VllmSection.model_validate({"server": {"url": url, "retries": 0}})
    return ServerSampler(policy, section, wait=lambda seconds: None)


@pytest.mark.parametrize("served", [True, False])
def test_a_server_with_another_output_layer_is_refused_at_the_start(folders, served, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = VllmServer(folders[served])
    try:
        fits = sampler(load_cpu(folders[served]), server.url)
        expected = load_cpu(folders[served]).generate(PROMPTS, keys_of(8), GREEDY)
        assert same_completions(fits.generate(PROMPTS, keys_of(8), GREEDY), expected)
        loads = server.loads
        with pytest.raises(ConfigError) as caught:
            sampler(load_cpu(folders[not served]), server.url)
        there = ["its input embeddings", "a weight of its own"]
        assert re_words(there if served else there[::-1]) in " ".join(str(caught.value).split())
        assert f"vllm serve {folders[not served]} " in str(caught.value)
        assert server.loads == loads  # nothing was loaded
    finally:
        server.close()


def re_words(there: list[str]) -> str:
    names = [f"{one} (tie_word_embeddings)" if one.startswith("its") else one for one in there]
    return f"{OTHER_HEAD} it is {names[0]} there, and {names[1]} in ours"


def test_an_adapter_that_unties_the_output_layer_is_to_be_merged_and_served(folders, adapter, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    policy, server = load_cpu(adapter), VllmServer(folders[True])
    try:
        with pytest.raises(ConfigError, match=r"(?s)save_merged\(Path\(FOLDER\)\).*vllm serve FOLDER"):
            sampler(policy, server.url)
    finally:
        server.close()
    policy.save_merged(adapter.parent / "whole")  # what the message says
    server = VllmServer(adapter.parent / "whole")
    try:
        done = sampler(policy, server.url).generate(PROMPTS, keys_of(8), GREEDY)
    finally:
        server.close()
    assert same_completions(done, policy.generate(PROMPTS, keys_of(8), GREEDY))


def test_what_a_worker_answers(folders, tmp_path):
    """In vLLM's own process; its worker class has ``model_config`` and ``reload_weights``."""
    served = SimpleNamespace(hf_config=load_cpu(folders[True]).model.config, trust_remote_code=False)
    taken: list[str] = []

    class Worker(WeightLoader):
        model_config = served

        def reload_weights(self, weights_path: str) -> None:
            taken.append(weights_path)

        def get_model(self) -> object:
            return object()

    assert Worker().repro_rl_load(folder=str(tmp_path)) == f"{UNSEEN} {tmp_path}"
    assert Worker().repro_rl_load().startswith(UNSEEN)
    assert Worker().repro_rl_load(folder=str(folders[False])).startswith(OTHER_HEAD)
    assert taken == []
    assert Worker().repro_rl_load(folder=str(folders[True])) == "loaded"
    assert taken == [str(folders[True])]
    (tmp_path / "config.json").write_text("{}")
    assert other_head(str(tmp_path), served) is None  # vLLM says itself what it cannot read


def test_the_engine_of_this_process_has_the_output_layer_of_the_merged_model(adapter, monkeypatch):
    """It starts from a configuration: that of the model under the adapter would be another architecture."""
    sent: dict[str, object] = {}

    def rpc(method: str, kwargs: dict[str, object]) -> None:
        sent.update(dict(kwargs["weights"]))

    def engine_for(trainer, config, section, longest):
        built.append(config.tie_word_embeddings)
        llm = SimpleNamespace(collective_rpc=rpc, reset_prefix_cache=lambda: True)
        return SimpleNamespace(llm=llm, owner=None)

    built: list[bool] = []
    monkeypatch.setattr(colocated, "engine_for", engine_for)
    policy = load_cpu(adapter)
    colocated.ColocatedSampler(policy, VllmSection(), 100)
    assert set(built) == {False}
    assert {"lm_head.weight", "model.embed_tokens.weight"} <= set(sent)
    assert policy.model.config.tie_word_embeddings  # the trainer's own model stays as it is
