"""The report page of one run and of several."""

import json
import random
import re
from html.parser import HTMLParser

import pytest

from repro_rl.errors import DataError
from repro_rl.report import build_report
from support.command import run_command
from support.runs import HOSTILE, trajectory, write_run, write_trajectories


class Page(HTMLParser):
    """Tags, their attributes, and the embedded data."""

    def __init__(self, file):
        super().__init__()
        self.tags, self.attributes, self.data, self.inside = [], [], "", False
        self.source = file.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.inside = ("id", "data") in attrs

    def handle_data(self, data):
        if self.inside:
            self.data += data

    def handle_endtag(self, tag):
        self.inside = False


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("runs") / "a")


def test_page_is_whole_and_asks_for_nothing(run):
    target = build_report([run])
    assert target == run / "report.html"
    assert not list(run.glob(".*.tmp"))
    page = Page(target)
    assert "warm start .14 [.11, .17] → best .61 [.57, .65]" in page.source
    assert "success on sokoban/test[500]@3f9a1c0b7de2" in page.source
    for section in ("evaluation", "curves", "rewards", "health", "progress", "trajectories", "settings"):
        assert f'<section id="{section}">' in page.source
    links = [
        value for name, value in page.attributes if name in ("src", "href", "xlink:href", "action", "data")
    ]
    assert all(value.startswith("#") for value in links)
    assert not re.search(r"url\((?!#)|@import", page.source)
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    records = json.loads(page.data)
    assert 40 <= len(records) <= 60
    assert {"eval warm-start", "eval best", "iteration 1", "iteration 40"} <= {
        record["source"] for record in records
    }
    assert {True, False} == {record["won"] for record in records}
    assert "sk-live-1" not in page.source
    assert "max_tokens: 96" in page.source


def test_same_seed_same_page(run, tmp_path):
    pages = [build_report([run], tmp_path / f"{name}.html", seed=3).read_text() for name in "ab"]
    assert re.sub(r"on 20\S+ \S+ UTC", "", pages[0]) == re.sub(r"on 20\S+ \S+ UTC", "", pages[1])


def test_several_runs_are_compared(run, tmp_path):
    other = write_run(tmp_path / "b", method="gigpo", seed=1, iterations=20, top=0.5, episodes=8)
    twin = write_run(tmp_path / "c", seed=1, iterations=20, top=0.7, episodes=8)
    page = Page(build_report([run, other, twin], tmp_path / "all.html"))
    for text in ("3 runs compared", "repro · seed 0", "gigpo · seed 1", "repro · seed 1", "mean over seeds"):
        assert text in page.source
    assert "repro, best, 2 seeds" in page.source
    assert '<td class="nowrap">sokoban</td>' in page.source
    assert '<td class="nowrap">tiny, from random weights, 144,320 parameters</td>' in page.source
    assert '<td class="nowrap">2026-07-01 09:12 UTC</td>' in page.source
    assert len({record["run"] for record in json.loads(page.data)}) == 3
    best = json.loads((twin / "eval/best.json").read_text()) | {"panel": "sokoban/test[500]@000000000000"}
    (twin / "eval/best.json").write_text(json.dumps(best))
    assert "2 different panels" in build_report([run, twin], tmp_path / "p.html").read_text()


def test_runs_are_seeds_of_one_arm_where_only_the_seed_differs(run, tmp_path):
    twin = write_run(tmp_path / "b", seed=1, iterations=20, episodes=8)
    assert "mean over seeds" in build_report([run, twin], tmp_path / "1.html").read_text()
    settings = (twin / "config.yaml").read_text()
    (twin / "config.yaml").write_text(settings.replace("max_tokens: 96", "max_tokens: 64"))
    source = build_report([run, twin], tmp_path / "2.html").read_text()
    assert "mean over seeds" not in source
    assert "2 seeds" not in source
    again = write_run(tmp_path / "c", seed=0, iterations=20, episodes=8)
    source = build_report([run, again], tmp_path / "3.html").read_text()
    assert "seed 0 is there twice, so there is no mean over seeds" in source
    assert "2 seeds" not in source


def test_a_line_that_is_alone_among_several_runs_is_named(run, tmp_path):
    other = write_run(tmp_path / "b", method="gigpo", seed=1, iterations=20, episodes=8)
    with (other / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"iteration": 21, "mine": 1.0}) + "\n")
    source = build_report([run, other], tmp_path / "all.html").read_text()
    card = source[source.index("<h3>mine</h3>") :]
    card = card[: card.index("</figure>")]
    assert "gigpo · seed 1" in card
    assert "repro" not in card
    alone = build_report([other], tmp_path / "one.html").read_text()
    card = alone[alone.index("<h3>mine</h3>") :]
    assert "gigpo · seed 1" not in card[: card.index("</figure>")]


def test_hostile_text_stays_text(tmp_path):
    run = write_run(tmp_path / "x", method=HOSTILE, iterations=3, episodes=6)
    record = trajectory(0, 0.5, random.Random(0))
    record |= dict.fromkeys(("task_id", "goal", "error", "final_observation", "score"), HOSTILE)
    record["steps"][0] |= {"observation": HOSTILE, "text": HOSTILE, "defects": [HOSTILE]}
    record["reflection"] |= {"text": HOSTILE, "terms": {HOSTILE: float("nan")}}
    for name in ("warm-start", "best"):
        write_trajectories(run / "trajectories" / f"eval-{name}.jsonl.gz", [record] * 3)
    evaluation = json.loads((run / "eval/best.json").read_text())
    evaluation |= dict.fromkeys(("name", "panel", "iteration"), HOSTILE)
    (run / "eval/best.json").write_text(json.dumps(evaluation))
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"iteration": 4, f"reward/{HOSTILE}": 1.0, HOSTILE: 2.0}) + "\n")
    page = Page(build_report([run]))
    assert "img" not in page.tags
    assert page.tags.count("script") == 2
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "<!--" not in page.source
    assert not set(page.source) & set("\x1b\u2028\u202e\x00")
    assert any("</script>" in item["task"] for item in json.loads(page.data))


def test_an_empty_folder_says_what_is_missing(tmp_path):
    text = build_report([tmp_path], tmp_path / "deep" / "r.html").read_text()
    for name in ("config.yaml", "manifest.json", "metrics.jsonl", "eval/", "trajectories/"):
        assert name in text
    assert "no success was recorded yet" in text
    assert "Not recorded: Entropy (update/entropy)" in text
    with pytest.raises(DataError, match="nowhere"):
        build_report([tmp_path / "nowhere"])
    with pytest.raises(DataError, match="No run"):
        build_report([])


@pytest.mark.parametrize("name", ["manifest.json", "config.yaml", "eval/best.json"])
def test_broken_files_are_named(tmp_path, name):
    run = write_run(tmp_path / "r", iterations=2, episodes=2)
    (run / name).write_text("[1, 2")
    with pytest.raises(DataError, match=re.escape(name)):
        build_report([run])


def test_two_methods_of_one_seed_say_little(tmp_path):
    runs = [write_run(tmp_path / name, method=name) for name in ("repro", "gigpo")]
    one = Page(build_report(runs[:1])).source
    two = Page(build_report(runs)).source
    caveat = "One seed a method says little: another seed may turn the order round."
    assert caveat not in one
    assert two.count(caveat) == 1


def test_the_panel_of_the_evaluations_is_among_the_panels(run):
    cells = "<tr><td>evaluation</td><td><code>sokoban/test[500]@3f9a1c0b7de2</code></td>"
    assert Page(build_report([run])).source.count(cells) == 1


def test_a_page_is_replaced_by_one_about_the_same_runs_alone(tmp_path, capsys, monkeypatch):
    one, two = (write_run(tmp_path / 'a & "b"' / name) for name in ("one", "two"))
    page = one / "report.html"

    def report(*words):
        return run_command(capsys, monkeypatch, "report", *words)

    for _ in range(2):
        assert report(one, two)[0] == 0
    assert report(two)[0] == 0  # a page of its own
    both = page.read_bytes()
    status, printed = report(one)
    assert status == 2
    words = " ".join(printed.split())
    assert f"{page} is the page about {one}, {two}." in words
    assert f"--out {one / 'report-2.html'}" in words
    assert page.read_bytes() == both
    assert report(one, "--out", page)[0] == 0  # it was named
    assert report(one)[0] == 0
    assert report(one, two)[0] == 2
    page.write_text("<html>of an older version</html>")
    assert report(one, two)[0] == 0
    (tmp_path / 'a & "b"').rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    assert report("two/../one", "two")[0] == 0


DIGESTS = {"templates": "a" * 64, "package_templates": "b" * 64}


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        ({}, "–"),
        ({"text": {"chat_template": True}}, "chat template"),  # of an older version
        (
            {"text": {"chat_template": False}, "package_templates": "b" * 64},
            "plain text, no chat template; prompt templates of the package bbbbbbbbbbbb",
        ),
        (
            {
                "text": {
                    "chat_template": True,
                    "chat_template_digest": "c" * 64,
                    "system_message": "Be <b>",
                    "contents": "parts",
                },
                **DIGESTS,
            },
            "chat template cccccccccccc; system message &#39;Be &lt;b&gt;&#39;; contents as lists of parts; "
            "own prompt templates aaaaaaaaaaaa; prompt templates of the package bbbbbbbbbbbb",
        ),
        (
            {"text": {"chat_template": True, "system_message": "", "contents": "text"}},
            "chat template; system message &#39;&#39;",
        ),
    ],
)
def test_the_page_says_what_prompts_were_made_with(tmp_path, manifest, words):
    run = write_run(tmp_path / "a")
    (run / "manifest.json").write_text(json.dumps(manifest))
    page = " ".join(Page(build_report([run])).source.split())
    assert re.search(rf"<dt>Prompts</dt>\s*<dd>{re.escape(words)}</dd>", page)
