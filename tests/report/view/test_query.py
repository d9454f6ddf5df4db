"""Filters, orders and the text search."""

from __future__ import annotations

import pytest

from repro_rl.errors import ConfigError
from repro_rl.report.view.query import Query, Search, parse_query, select_episodes
from support.view import (
    IT,
    listed,
    loaded,
    record,
    summary,
    trajectory_file,
    write_records,
)


def test_filters(run):
    library = loaded(run)
    assert listed(library, outcome="lost", believed="80") == [f"{IT}/1", f"{IT}/2"]
    assert listed(library, outcome="won") == [f"{IT}/3", "eval-best/1"]
    assert listed(library, outcome="error") == [f"{IT}/5"]
    assert len(listed(library, outcome="truncated")) == 5
    assert summary(record(context_full=True)).context_full
    assert not summary(record()).context_full
    assert listed(library, trouble="reflection") == [f"{IT}/4"]
    assert listed(library, trouble="invalid") == listed(library, trouble="form") == [f"{IT}/4"]
    assert listed(library, trouble="defect:cut_off") == [f"{IT}/4"]
    assert listed(library, trouble="defect:reflection: wrong_count") == [f"{IT}/4"]
    assert listed(library, gap="70") == [f"{IT}/1"]
    assert listed(library, source="eval best") == ["eval-best/1", "eval-best/2"]
    assert listed(library, kind="lab/train", run="0") == [f"{IT}/5"]
    assert listed(library, kind="") == []
    assert listed(library, task="lab/test/0") == ["eval-best/2"]
    assert listed(library, run="1") == []


def test_orders_put_what_has_no_value_last_both_ways(run):
    library = loaded(run)
    down, up = (listed(library, sort="believed", down=down) for down in ("1", ""))
    assert down[:3] == [f"{IT}/3", f"{IT}/1", f"{IT}/2"]
    assert down[-1] == f"{IT}/4"
    assert up[0] == f"{IT}/4"
    online = [listed(library, sort="online", down=way, source="eval best") for way in ("1", "")]
    assert [order[-1] for order in online] == ["eval-best/2", "eval-best/2"]
    assert listed(library, sort="file", down="1")[0] == "eval-best/2"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"outcome": "wno"}, "did you mean 'won'"),
        ({"sort": "__class__"}, "Unknown sort"),
        ({"trouble": "x"}, "Unknown trouble"),
        ({"believed": "80%"}, "whole number"),
        ({"run": "-1"}, "whole number"),
        ({"gap": "9" * 30}, "whole number"),
        ({"colour": "red"}, "Unknown filter"),
    ],
)
def test_a_wrong_filter_is_named(fields, message):
    with pytest.raises(ConfigError, match=message):
        parse_query(fields)


def test_search_in_any_case_but_not_in_prompts(run):
    library = loaded(run)
    assert listed(library, text="FELL over") == [f"{IT}/5"]
    assert listed(library, text='"äpfel"') == [f"{IT}/4"]
    assert len(listed(library, text="  a Door ")) == 7
    assert listed(library, text="secret prompt") == []
    assert listed(library, text="observation") == []  # the name of a field
    assert listed(library, text="the end", outcome="won") == [f"{IT}/3", "eval-best/1"]


def test_search_finds_escaped_text_and_follows_changed_files(tmp_path):
    write_records(trajectory_file(tmp_path), [record(goal="caf\u00e9\n\\ x")], ascii_only=True)
    library, search = loaded(tmp_path), Search()
    for text, count in (("Café", 1), ("é\n\\", 1), ("tea", 0)):
        assert len(select_episodes(library, Query(text=text), search, 60)[0]) == count
    write_records(trajectory_file(tmp_path), [record(goal="tea"), record(goal="tea")])
    library.refresh(60)
    assert len(select_episodes(library, Query(text="tea"), search, 60)[0]) == 2


def test_a_search_goes_on_where_it_was(tmp_path):
    for number in range(3):
        write_records(trajectory_file(tmp_path, f"iteration-{number:05d}"), [record()])
    library, search = loaded(tmp_path), Search()
    assert [select_episodes(library, Query(text="door"), search, 0)[1] for _ in range(3)] == [2, 1, 0]
    entries, left = select_episodes(library, Query(text="door"), search, 60)
    assert (len(entries), left) == (3, 0)
