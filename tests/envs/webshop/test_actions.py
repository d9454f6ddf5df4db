"""The action grammar."""

from __future__ import annotations

from repro_rl.envs.webshop.actions import clickable, parse


def test_the_action_grammar() -> None:
    assert parse("search[red shoes]") == ("search", "red shoes")
    assert parse("click[Buy Now] please") == ("click", "buy now")
    assert parse("search[men [blue] shoes]") == ("search[men ", "blue] shoes")
    assert parse("click[]") == parse("buy now") == parse("click[a\nb]") == parse("") == ("", "")
    assert parse(" click[x]") == (" click", "x")
    assert clickable("x-large")
    assert not clickable("search")
