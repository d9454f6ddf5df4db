"""The viewer's page in a real browser."""

from __future__ import annotations

import json
import os
import shutil
from urllib.parse import urlencode

import pytest

from repro_rl.report.pick import clean
from support.browser import Browser
from support.view import (
    HOSTILE,
    IT,
    record,
    serving,
    trajectory_file,
    write_records,
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    names = (os.environ.get("CHROMIUM") or "chromium", "chromium-browser", "google-chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("needs Chromium (on the path, or $CHROMIUM)")
    browser = Browser(program, tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


def test_hostile_episodes_run_nothing_in_a_browser(browser, tmp_path):
    hostile = record(HOSTILE, goal=HOSTILE, error=HOSTILE, final_observation=HOSTILE)
    for step in hostile["steps"]:
        step |= dict.fromkeys(("observation", "text", "action", "feedback", "prompt"), HOSTILE)
        step |= {"defects": [HOSTILE], "terms": {HOSTILE: 1.0, "__proto__": 2.0}, "valid": False}
    hostile["reflection"] |= {"text": HOSTILE, "prompt": HOSTILE, "defects": [HOSTILE], "terms": {HOSTILE: 1}}
    write_records(trajectory_file(tmp_path, "eval-<img src=x onerror=alert(1)>"), [hostile, hostile])
    (tmp_path / "config.yaml").write_text(json.dumps({"method": HOSTILE, "seed": HOSTILE}))
    with serving(tmp_path) as server:
        browser.problems.clear()
        browser.open(f"{server.url}#{urlencode({'text': 'onerror', 'trouble': f'defect:{clean(HOSTILE)}'})}")
        browser.until("document.querySelector('#detail mark')")
        browser.open(f"{server.url}#text=onerror")
        browser.run("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
        for key in ("ArrowRight", "j", "k"):
            browser.press(key)
        browser.until("document.querySelector('#detail mark')")
        assert browser.run("document.documentElement.dataset.ran") is None
        live = "img, script:not([src]), [onload], [onerror]"
        assert browser.run(f"document.querySelectorAll('{live}').length") == 0
        assert browser.run("[...document.scripts].every((s) => s.src.startsWith(location.origin))")
        assert "<script>document" in browser.text("#detail .goal")
        assert "␛[31m␀[U+202E]" in browser.text("#detail pre")
        # Were markup written by mistake, or by an extension, the policy would still stop it.
        blocked = "try { document.body.innerHTML = '<b>'; 'written' } catch (error) { error.name }"
        assert browser.run(blocked) == "TypeError"
        assert browser.problems == [] or all("TrustedHTML" in text for text in browser.problems)


def test_a_person_filters_steps_and_shares_the_address(browser, run):
    with serving(run) as server:
        browser.problems.clear()
        browser.open(server.url)
        assert browser.text("#count").startswith("7 of 7 episodes, 2 won")
        browser.run("document.querySelector('#presets button').click()")
        browser.until("document.querySelectorAll('#rows tr').length === 2")
        browser.until("location.hash.includes('believed=80') && location.hash.includes('t=2')")  # the claim
        assert browser.text("#detail output") == "step 2 of 2"
        browser.press("ArrowLeft")
        assert browser.text("#detail output") == "step 1 of 2"
        browser.press("j")
        browser.until("location.hash.includes('iteration-00001%2F2')")
        browser.until("document.querySelector('#detail .tags').innerText.includes('score 0.5')")
        browser.press("k")
        browser.until("location.hash.includes('iteration-00001%2F1')")
        browser.run("document.querySelector('.group .other').click()")
        browser.until("document.querySelectorAll('.column').length === 2")
        address = browser.run("location.href")
        browser.open(address)
        browser.until("document.querySelectorAll('.column').length === 2")
        assert browser.run("location.href") == address
        assert browser.run("document.querySelectorAll('#rows tr').length") == 2
        browser.press("/")
        assert browser.run("document.activeElement.id") == "f-text"
        browser.press("j")  # typed, not obeyed
        browser.until("document.querySelectorAll('#rows td.empty').length === 1")
        assert browser.problems == []


def test_a_deep_link_opens_the_episode_at_its_step(browser, run):
    with serving(run) as server:
        browser.open(f"{server.url}#at=0/{IT}/3&t=2")
        browser.until("document.querySelector('#detail output')")
        assert browser.text("#detail output") == "step 2 of 2"
        assert browser.text("#detail .head").startswith("won")
        browser.open(f"{server.url}#at=0/{IT}/99")
        browser.until("document.body.innerText.includes('no such episode')")
        browser.open(f"{server.url}#sort=nonsense")
        browser.until("document.body.innerText.includes('Unknown sort')")


def test_episodes_recorded_meanwhile_appear(browser, tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 1\n")
    with serving(tmp_path) as server:
        browser.send("Page.navigate", url=server.url)
        browser.until("document.body.innerText.includes('No episode is recorded yet')")
        write_records(trajectory_file(tmp_path), [record()])
        browser.run("document.getElementById('reset').click()")
        browser.until("document.querySelectorAll('#rows tr[data-key]').length === 1")
        browser.until("document.querySelector('#detail .tracks')")


def test_a_single_value_can_be_seen_in_the_list(browser, tmp_path):
    """Its neighbours are missing, so no line leads to it."""
    alone = record(online=(None, 40, None), values=(0, 50, 90), truth=(None, None, 1.0))
    one_step = record("lab/test/1", online=(30,), values=(None,), truth=(0.5,))
    write_records(trajectory_file(tmp_path, IT), [alone, one_step])
    with serving(tmp_path) as server:
        browser.open(server.url)
        browser.until("document.querySelectorAll('.list .spark').length === 2")
        lengths = "[...document.querySelectorAll('.list .spark')].map((svg) => Object.fromEntries("
        lengths += "[...svg.children].map((p) => [p.classList[0], p.getTotalLength()])))"
        first, second = browser.run(lengths)
        assert first["of-online"] == first["of-truth"] == 4
        assert first["of-retrospective"] > 20
        assert set(second) == {"of-online", "of-truth"}
        assert min(second.values()) > 20, "from 0 before the step"
