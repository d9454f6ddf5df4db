"""Small WebShop environments for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import repro_rl
from repro_rl.envs.webshop import WebShopEnv

SMALL = (200, 3)


def shop(**more: Any) -> WebShopEnv:
    env = repro_rl.make("webshop", **{"generated": SMALL, **more})
    assert isinstance(env, WebShopEnv)
    return env


def record(asin: str, **more: Any) -> dict[str, Any]:
    """A product record in the original's schema."""
    return {
        "asin": asin,
        "name": "Plain Mug for Tea",
        "full_description": "A mug that holds tea.",
        "small_description": ["dishwasher safe", "made of clay"],
        "pricing": "$12.00",
        "category": "garden",
        "query": "mugs",
        "product_category": "Home & Kitchen › Dining › Mugs",
        "customization_options": "",
        "images": ["x.jpg"],
        **more,
    }


def hand_made(folder: Path, products: list[dict[str, Any]], **more: Any) -> WebShopEnv:
    """A shop of these products; each wants "dishwasher safe", at its price."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "items_shuffle.json").write_text(json.dumps(products))
    wanted = {
        "attributes": ["dishwasher safe"],
        "instruction": "Find me a dishwasher safe mug",
        "instruction_attributes": ["dishwasher safe"],
    }
    (folder / "items_ins_v2.json").write_text(json.dumps({p["asin"]: wanted for p in products}))
    env = repro_rl.make("webshop", data=str(folder), **more)
    assert isinstance(env, WebShopEnv)
    return env
