"""Output for a terminal: progress bars, short tables, plain numbers."""

from __future__ import annotations

import sys
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich import box
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segments
from rich.table import Column, Table
from rich.text import Text

from repro_rl.cli.terminal import SafeConsole
from repro_rl.dist.launcher import rank_and_world
from repro_rl.errors import (
    counted,
    visible as visible,  # for tables, whose layout needs the final text
)

if TYPE_CHECKING:
    from repro_rl.report.text_table import Table as ReportTable

console = SafeConsole()
error_console = SafeConsole(stderr=True)


def say(text: str) -> None:
    """One plain line; paths in it are never broken."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def warn(text: str) -> None:
    """One plain line on stderr, beside what a command is asked for."""
    error_console.print(text, highlight=False, markup=False, soft_wrap=True)


def tell(text: str) -> None:
    """Text for reading: on a terminal broken between words, elsewhere in its own lines."""
    console.print(Text(visible(text)), soft_wrap=not console.is_terminal)


def new_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str | Text]], left: int = 1) -> Table:
    """A table for ``show_table``; the first ``left`` columns are texts, the others numbers.

    Its cells are made safe to print before their width is measured.
    """
    table = Table(title=title or None, title_justify="left", caption_justify="left")
    for index, name in enumerate(head):
        table.add_column(name, justify="left" if index < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(cell)) if isinstance(cell, str) else cell for cell in row))
    return table


def show_table(table: Table) -> None:
    """Print a table: framed on a terminal; elsewhere in plain columns, as a log has no width."""
    if console.is_terminal:
        console.print(table)
        return
    table.box, table.pad_edge = box.SIMPLE_HEAD, False
    wide = console.options.update(max_width=100_000)
    width = Measurement.get(console, wide, table).maximum
    segments = console.render(table, wide.update(width=width))
    console.print(Segments(segments), crop=False, soft_wrap=True)


class Bar:
    """One progress bar with a line of numbers behind it."""

    def __init__(self, progress: Progress, label: str, total: int | None):
        self._progress = progress
        self._task = progress.add_task(label, total=total, note="")

    def total(self, count: int) -> None:
        """Say how much there is to do, where that was not known before."""
        self._progress.update(self._task, total=count)

    def more(self, count: int) -> None:
        """Say that there are ``count`` more to do."""
        self.total(count + int(self._progress.tasks[0].total or 0))

    def add(self, count: int = 1, note: str | None = None) -> None:
        """Move the bar by ``count``; ``note`` replaces the text behind it."""
        self._progress.advance(self._task, count)
        if note is not None:
            self._progress.update(self._task, note=note)

    def at(self, count: float, note: str = "") -> None:
        """Move the bar to ``count``; ``note`` replaces the text behind it."""
        self._progress.update(self._task, completed=count, note=note)

    def say(self, text: str) -> None:
        """One plain line above the bar."""
        self._progress.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def continuing(self, what: object, episodes: int) -> None:
        """Say that ``episodes`` of an earlier command count, and are not played again."""
        self.say(f"Continuing {what} after {counted(episodes, 'episode')}.")

    def finish(self) -> None:
        """The work is done: a count below the total was an upper bound, and is said to be one."""
        task = self._progress.tasks[0]
        if task.total is not None and 0 < task.completed < task.total:
            note = f"{task.fields['note']}  (at most {task.total:.0f})".strip()
            self._progress.update(self._task, total=task.completed, note=note)

    def print_state(self) -> None:
        """The state on one plain line; nothing where nothing was done."""
        task = self._progress.tasks[0]
        if task.completed:
            of = "" if task.total is None else f"/{task.total:.0f}"
            state = f"{task.description}: {task.completed:.0f}{of} in {task.elapsed or 0:.0f} s"
            self.say(f"{state}  {task.fields['note']}".rstrip())


@contextmanager
def bar(label: str, total: int | None = None) -> Iterator[Bar]:
    """A progress bar; where the output is no terminal, one plain line with its last state."""
    plain = not (console.is_terminal or console.is_jupyter)
    whole = Column(no_wrap=True)  # in a narrow terminal only the note is wrapped
    columns = (
        TextColumn("{task.description:<16}", markup=False),
        BarColumn(bar_width=14, table_column=whole),
        MofNCompleteColumn(table_column=whole),
        TimeElapsedColumn(table_column=whole),
        TimeRemainingColumn(table_column=whole),
        TextColumn("{task.fields[note]}", markup=False, table_column=Column()),
    )
    with Progress(*columns, console=console, refresh_per_second=4, disable=plain) as progress:
        current = Bar(progress, label, total)
        try:
            yield current
            current.finish()
        finally:
            if plain:
                current.print_state()


class MetricsNote:
    """Writes the metrics in ``names`` behind a bar: with their labels, three digits each."""

    def __init__(self, bar: Bar, names: dict[str, str]):
        self.bar, self.names = bar, names
        self.latest: dict[str, Any] = {}  # the newest value of every metric: not every row has all

    def __call__(self, row: dict[str, Any]) -> None:
        self.latest.update(row)
        shown = [name for name in self.names if name in self.latest]
        note = "  ".join(f"{self.names[name]} {_short(self.latest[name])}" for name in shown)
        self.bar.at(row["iteration"], note)


def allowed(question: str) -> bool:
    """What a person answers to a question; False where nobody can be asked."""
    alone = rank_and_world()[1] == 1
    if not (alone and sys.stdin.isatty() and error_console.is_terminal):
        return False
    warn(question)
    error_console.print("Use these settings this once? [y/N] ", end="", highlight=False, markup=False)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _short(value: float) -> str:
    text = f"{value:.3f}"
    return text[1:] if text.startswith("0.") else text


def show_evals(results: list[dict[str, Any]]) -> None:
    """Print ``eval_tables``."""
    for table in eval_tables(results):
        show_table(table)


def eval_tables(results: list[dict[str, Any]]) -> list[Table]:
    """Success of each evaluation; then success per task type, where there are types."""
    kinds = type_table(results)
    return [success_table(results), *([] if kinds is None else [kinds])]


def success_table(results: list[dict[str, Any]]) -> Table:
    """Success with its interval, and how well the retrospective progress agrees with the truth."""
    title = f"panel {results[0]['panel']}, temperature {results[0]['temperature']}"
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.caption = (
        "ρ: Spearman of retrospective with true progress in won, lost episodes (in how many both change); "
        "error in points"
    )
    for column in ("checkpoint", "success", "95 % interval", "steps", "ρ won", "ρ lost", "error"):
        table.add_column(column, justify="left" if column == "checkpoint" else "right", no_wrap=True)
    for result in results:
        quality = result["progress"]["retrospective"]
        table.add_row(
            result["name"],
            f"{result['success']:.3f}",
            f"{result['low']:.3f} – {result['high']:.3f}",
            f"{result['length']:.1f}",
            _mean_of(quality, "spearman_success"),
            _mean_of(quality, "spearman_failure"),
            f"{quality['mae']:.1f}" if quality.get("mae") is not None else "–",
        )
    return table


def gain_sentence(results: Sequence[dict[str, Any]], *, held_out: bool = True) -> str:
    """The success of each evaluation by name, and how many times the first one's the last one's is.

    ``results``: on one panel. ``held_out``: its tasks are none that the model was trained on.
    """
    before, *others = results
    names = ", ".join(f"{row['success']:.3f} ({row['name']})" for row in others)
    what = "Held-out success" if held_out else "Success on tasks that it was trained on"
    text = f"{what} {before['success']:.3f} ({before['name']}) → {names} on {before['panel']}"
    if before["success"]:
        return f"{text}: {others[-1]['success'] / before['success']:.1f} times the {before['name']}'s."
    if any(row["success"] for row in others):
        return f"{text}: the {before['name']} won nothing, so there is no factor."
    return f"{text}: no task was won, before or after."


def type_table(results: list[dict[str, Any]]) -> Table | None:
    """Success per task type with its 95 % interval, one row a type; None where no evaluation has types."""
    from repro_rl.study.task_types import short_name, type_order

    kinds = sorted({kind for result in results for kind in result.get("by_type") or {}}, key=type_order)
    if not kinds:
        return None
    table = Table(title="by task type", title_justify="left")
    table.add_column("type", no_wrap=True)
    table.add_column("episodes", justify="right", no_wrap=True)
    for result in results:
        table.add_column(Text(visible(result["name"])), justify="right", no_wrap=True)
    for kind in kinds:
        cells = [(result.get("by_type") or {}).get(kind) for result in results]
        counts = {cell["episodes"] for cell in cells if cell}
        table.add_row(
            Text(visible(short_name(kind))),
            " / ".join(map(str, sorted(counts))),
            *(f"{c['success']:.3f} [{c['low']:.2f}, {c['high']:.2f}]" if c else "–" for c in cells),
        )
    return table


def table_without(table: ReportTable, hidden: Container[str]) -> Table:
    """A table of a report for the terminal, less the columns named in ``hidden``."""
    columns = [index for index, name in enumerate(table.head) if name not in hidden]
    printed = Table(title=table.title, title_justify="left")
    for index in columns:
        printed.add_column(table.head[index], justify="left" if index == 0 else "right", no_wrap=True)
    for row in table.rows:
        printed.add_row(*(visible(row[index]) for index in columns))
    return printed


def _mean_of(quality: Mapping[str, Any], name: str) -> str:
    """A mean over episodes and how many they are: few, where most series never change."""
    value = quality.get(name)
    return "–" if value is None else f"{value:.2f} ({quality[f'{name}_episodes']})"
