"""What a person who looks on sees of a run."""

import logging
import sys
import time
from typing import Any, Self

_EVERY = 30.0
_log = logging.getLogger("medrecon")


class Watch:
    """A bar on a terminal; elsewhere a line now and then.

    Parameters
    ----------
    total
        Iterations of the whole run.
    quiet
        Nothing at all.
    """

    def __init__(self, total: int, *, quiet: bool = False) -> None:
        self._total = total
        self._quiet = quiet
        self._bar: Any = None
        self._task: Any = None
        self._spoke = time.monotonic()

    def __enter__(self) -> Self:
        """Begin."""
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("starting", total=self._total)
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        if self._bar is not None:
            self._bar.stop()

    def step(self, iteration: int, epoch: int, loss: float, rate: float, waiting: float) -> None:
        """Show where the run is: ``rate`` in iterations a second, ``waiting`` the share of time without data."""
        if self._quiet:
            return
        text = f"epoch {epoch}  loss {loss:.4g}  {rate:.3g} it/s  waiting for data {waiting:.0%}"
        if self._bar is not None:
            self._bar.update(self._task, completed=iteration, description=text)
        elif time.monotonic() - self._spoke > _EVERY:
            self._spoke = time.monotonic()
            left = (self._total - iteration) / rate if rate else 0
            _log.info("iteration %d of %d  %s  %.0f min left", iteration, self._total, text, left / 60)
