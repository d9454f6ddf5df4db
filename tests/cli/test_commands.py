"""The command line as a newcomer meets it: the whole demo in miniature, and every mistake it must explain."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from repro_rl.cli.report import runs_in
from support.command import run_command

MINI = [
    "demos.expert=6",
    "demos.winning=20",
    "demos.failing=20",
    "warmup.updates=12",
    "warmup.forward_from=4",
    "warmup.target_success=null",
    "train.iterations=2",
    "train.groups=4",
    "train.group_size=2",
    "train.minibatches=2",
    "train.validate_every=1",
    "eval.tasks=10",
    "eval.validation_tasks=10",
]


EVALUATIONS = ["eval warm-start", "eval best", "eval last"]


def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> tuple[int, str]:
    """Exit status and everything printed, with white space collapsed (rich wraps lines)."""
    monkeypatch.setenv("COLUMNS", "200")
    code, out = run_command(capsys, monkeypatch, *arguments)
    return code, " ".join(out.split())


@pytest.fixture(scope="module")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature demo, run once, as a person would start it."""
    folder = tmp_path_factory.mktemp("cli") / "demo"
    program = [sys.executable, "-c", "from repro_rl.cli import main; main()"]
    done = subprocess.run(
        [*program, "demo", "--with", "gigpo", "-o", str(folder), *MINI],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Held-out success" in done.stdout
    # piped: each bar leaves one plain line
    assert re.findall(r"^([a-z -]+): \d+/\d+ in \d+ s", done.stdout, re.MULTILINE) == [
        "demonstrations",
        "warmup",
        "train repro",
        *EVALUATIONS,
        "train gigpo",
        *EVALUATIONS,
    ]
    assert "\x1b" not in done.stdout
    (folder / "output.txt").write_text(done.stdout)
    return folder


def test_demo_leaves_a_complete_run(demo_folder: Path) -> None:
    run_folder = demo_folder / "train"
    page = (run_folder / "report.html").read_text()
    assert "sokoban/test[10]@" in page
    for name in ("warm-start", "best", "last"):
        result = json.loads((run_folder / "eval" / f"{name}.json").read_text())
        assert result["episodes"] == 10
        assert result["low"] <= result["success"] <= result["high"]
        assert (run_folder / "trajectories" / f"eval-{name}.jsonl.gz").exists()
    manifest = json.loads((run_folder / "manifest.json").read_text())
    assert manifest["panels"]["train"]["size"] == 3000
    rows = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [1, 2]
    assert {"reward/env", "reward/shaping", "reward/alignment", "reward/format", "reward/boundary"} <= set(
        rows[0]
    )


def shape(line: str) -> str:
    """A line with every number, digest and folder replaced."""
    line = re.sub(r"@[0-9a-f]{12}", "@DIGEST", line)
    line = re.sub(r"\d+(?:\.\d+)?", "N", line)
    # What is said of a gain depends on whether anything was won; tests/cli/test_show.py has the words.
    line = re.sub(r"(?<=@DIGEST: ).*?(?=\. Seed N)", "GAIN", line)
    return re.sub(r"(?<=Open the report: ).*(?=/train/report\.html$)", "FOLDER", line)


def test_the_readme_shows_the_end_of_this_output(demo_folder: Path) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    sample = re.search(r"<!-- sample output: .*? -->\n```\n(.*?)\n```", readme, re.DOTALL)
    assert sample
    shown = sample[1].splitlines()
    printed = (demo_folder / "output.txt").read_text().splitlines()[-len(shown) :]
    assert list(map(shape, shown)) == list(map(shape, printed))


def test_the_demo_puts_two_methods_on_one_page(demo_folder: Path) -> None:
    page = (demo_folder / "train" / "report.html").read_text()
    assert "2 runs compared" in page
    assert "gigpo · seed 0" in page
    configs = [(demo_folder / name / "config.yaml").read_text() for name in ("train", "train-gigpo")]
    starts = {re.search(r"^  init: (.*)$", text, re.MULTILINE)[1] for text in configs}  # type: ignore[index]
    assert starts == {str(demo_folder / "warmup" / "model")}
    output = (demo_folder / "output.txt").read_text()
    assert re.findall(r"^ *((?:gigpo, )?[a-z-]+)  +0\.\d{3} ", output, re.MULTILINE) == [
        *("warm-start", "best", "last"),
        *("gigpo, warm-start", "gigpo, best", "gigpo, last"),
    ]


def test_repeating_the_demo_continues(
    demo_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (demo_folder / "train" / "metrics.jsonl").read_text()
    code, text = run(capsys, monkeypatch, "demo", "-o", str(demo_folder), *MINI)
    assert code == 0, text
    assert (demo_folder / "train" / "metrics.jsonl").read_text() == before


def test_eval_and_report_of_a_run(
    demo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, text = run(
        capsys,
        monkeypatch,
        "eval",
        str(demo_folder / "train"),
        "--checkpoint",
        "1",
        "-o",
        str(tmp_path),
        "eval.tasks=4",
    )
    assert code == 0, text
    assert json.loads((tmp_path / "eval" / "1.json").read_text())["panel"].startswith("sokoban/test[4]@")
    code, text = run(
        capsys, monkeypatch, "report", str(demo_folder / "train"), "-o", str(tmp_path / "page.html")
    )
    assert code == 0, text
    assert (tmp_path / "page.html").stat().st_size > 10_000


def test_a_report_on_a_demo_has_all_its_runs(
    demo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert runs_in(demo_folder) == [demo_folder / "train", *sorted(demo_folder.glob("train-*"))]
    copy = tmp_path / "demo"
    shutil.copytree(demo_folder / "demos", copy / "demos")
    for name in ("train", "train-gigpo"):
        shutil.copytree(demo_folder / "train", copy / name)
    assert runs_in(copy) == [copy / "train", copy / "train-gigpo"]
    assert runs_in(copy / "train") == [copy / "train"]
    code, text = run(capsys, monkeypatch, "report", str(copy / "train"), str(tmp_path))
    assert code == 2
    assert "is no run: it holds none of config.yaml, metrics.jsonl and eval" in " ".join(text.split())


def test_watching_the_agent_and_the_expert(
    demo_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, text = run(capsys, monkeypatch, "play", "sokoban", "--agent", str(demo_folder / "train"))
    assert code == 0, text
    assert "retrospective" in text
    code, text = run(capsys, monkeypatch, "play", "sokoban", "--expert", "--task", "3")
    assert code == 0, text
    assert "Solved after" in text
    assert "true progress 100 %" in text


@pytest.mark.parametrize(
    ("arguments", "needles"),
    [
        (["play", "sokobann"], ["Unknown environment 'sokobann'", "did you mean 'sokoban'"]),
        (["train", "train.lrr=1"], ["Unknown setting 'train.lrr'", "did you mean 'lr'"]),
        (["train", "trian.lr=1"], ["Unknown setting 'trian'", "did you mean 'train'"]),
        (["train", "train.lr=fast"], ["train.lr", "fast"]),
        (["train", "--method", "repo"], ["Unknown method 'repo'", "did you mean 'repro'"]),
        (["demo", "--with", "gigpoo"], ["Unknown method 'gigpoo'", "did you mean 'gigpo'"]),
        (["demo", "--with", "repro"], ["Methods repro, repro", "named twice"]),
        (["train", "method.credit=gigpoo", "--init", "."], ["Unknown credit rule", "did you mean 'gigpo'"]),
        (["train"], ["train.init is not set"]),
        (["train", "--init", "./nowhere/model"], ["No model folder at ./nowhere/model"]),
        (["train", "--init", "nowhere/model"], ["CheckpointError", "causal LM from nowhere/model"]),
        (["train", "env.settings.boxs=2", "--init", "MODEL"], ["no setting 'boxs'", "did you mean 'boxes'"]),
        (["train", "env.settings.style=grid", "--init", "MODEL"], ["The tokenizer does not know"]),
        (["eval", "nowhere"], ["No model folder at nowhere"]),
        (["doctor", "--model", "tiny"], ["exists once a warmup has built it", "give that run's folder"]),
        (["eval", "RUN", "--checkpoint", "77"], ["no checkpoint '77'"]),
        (["eval", "RUN", "eval.tasks=100000"], ["has 500 tasks"]),
        (["eval", "RUN", "eval.split=tset"], ["tset", "test"]),
        (["warmup", "--demos", "nowhere"], ["no such file", "repro-rl demos"]),
        (["report", "nowhere"], ["nowhere"]),
        (["train", "-c", "nowhere.yaml"], ["No config file at nowhere.yaml"]),
        (["train", "-c", "sokoban-tini"], ["did you mean 'sokoban-tiny'"]),
        (["train", "seed"], ["not of the form section.key=value"]),
        (["play", "sokoban", "levels=BROKEN"], ["level"]),
        (["play", "sokoban", "--task", "9999"], ["has no task 9999"]),
    ],
)
def test_mistakes_are_explained(
    arguments: list[str],
    needles: list[str],
    demo_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "broken.xsb").write_text("#####\n#@$z#\n#####\n")
    names = {
        "RUN": str(demo_folder / "train"),
        "MODEL": str(demo_folder / "warmup" / "model"),
        "levels=BROKEN": f"levels={tmp_path / 'broken.xsb'}",
    }
    monkeypatch.chdir(tmp_path)
    code, text = run(capsys, monkeypatch, *[names.get(a, a) for a in arguments])
    assert code == 2, text
    assert "Traceback" not in text
    for needle in needles:
        assert needle in text, text


def test_a_run_refuses_other_settings(
    demo_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = str(demo_folder / "warmup" / "model")
    code, text = run(
        capsys, monkeypatch, "train", "--init", model, "-o", str(demo_folder / "train"), *MINI, "train.lr=0.5"
    )
    assert code == 2
    assert "train.lr: 0.001 there, 0.5 now" in text


def test_help_names_every_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, text = run(capsys, monkeypatch, "--help")
    assert code == 0
    for command in ("demo", "doctor", "play", "demos", "warmup", "train", "eval", "report"):
        assert command in text
        code, _ = run(capsys, monkeypatch, command, "--help")
        assert code == 0


def test_doctor_passes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = run(capsys, monkeypatch, "doctor", "sokoban")
    assert code == 0, text
    assert "expert wins" in text


def test_doctor_fails_where_one_environment_does(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from repro_rl.envs import SokobanEnv, register_env

    class Good(SokobanEnv):
        def __init__(self) -> None:
            super().__init__(train_rooms=2, validation_rooms=2, test_rooms=2, solution=[2, 5], max_steps=6)

    class Bad(Good):
        def expert(self) -> str:
            return "wait"

    register_env("good")(Good)
    register_env("bad")(Bad)
    for names in (("bad", "good"), ("good", "bad")):
        code, text = run(capsys, monkeypatch, "doctor", *names)
        assert code == 1, text
        assert text.count("✗") == 1
    code, text = run(capsys, monkeypatch, "doctor", "good")
    assert (code, text.count("✗")) == (0, 0)


def test_a_plugin_module_is_imported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_plugin.py").write_text(
        "from repro_rl.config import METHODS\n"
        "METHODS.register('mine', {**METHODS.get('gigpo'), 'omega': 0.5})\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    code, text = run(capsys, monkeypatch, "train", "-m", "mine", "plugins=[my_plugin]")
    assert code == 2
    assert "train.init is not set" in text
    code, text = run(capsys, monkeypatch, "train", "plugins=[no_such_module]")
    assert code == 2
    assert "cannot import 'no_such_module'" in text


def test_another_environment_drops_the_recipes_settings() -> None:
    from repro_rl.config import load_config

    assert load_config(None, ["env.name=alfworld", "env.settings.games=30"]).env.settings == {"games": 30}
    assert load_config(None, ["env.name=sokoban"]).env.settings == {"style": "relative"}


def test_doctor_takes_the_settings_of_one_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, text = run(capsys, monkeypatch, "doctor", "webshop", "style=words", "generated=[100, 1]")
    assert code == 0, text
    assert "webshop-generated-100-synthetic" in text
    assert "title nouns by" in text
    code, text = run(capsys, monkeypatch, "doctor", "style=words")
    assert code == 2
    assert "name exactly one" in text


def test_doctor_says_what_is_probably_not_meant(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from repro_rl.cli.doctor import environments_work

    monkeypatch.setenv("COLUMNS", "1000")
    settings = {"style": "words", "generated": [100, 1], "reward": "score"}
    words = ("style=words", "generated=[100, 1]", "reward=score")
    code, text = run(capsys, monkeypatch, "doctor", "webshop", *words)
    assert code == 0, text
    assert "! rewards a win pays 1" in " ".join(text.replace("│", " ").split())
    assert environments_work(["webshop"], settings, short=True)
    assert "Careful: webshop, rewards: a win pays 1, an episode" in capsys.readouterr().out


def test_playing_a_shop(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = run(capsys, monkeypatch, "play", "webshop", "generated=[100, 1]", "--expert")
    assert code == 0, text
    assert "[button] Search [button_]" in text
    assert "Thank you for shopping with us!" in text
    assert "Your score (min 0.0, max 1.0): 1.0" in text
    assert "None" not in text
    assert "Solved after" in text


@pytest.mark.parametrize("word", ["eval.tasks=2", "eval.split=validation"])
def test_a_panel_file_and_other_tasks_contradict_each_other(
    word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("-c", "sokoban-tiny", "api.base_url=http://localhost:9/v1", f"eval.panel={tmp_path / 'p.json'}")
    code, text = run(capsys, monkeypatch, "eval", "api:x", *words, word, "-o", str(tmp_path))
    assert code == 2
    assert f"{word.partition('=')[0]} beside eval.panel=" in " ".join(text.split())


def test_demonstrations_are_counted_by_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wandering episodes are imitated as well, so ``demos.expert`` alone is not their number."""
    few = ["demos.expert=4", "demos.wandering=0.5", "demos.winning=1", "demos.failing=0"]
    code, text = run_command(capsys, monkeypatch, "demos", "-c", "sokoban-tiny", "-o", tmp_path / "d", *few)
    assert code == 0
    assert "6 episodes to imitate (4 of the expert, 2 wandering) and 1 labelled one (annotator:" in text
