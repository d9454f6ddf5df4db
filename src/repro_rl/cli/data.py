"""``repro-rl data``: import data sets, generate them, look at them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from repro_rl.cli import data_gguf, data_qwen
from repro_rl.cli.app import app
from repro_rl.cli.data_alfworld import alfworld
from repro_rl.cli.show import Bar, bar, say
from repro_rl.cli.terminal import careful
from repro_rl.errors import DataError

if TYPE_CHECKING:
    from repro_rl.envs.webshop.data.catalogue import Catalogue

data_app = typer.Typer(
    no_args_is_help=True, help="Import data sets for the environments, generate them, look at them."
)
app.add_typer(data_app, name="data")
webshop = typer.Typer(no_args_is_help=True, help="WebShop catalogues: products with their search index.")
data_app.add_typer(webshop, name="webshop")
data_app.add_typer(alfworld, name="alfworld")
data_app.command("qwen-tokenizer")(data_qwen.tokenizer)
data_app.command("qwen-untrained")(data_qwen.untrained)
data_app.command("gguf")(data_gguf.gguf)
data_app.command("merge-lora")(data_qwen.merge_lora)

PHASES = {"products": "products", "index": "search index"}
Products = Annotated[
    Path,
    typer.Argument(help="WebShop's products, e.g. items_shuffle_1000.json; gzip is fine", show_default=False),
]


@webshop.command("import")
def import_webshop(
    products: Products,
    attributes: Annotated[
        Path | None,
        typer.Option(help="file with attributes  \\[default: items_ins_v2*.json beside PRODUCTS]"),
    ] = None,
    human: Annotated[
        Path | None,
        typer.Option(help="file with human instructions  \\[default: items_human_ins*.json, if there]"),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="only this many records  \\[default: all]", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="folder to write to")] = Path("data/webshop"),
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="leave broken records out instead of stopping")
    ] = False,
) -> None:
    """Turn WebShop's own data files into a catalogue, once; every start after that takes milliseconds."""
    from repro_rl.envs.webshop.data.catalogue import find_files, write_catalogue
    from repro_rl.envs.webshop.data.reader import new_report, read_products
    from repro_rl.files import only_maker

    if not products.is_file():
        raise DataError("there is no such file", file=products)
    files = find_files(
        products.parent, products.resolve(), attributes and attributes.resolve(), human and human.resolve()
    )
    report = new_report()
    source = {
        "kind": "imported",
        "files": [None if file is None else str(file) for file in files],
        "limit": limit,
        "reading": report,
    }
    records = read_products(*files, limit=limit, on_bad="skip" if skip_bad else "error", report=report)
    start = time.monotonic()
    with only_maker(out, "import"), _bars(limit) as on_done:
        catalogue = write_catalogue(records, out, source=source, on_done=on_done)
    for reason in report["reasons"]:
        say(f"skipped: {reason}")
    if report["bad"] > len(report["reasons"]):
        say(f"skipped: {report['bad'] - len(report['reasons'])} more")
    if not report["with_attributes"]:
        say(careful(f"none of the products is in {files[1]}; is it the right file?"))
    _print_catalogue(catalogue, time.monotonic() - start)


@webshop.command("generate")
def generate_webshop(
    out: Annotated[Path, typer.Option("--out", "-o", help="folder to write to", show_default=False)],
    products: Annotated[int, typer.Option(min=1, help="how many products")] = 1200,
    seed: Annotated[int, typer.Option(help="another seed makes other products")] = 0,
    raw: Annotated[
        bool, typer.Option("--raw", help="write the files of WebShop's own format instead of a catalogue")
    ] = False,
) -> None:
    """Make up a catalogue; the same count and seed give the same products everywhere."""
    from repro_rl.envs.webshop.data.catalogue import FULL, write_catalogue
    from repro_rl.envs.webshop.data.generate import generate_catalogue
    from repro_rl.envs.webshop.data.reader import new_report, products_from_raw
    from repro_rl.files import LOCK_FILE, only_maker, only_writer, sweep_temporaries, write_json

    start = time.monotonic()
    made = generate_catalogue(products, seed)
    if raw:
        with only_writer(out / LOCK_FILE, "generator of products"):
            sweep_temporaries(out)
            for name, content in zip(FULL, (made.products, made.attributes, made.human), strict=True):
                write_json(out / name, content)
        say(f"{len(made.products):,} products in {', '.join(FULL)} in {out}")
        return
    report = new_report()
    source = {"kind": "generated", "products": products, "seed": seed, "reading": report}
    with only_maker(out, "generator of products"), _bars(products) as on_done:
        catalogue = write_catalogue(products_from_raw(made, report), out, source=source, on_done=on_done)
    _print_catalogue(catalogue, time.monotonic() - start)


@webshop.command("info")
def info_webshop(
    folder: Annotated[Path, typer.Argument(help="a catalogue, made by 'import' or 'generate'")],
    check: Annotated[
        bool, typer.Option("--check", help="also read every file and compare checksums")
    ] = False,
) -> None:
    """Show what a catalogue holds and where it comes from."""
    from repro_rl.envs.webshop.data.catalogue import Catalogue

    catalogue = Catalogue.open(folder)
    for name, value in _lines(catalogue.manifest):
        say(f"{name:<16}{value}")
    if check:
        catalogue.verify()
        say("All files are whole.")


@contextmanager
def _bars(total: int | None) -> Iterator[Callable[[str, int], None]]:
    """One progress bar after the other, one a phase; the later ones know how many products there are."""
    with ExitStack() as stack:
        bars: dict[str, Bar] = {}  # phase -> its bar; only the last one is open

        def on_done(phase: str, count: int) -> None:
            nonlocal total
            if phase not in bars:
                stack.close()
                bars[phase] = stack.enter_context(bar(PHASES.get(phase, phase), total))
            bars[phase].at(count)
            if phase == "products":
                total = count

        yield on_done


def _print_catalogue(catalogue: Catalogue, seconds: float) -> None:
    """What was written and how long it took, and how to use it."""
    manifest, reading = catalogue.manifest, catalogue.manifest["source"]["reading"]
    left_out = reading["without_asin"] + reading["repeated"] + reading["bad"]
    size = sum(file["bytes"] for file in manifest["files"].values())
    say(
        f"{len(catalogue):,} products ({left_out:,} records left out) in {seconds:.0f} s; "
        f"{_bytes(size)} on disk, index {_bytes(manifest['index_bytes'])}, nouns by {manifest['tagger']}"
    )
    say(f"Use it with data={catalogue.folder}, e.g. repro-rl play webshop data={catalogue.folder}")


def _lines(manifest: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What a manifest says, as labels and values."""
    source = manifest["source"]
    reading = source.get("reading", {})
    yield "products", f"{manifest['products']:,}"
    yield "digest", manifest["digest"]
    if source.get("kind") == "generated":
        yield "source", f"generated: {source['products']:,} products, seed {source['seed']}"
    for file in source.get("files", ()):
        if file is not None:
            yield "source", file
    if source.get("limit"):
        yield "limit", f"first {source['limit']:,} records"
    for key, label in (
        ("records", "records read"),
        ("without_asin", "without an ASIN"),
        ("repeated", "repeated ASIN"),
        ("bad", "broken, skipped"),
        ("with_attributes", "with attributes"),
    ):
        if key in reading:
            yield label, f"{reading[key]:,}"
    for reason in reading.get("reasons", ()):
        yield "", reason
    for key, label in (
        ("query_count", "queries"),
        ("category_count", "categories"),
        ("attribute_count", "attributes"),
    ):
        yield label, f"{manifest[key]:,}"
    yield "tagger", manifest["tagger"]
    yield "search index", _bytes(manifest["index_bytes"])
    yield "on disk", _bytes(sum(file["bytes"] for file in manifest["files"].values()))


def _bytes(size: float) -> str:
    """ "1.5 MB": a number of bytes with the unit that suits it."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"
