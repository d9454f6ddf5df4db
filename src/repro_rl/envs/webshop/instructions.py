"""What the agent is told about the shop, full style."""

from __future__ import annotations

_RULES = (
    "You are shopping on a web site. Find the product that the task describes, choose the options it names, "
    "and buy it. You are paid for the purchase only, and in full only if kind of product, every attribute, "
    "every option and the price limit are right.\n"
    "- search[words] looks for products; write the words you want instead of 'words'. Up to 50 products are "
    "listed, 10 on a page.\n"
    "- click[name] presses what the page offers: a button (such as click[next >], click[< prev], "
    "click[back to search]), a product by its code, or an option value on a product's page.\n"
    "- A product's page has sub-pages, click[description] and click[features], that say more about it.\n"
    "- click[buy now] buys the product on the page with the options chosen so far and ends the task, so "
    "choose the options first.\n"
    "- An action that the page does not offer does nothing, but costs a step."
)
_STYLES = {
    "text": "The page is given as its texts, separated by [SEP].",
    "compact": "The page is given as its texts, each in single quotes, separated by [SEP].",
    "text_rich": (
        "The page is given line by line; [button] x [button_] can be clicked, [clicked button] x "
        "[clicked button_] has been."
    ),
    "words": (
        "The page is given in short words that compare it with the task: r3:k2a1p1v0 is row 3 of the "
        "results, its kind of product fully named (k2), 1 wanted attribute in its title, within the price "
        "limit (p1), not opened yet (v0). "
        "Actions have short names: search[ $kind $a1 ], click[r3], click[g1v2] (option "
        "group 1, value 2), click[next], click[prev], click[back], click[features], click[buy]."
    ),
}


def instructions(style: str) -> str:
    """Rules and how to read the page."""
    return f"{_RULES}\n{_STYLES[style]}"
