"""Texts of pages."""

from __future__ import annotations

from repro_rl.envs.webshop import pages


def test_white_space_as_the_html_parser_returns_it() -> None:
    assert [pages.collapsed(text) for text in ("", " ", "\t ", " \n ", "\n", "\xa0", " a ")] == [
        "",
        " ",
        " ",
        "\n",
        "\n",
        "\xa0",
        " a ",
    ]
