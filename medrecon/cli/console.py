"""Progress and tables, on standard error and standard output respectively."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def progress_bar(title: str, *, quiet: bool) -> Iterator[Callable[[float], None]]:
    """Yield a function that takes the share of the work done, 0 … 1; a bar only where a person looks on."""
    if quiet or not sys.stderr.isatty():
        yield lambda _share: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=1.0)
        yield lambda share: bar.update(task, completed=share)


def print_json(value: Any) -> None:  # noqa: ANN401 (whatever JSON can hold)
    """Print a JSON document to standard output; numbers that JSON lacks become null."""
    from medrecon.io.writers.sidecar import json_ready

    print(json.dumps(json_ready(value), indent=2))  # noqa: T201


def print_line(text: str) -> None:
    """Print one line to standard output."""
    print(text)  # noqa: T201


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table to standard output."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, show_header=any(header))
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
