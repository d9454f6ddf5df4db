"""What was begun is continued under the same conditions: templates, servers, demonstrations and models."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from repro_rl import __version__
from repro_rl.config import RunConfig, load_config
from repro_rl.errors import ConfigError
from repro_rl.files.names import DEMOS_FILE, EXPERT_FILE
from repro_rl.run.demonstrations import UNFINISHED_FILE, demos_exist, demos_key
from repro_rl.run.folder import check_run, manifest, open_run, write_manifest
from repro_rl.run.lineage import other_templates, taught_prompt
from repro_rl.run.templates import prompt_digests
from repro_rl.study.definition import load_study
from repro_rl.study.evaluate import EvalHooks, EvalRequest, evaluate
from repro_rl.study.folder import check_same, write_study
from repro_rl.study.pilot import open_pilot
from repro_rl.study.unfinished import evaluation_keys
from repro_rl.text import digests
from repro_rl.text.digests import templates_digest

API = ["api.base_url=http://a/v1", "api.model=m", "api.key_env=X"]


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    folder = tmp_path / "templates"
    folder.mkdir()
    (folder / "forward.jinja").write_text("Do {{ goal }}")
    return folder


def test_the_digest_of_templates_is_of_their_names_and_texts(templates: Path) -> None:
    assert templates_digest(None) is None
    first = templates_digest(templates)
    assert first == hashlib.sha256(b"forward.jinja 13\nDo {{ goal }}").hexdigest()
    (templates / "notes.txt").write_text("no template")
    assert templates_digest(templates) == first
    (templates / "forward.jinja").rename(templates / "reflect.jinja")
    assert templates_digest(templates) != first


def test_a_run_is_not_continued_with_other_templates(templates: Path, tmp_path: Path) -> None:
    config = load_config("sokoban-qwen3", [f"prompt.template_dir={templates}"])
    run = tmp_path / "run"
    open_run(run, config)
    write_manifest(run, manifest(config, "training"))
    (run / "metrics.jsonl").write_text('{"iteration": 1}\n')
    assert check_run(run, config)
    text = (templates / "forward.jinja").read_text()
    (templates / "forward.jinja").write_text("Please do {{ goal }}")
    with pytest.raises(ConfigError, match=r"made with other prompts: the templates in .* changed since"):
        check_run(run, config)
    (templates / "forward.jinja").write_text(text)
    content = json.loads((run / "manifest.json").read_text())
    del content["templates"]  # as an older version wrote it
    (run / "manifest.json").write_text(json.dumps(content))
    assert check_run(run, config)


def change_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, style: str, name: str) -> None:
    """Another version of the package: its template ``name`` has another text."""
    other = tmp_path / "package"
    if not other.exists():
        shutil.copytree(digests.TEMPLATES, other)
    (other / style / name).write_text("Please act.")
    monkeypatch.setattr(digests, "TEMPLATES", other)


def begun(run: Path, config: RunConfig) -> dict[str, Any]:
    """A run that has done something; its manifest."""
    open_run(run, config)
    write_manifest(run, manifest(config, "training"))
    (run / "metrics.jsonl").write_text('{"iteration": 1}\n')
    content: dict[str, Any] = json.loads((run / "manifest.json").read_text())
    return content


def test_a_run_is_not_continued_with_other_templates_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config("sokoban-qwen3", [])
    content = begun(tmp_path / "run", config)
    change_package(monkeypatch, tmp_path, "compact", "forward.jinja")  # of another style
    change_package(monkeypatch, tmp_path, "full", "chat_next.jinja")  # of another context mode
    assert check_run(tmp_path / "run", config)
    change_package(monkeypatch, tmp_path, "full", "forward.jinja")
    words = (
        rf"the templates of this package were changed since \(it is {__version__}, and was {__version__}\)"
    )
    with pytest.raises(ConfigError, match=words):
        check_run(tmp_path / "run", config)
    del content["package_templates"]  # as an older version wrote it
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(content))
    assert check_run(tmp_path / "run", config)


def test_what_a_user_replaces_may_change_in_the_package(
    templates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config("sokoban-qwen3", [f"prompt.template_dir={templates}"])
    begun(tmp_path / "run", config)
    change_package(monkeypatch, tmp_path, "full", "forward.jinja")
    assert check_run(tmp_path / "run", config)
    change_package(monkeypatch, tmp_path, "full", "answer.jinja")  # which the others include
    with pytest.raises(ConfigError, match="the templates of this package"):
        check_run(tmp_path / "run", config)


def test_conversations_are_continued_with_the_same_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config("sokoban-qwen3", ["prompt.context=chat"])
    begun(tmp_path / "run", config)
    change_package(monkeypatch, tmp_path, "full", "chat_next.jinja")
    with pytest.raises(ConfigError, match="the templates of this package"):
        check_run(tmp_path / "run", config)


# The package's templates of conversations in full style, before the first turn knew of ``reflects``.
BEFORE = "443604a66504c86f5690d6b26c1bf7d0f08227e4d94082a03a2ba3593dc5b6ba"


def test_a_conversation_with_reflections_goes_on_across_that_version(tmp_path: Path) -> None:
    """Its prompts are the same, so its digest is."""
    config = load_config("sokoban-qwen3", ["prompt.context=chat"])
    assert begun(tmp_path / "run", config)["package_templates"] == BEFORE
    assert check_run(tmp_path / "run", config)


def test_a_conversation_without_reflections_does_not(tmp_path: Path) -> None:
    """Its first turn told of a reflection then, and tells of none now."""
    config = load_config("sokoban-qwen3", ["method=gigpo", "prompt.context=chat"])
    content = begun(tmp_path / "run", config)
    assert content["package_templates"] != BEFORE
    assert check_run(tmp_path / "run", config)
    words = r"announced a reflection, which its method never asks for.*Install that version again to continue"
    for digest in ({"package_templates": BEFORE}, {}):  # still older versions have no digest
        del content["package_templates"]
        content |= digest
        (tmp_path / "run" / "manifest.json").write_text(json.dumps(content))
        with pytest.raises(ConfigError, match=f"(?s){words}"):
            check_run(tmp_path / "run", config)
    content["package_templates"] = "0" * 64
    (tmp_path / "run" / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"prompts: the templates of this package were changed since"):
        check_run(tmp_path / "run", config)


@pytest.mark.parametrize(
    ("settings", "same"),
    [
        (["prompt.context=chat"], False),
        ([], True),  # a prompt for each step announces nothing
        (["prompt.context=chat", "prompt.style=compact", "prompt.think=off"], True),
    ],
)
def test_digests_tell_announcements_apart(settings: list[str], same: bool) -> None:
    prompt = load_config("sokoban-qwen3", settings).prompt
    assert (prompt_digests(prompt, True) == prompt_digests(prompt, False)) is same


def test_a_study_of_conversations_takes_new_arms(tmp_path: Path) -> None:
    """One that reflects has begun; one that does not is added. An older version told both the same."""
    chat = ["prompt.context=chat"]
    arms = [{"name": name, "method": name, "set": chat} for name in ("repro", "gigpo")]
    one, both = (load_study(None, recipe="sokoban-qwen3", methods=arms[:count]) for count in (1, 2))
    out = tmp_path / "study"
    write_study(out, one, (), parallel=1)
    begun(out / "warm" / "repro-seed0" / "warmup", load_config("sokoban-qwen3", chat))
    check_same(out, both)
    content = json.loads((out / "study.json").read_text())
    assert content["templates"]["repro"]["package_templates"] == BEFORE
    del content["templates"]  # as an older version wrote it
    (out / "study.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="which its method never asks for"):
        check_same(out, both)


def test_a_model_is_known_to_have_been_told_of_reflections(tmp_path: Path) -> None:
    def trained(name: str, *settings: str) -> tuple[RunConfig, Path]:
        config = load_config("sokoban-qwen3", ["prompt.context=chat", *settings])
        begun(tmp_path / name, config)
        return config, tmp_path / name

    repro, told = trained("told")
    gigpo, silent = trained("silent", "method=gigpo")
    assert other_templates(repro.prompt, repro.method, told, taught_prompt(told)) is None
    assert other_templates(gigpo.prompt, gigpo.method, silent, taught_prompt(silent)) is None
    assert "trained with announced a reflection at their beginning, and those of method gigpo do not" in str(
        other_templates(gigpo.prompt, gigpo.method, told, taught_prompt(told))
    )
    assert "did not announce a reflection at their beginning, and those of method repro do" in str(
        other_templates(repro.prompt, repro.method, silent, taught_prompt(silent))
    )


def test_a_study_is_not_continued_with_other_templates(
    templates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New arms and seeds would stand beside runs that had other prompts."""
    own = {"name": "own", "method": "gigpo", "set": [f"prompt.template_dir={templates}"]}
    study = load_study(None, recipe="sokoban-qwen3", methods=["repro", own])
    out = tmp_path / "study"
    write_study(out, study, (), parallel=1)
    content = json.loads((out / "study.json").read_text())
    assert set(content["templates"]["own"]) == {"templates", "package_templates"}
    text = (templates / "forward.jinja").read_text()
    (templates / "forward.jinja").write_text("Please do {{ goal }}")
    check_same(out, study)  # nothing has begun
    begun(out / "warm" / "own-seed0" / "warmup", load_config("sokoban-qwen3", []))
    with pytest.raises(ConfigError, match=r"the templates in .* were changed since\. Put them back"):
        check_same(out, study)
    (templates / "forward.jinja").write_text(text)
    check_same(out, study)
    change_package(monkeypatch, tmp_path, "full", "reflect.jinja")
    with pytest.raises(
        ConfigError, match=r"study was made with other prompts: the templates of this package"
    ):
        check_same(out, study)
    del content["templates"]  # as an older version wrote it
    (out / "study.json").write_text(json.dumps(content))
    check_same(out, study)


def test_a_model_is_known_to_have_read_other_prompts(
    warm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(None, warm.settings)
    prompt, method = config.prompt, config.method
    assert other_templates(prompt, method, warm.model, taught_prompt(warm.model)) is None
    assert other_templates(prompt, method, "Qwen/Qwen3-0.6B", taught_prompt("Qwen/Qwen3-0.6B")) is None
    change_package(monkeypatch, tmp_path, "compact", "forward.jinja")
    assert f"{warm.model} was made with other prompts: the templates of this package" in str(
        other_templates(prompt, method, warm.model, taught_prompt(warm.model))
    )
    chat = load_config(None, [*warm.settings, "prompt.context=chat"]).prompt
    assert (
        other_templates(chat, method, warm.model, taught_prompt(warm.model)) is None
    )  # that is said of the context mode


def test_an_evaluation_is_known_by_the_templates_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, older = keys_of()
    change_package(monkeypatch, tmp_path, "full", "forward.jinja")
    second, same = keys_of()
    assert second != first
    assert same == older, "older results do not tell"


def test_a_result_of_an_older_version_is_not_played_again(warm: Any, tmp_path: Path) -> None:
    config = load_config(None, [*warm.settings, "eval.tasks=2"])
    request = EvalRequest("x", out=tmp_path, judge=False)
    first = evaluate(config, warm.model, request)
    path = tmp_path / "eval" / "x.json"
    panel = first["digest"]
    key, older = evaluation_keys(config, warm.model, panel, False, None)
    assert first["key"] == key
    path.write_text(json.dumps({**first, "key": older}))
    found: list[Path] = []
    evaluate(config, warm.model, request, hooks=EvalHooks(on_finished=found.append))
    assert found == [path]


def key_of(*settings: str, model: str = "api:m") -> str:
    return keys_of(*settings, model=model)[0]


def keys_of(*settings: str, model: str = "api:m") -> tuple[str, str]:
    return evaluation_keys(load_config("sokoban-qwen3", [*API, *settings]), Path(model), "p", False, None)


def test_an_evaluation_is_known_by_its_templates_and_its_server(templates: Path) -> None:
    own = f"prompt.template_dir={templates}"
    first = key_of(own)
    (templates / "forward.jinja").write_text("Please do {{ goal }}")
    assert key_of(own) != first
    assert key_of() == key_of("api.guided=grammar"), "no reflection is held to a form"
    guided = "prompt.reflect_form=guided"
    assert key_of(guided, "api.guided=json_schema") != key_of(guided, "api.guided=grammar")
    assert key_of("api.base_url=http://b/v1") != key_of()
    assert key_of("api.base_url=http://b/v1", model="m") == key_of(model="m"), "it asks no server"


def with_work(config: RunConfig, out: Path, **more: Any) -> None:
    open_pilot(config, out, "api:m", **more)
    (out / "eval").mkdir()
    (out / "eval" / "base.json").write_text("{}")


def test_a_pilot_is_not_continued_with_another_server_or_other_demonstrations(
    warm: Any, tmp_path: Path
) -> None:
    settings = ["env.settings={train_rooms: 8, validation_rooms: 4, test_rooms: 4}", "eval.tasks=2"]
    config = load_config("sokoban-qwen3", [*settings, *API])
    with_work(config, tmp_path / "a", demos=warm.demos)
    same = load_config("sokoban-qwen3", [*settings, *API, "api.concurrency=2", "api.budget.calls=9"])
    open_pilot(same, tmp_path / "a", "api:m", demos=warm.demos)
    manifest = tmp_path / "a" / "manifest.json"  # of an older version: it noted settings of annotations too
    older = json.loads(manifest.read_text())
    older["server"]["api"]["annotate_tries"] = 3
    manifest.write_text(json.dumps(older))
    open_pilot(same, tmp_path / "a", "api:m", demos=warm.demos)
    for change, words in (
        ("api.base_url=http://b/v1", "base_url: 'http://a/v1' there, 'http://b/v1' now"),
        ("api.extra={reasoning_effort: high}", "reasoning_effort: None there, 'high' now"),
        ("api.reasoning_tokens=9000", "reasoning_tokens: .* there, 9000 now"),
    ):
        other = load_config("sokoban-qwen3", [*settings, *API, change])
        with pytest.raises(ConfigError, match=f"(?s)another server answered.*{words}"):
            open_pilot(other, tmp_path / "a", "api:m", demos=warm.demos)
    shutil.copytree(warm.demos, tmp_path / "demos")
    labelled, expert = (tmp_path / "demos" / name for name in ("labelled.jsonl.gz", EXPERT_FILE))
    shutil.copyfile(labelled, expert)
    with pytest.raises(ConfigError, match="made from other demonstrations"):
        open_pilot(config, tmp_path / "a", "api:m", demos=tmp_path / "demos")


def test_a_result_of_another_model_is_not_replaced(warm: Any, tmp_path: Path) -> None:
    config = load_config(None, [*warm.settings, "eval.tasks=2"])
    first = evaluate(config, warm.model, EvalRequest("x", out=tmp_path / "out", judge=False))
    shutil.copytree(warm.model, tmp_path / "model")
    evaluate(config, tmp_path / "model", EvalRequest("x", out=tmp_path / "out", judge=False))  # equal weights
    path = tmp_path / "out" / "eval" / "x.json"
    held = json.loads(path.read_text())
    assert held["weights"] == first["weights"]
    for change, words in (
        ({"weights": "0" * 16}, f"weights {'0' * 16}; this one's is {first['weights']}"),
        ({"method": "other"}, "method other; this one's is repro"),
        ({"context": "chat"}, "context chat; this one's is window"),
    ):
        path.write_text(json.dumps(held | change))
        with pytest.raises(ConfigError, match=f"another evaluation: {words}.*--name"):
            evaluate(config, warm.model, EvalRequest("x", out=tmp_path / "out", judge=False))
    path.write_text(json.dumps(held | {"weights": "0" * 16}))
    evaluate(config, warm.model, EvalRequest("y", out=tmp_path / "out", judge=False))


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a\\b"])
def test_the_name_of_an_evaluation_is_a_file_name(name: str) -> None:
    with pytest.raises(ConfigError, match="must be a file name"):
        EvalRequest(name)


def test_demonstrations_are_known_by_the_server_that_labelled_them(templates: Path, tmp_path: Path) -> None:
    def key(*settings: str) -> dict[str, Any]:
        config = load_config("sokoban-qwen3", [*API, "demos.annotator=http", *settings])
        return demos_key(config)

    (tmp_path / EXPERT_FILE).write_bytes(b"")
    made = key(f"prompt.template_dir={templates}")
    (tmp_path / DEMOS_FILE).write_text(json.dumps({"settings": made}))
    assert demos_exist(tmp_path, made)
    with pytest.raises(ConfigError, match=r"annotator\.base_url: 'http://a/v1' there, 'http://b/v1' now"):
        demos_exist(tmp_path, key(f"prompt.template_dir={templates}", "api.base_url=http://b/v1"))
    (templates / "reflect.jinja").write_text("How far was it?")
    with pytest.raises(ConfigError, match=r"annotator\.templates"):
        demos_exist(tmp_path, key(f"prompt.template_dir={templates}"))
    (tmp_path / DEMOS_FILE).unlink()  # saved by a program of the user's
    with pytest.raises(ConfigError, match=r"demonstrations that this command has not made .*--out"):
        demos_exist(tmp_path, made)
    (tmp_path / UNFINISHED_FILE).write_text("")  # a command that was killed before it had written all
    assert not demos_exist(tmp_path, made)
    old = key()
    del old["annotator"]["base_url"], old["annotator"]["package_templates"]  # as an older version wrote it
    (tmp_path / DEMOS_FILE).write_text(json.dumps({"settings": old}))
    assert demos_exist(tmp_path, key())
