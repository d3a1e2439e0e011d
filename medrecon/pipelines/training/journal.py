"""What a run tells: a JSON-lines file, TensorBoard, and a line or a bar for who looks on."""

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medrecon.io.writers.atomic import atomic_path

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FILE = "log.jsonl"
BOARD = "tensorboard"


class Journal:
    """The log of a run in its folder.

    Parameters
    ----------
    folder
        Of the run.
    iteration
        Where the run continues; what an interrupted one logged beyond that is forgotten.
    """

    def __init__(self, folder: Path, iteration: int = 0) -> None:
        self._path = folder / FILE
        self._board_folder = folder / BOARD
        self._board: SummaryWriter | None = None
        self._iteration = iteration
        if iteration:
            _forget(self._path, iteration)

    def write(self, event: str, iteration: int, values: Mapping[str, Any]) -> None:
        """Append a line, and its numbers to TensorBoard under the name of the event."""
        line = {"event": event, "iteration": iteration, **values, "time": round(time.time(), 3)}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_finite(line), allow_nan=False) + "\n")
        for name, value in values.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and name != "epoch":
                self.board.add_scalar(f"{event}/{name}", value, iteration)

    def picture(self, name: str, iteration: int, image: NDArray[Any]) -> None:
        """Show a grey picture (H, W) in [0, 1] in TensorBoard."""
        self.board.add_image(name, image, iteration, dataformats="HW")

    @property
    def board(self) -> "SummaryWriter":
        """TensorBoard's files."""
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            purge = self._iteration + 1 if self._iteration else None
            self._board = SummaryWriter(str(self._board_folder), purge_step=purge)
        return self._board

    def close(self) -> None:
        """Finish the files."""
        if self._board is not None:
            self._board.close()
            self._board = None


def strip(images: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    """Return start, result, truth and five times their difference side by side, in [0, 1].

    Parameters
    ----------
    images
        Start, result, truth, each (h, w); the window is that of the truth.
    """
    start, result, truth = (np.asarray(image, np.float32) for image in images)
    low, high = min(0.0, float(truth.min())), float(truth.max())
    span = high - low or 1.0
    shown = [(image - low) / span for image in (start, result, truth)]
    return np.clip(np.hstack([*shown, 5 * np.abs(result - truth) / span]), 0, 1)


def _forget(path: Path, iteration: int) -> None:
    if not path.is_file():
        return
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if _iteration_of(line) <= iteration]
    with atomic_path(path, overwrite=True) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _iteration_of(line: str) -> float:
    try:
        return float(json.loads(line)["iteration"])
    except (ValueError, KeyError, TypeError):
        return math.inf  # half a line of a run that was killed


def _finite(value: Any) -> Any:  # noqa: ANN401 (JSON)
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
