"""Prices and price caps."""

from __future__ import annotations

from repro_rl.envs.webshop.data.products import Product
from repro_rl.envs.webshop.goals import NO_CAP, drawn_cap, drawn_price


def test_prices_and_caps() -> None:
    def product(*prices: float) -> Product:
        return Product("A", "t", "", (), "c", "q", "p", "$1", prices, {}, ())

    assert drawn_price(product(), 0) == 100.0
    assert drawn_price(product(7.5), 0) == 7.5
    assert 10 <= drawn_price(product(10.0, 20.0), 0) <= 20
    assert drawn_price(product(10.0, 20.0), 0) != drawn_price(product(10.0, 20.0), 1)
    assert drawn_price(product(10.0, 20.0), 0, {"A": 3.0}) == 3.0
    # Above 12 lie 20, 30, 40, 50; of two of them the larger is 30 (1 of 6), 40 (2 of 6) or 50 (3 of 6).
    caps = [drawn_cap(12.0, seed, "A", "") for seed in range(6_000)]
    assert {cap: round(6 * caps.count(cap) / len(caps)) for cap in set(caps)} == {30.0: 1, 40.0: 2, 50.0: 3}
    assert drawn_cap(20.0, 0, "A", "") >= 40, "a cap lies above the price"
    assert drawn_cap(975.0, 0, "A", "") == 990.0
    assert drawn_cap(985.0, 0, "A", "") == NO_CAP
