"""Names and folders: which is which, and how often the hub is asked."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from repro_rl.config import METHODS
from repro_rl.errors import CheckpointError
from repro_rl.policy import load_codec
from repro_rl.policy.loading import hub
from repro_rl.policy.loading.hub import check_model_path, files_of, is_hub_name
from support.foreign_models import LLAMA_LIKE, save_foreign
from support.models import load_cpu


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "warm").mkdir(parents=True)
    (tmp_path / "Qwen" / "Qwen3-0.6B").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("openai-community/gpt2", True),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", True),
        ("Qwen/Qwen3-0.6B", False),  # a folder here
        ("Qwen/Qwen3-1.7B", False),  # Qwen/ is a folder here: a mistyped path
        ("runs/wram", False),
        ("gpt2", False),
        ("a/b/c", False),
        ("./a/b", False),
        ("~/a", False),
        ("/a/b", False),
        ("a b/c", False),
        ("a/", False),
        ("a\\b", False),
    ],
)
def test_what_is_a_hub_name(here, name, expected):
    assert is_hub_name(name) == expected


@pytest.mark.parametrize("name", ["runs/wram", "./runs/wram", "runs/warm/model", "gpt2", "model.safetensors"])
def test_a_mistyped_path_is_an_error_that_asks_nobody(here, name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("socket.socket.connect", None)  # whoever connects fails with a TypeError
    for load in (check_model_path, load_cpu, load_codec):
        with pytest.raises(CheckpointError, match=f"No model folder at {name}") as caught:
            load(name)
        assert ("Did you mean runs/warm?" in str(caught.value)) == name.endswith("wram")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "rloo",
            "'rloo' is a method or a credit rule, not a model: give method=rloo",
        ),
        ("sokoban-tiny", "'sokoban-tiny' is a recipe, not a model: give -c sokoban-tiny. Give a run folder"),
    ],
)
def test_the_name_of_another_part_is_no_model(here, name, message):
    assert METHODS.names()
    with pytest.raises(CheckpointError, match=re.escape(f"No model folder at {name}. {message}")):
        check_model_path(name)


ANSWERS: dict[str, int | list[str]] = {  # to questions about models: a status, or their files
    "nobody/nothing": 404,
    "some/adapter": ["adapter_config.json", "adapter_model.safetensors"],
    "some/whole": ["config.json", "model.safetensors", "adapter_config.json"],
}


@pytest.fixture
def broken_hub() -> Iterator[tuple[str, list[str]]]:
    """A hub that answers as ``ANSWERS`` says, and other requests with an error: its address, what it got."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            answer = ANSWERS.get(self.path.partition("?")[0].removeprefix("/api/models/"), 503)
            if isinstance(answer, int):
                self.send_response(answer)
                self.send_header("X-Error-Code", "RepoNotFound" if answer == 404 else "")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content = json.dumps({"id": "x", "siblings": [{"rfilename": name} for name in answer]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    hub._why_the_hub_is_away.cache_clear()  # other tests asked for the same names, without a hub
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


def test_the_hub_answers(broken_hub, monkeypatch):
    """With a model it does not have, and with an adapter."""
    address, asked = broken_hub
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "*")
    with pytest.raises(CheckpointError, match=r"from nobody/nothing: .*404"):
        files_of("nobody/nothing")
    with pytest.raises(
        CheckpointError, match=r"from some/adapter: it is an adapter\. Download it, .*some/adapter"
    ):
        files_of("some/adapter")
    assert files_of("some/whole") == "some/whole"
    assert sum("/api/models/" in path for path in asked) == 3
    assert files_of("some/whole") == "some/whole"  # known by now
    assert sum("/api/models/" in path for path in asked) == 3


def cached(cache: Path, name: str, model: Path) -> None:
    """Put a model folder into a local cache of hub models, as a download does."""
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir()
    model.rename(snapshot)


def test_a_hub_that_is_away_is_asked_once_and_the_cache_serves(tiny_folder, tmp_path, broken_hub):
    address, asked = broken_hub
    model = save_foreign(tmp_path / "model", tiny_folder, "llama", **LLAMA_LIKE)
    cached(tmp_path / "hub" / "hub", "some/model", model)
    code = (
        "from repro_rl.policy import TransformersPolicy, load_codec\n"
        "for name in ('some/model', 'some/other'):\n"
        "    try: print(type(TransformersPolicy.load(name).model).__name__, load_codec(name).positions)\n"
        "    except Exception as error: print(type(error).__name__, error)\n"
    )
    hub = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hub"), "NO_PROXY": "*"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | hub | {"PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=tmp_path,
        check=False,
    )
    first, second = done.stdout.strip().splitlines()
    assert first == "LlamaForCausalLM 128", done.stderr
    assert second.startswith(
        "CheckpointError Cannot load a causal LM from some/other: no folder of that name"
    )
    assert "huggingface.co was not reached" in second
    about_models = [path.split("?")[0] for path in asked if "/some/" in path]
    assert about_models == ["/api/models/some/model", "/api/models/some/other"]
