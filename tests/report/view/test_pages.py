"""Pages of the list, and one episode."""

from __future__ import annotations

from repro_rl.report.view.library import Library
from repro_rl.report.view.pages import episode_page, list_page
from repro_rl.report.view.query import Query, Search
from support.view import (
    IT,
    loaded,
    record,
    trajectory_file,
    write_records,
)


def test_pages_and_the_page_around_an_episode(tmp_path):
    write_records(trajectory_file(tmp_path), [record(f"lab/test/{n}") for n in range(250)])
    library, search = Library([tmp_path]), Search()
    page = list_page(library, search, Query(), 100, "", 60)
    assert (page["count"], page["offset"], len(page["rows"])) == (250, 100, 100)
    page = list_page(library, search, Query(), 0, "0/iteration-00001/250", 60)
    assert (page["offset"], page["rows"][-1]["task"]) == (200, "lab/test/249")
    assert list_page(library, search, Query(), 900, "gone", 60)["offset"] == 0


def test_an_episode_comes_with_the_other_rollouts_of_its_task(run):
    page = episode_page(loaded(run), f"0/{IT}/1")
    assert [row["key"] for row in page["group"]] == [f"0/{IT}/{line}" for line in (1, 2, 3, 4)]
    assert [row["key"] for row in page["elsewhere"]] == ["0/eval-best/1"]
    assert page["steps"][0]["prompt"] == "the secret prompt"
    assert page["reflection"]["prompt"] == "look back"
