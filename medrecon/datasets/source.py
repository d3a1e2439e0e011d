"""Where a sample is from."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class Source(NamedTuple):
    """A slice of a volume, for messages, for metrics per volume and for tables by group.

    Attributes
    ----------
    volume
        Name of the file, or what else names the volume.
    slice
        Counted from 0; -1 where the volume is a single image.
    acquisition
        Type of scan, for example fastMRI's CORPD_FBK; empty where it is unknown.
    acceleration
        Nominal acceleration of the mask; None where there is none.

    Examples
    --------
    >>> str(Source("knee.h5", 7, "CORPD_FBK", 4.0))
    'knee.h5, slice 7'
    """

    volume: str
    slice: int = -1
    acquisition: str = ""
    acceleration: float | None = None

    def __str__(self) -> str:
        return self.volume if self.slice < 0 else f"{self.volume}, slice {self.slice}"


def distinct_names(paths: Iterable[Path]) -> dict[Path, str]:
    """Return a short name for each file: its own, or with its folder where two folders have files of that name.

    >>> distinct_names([Path("a/x.h5"), Path("b/x.h5"), Path("b/y.h5")])[Path("b/x.h5")]
    'b/x.h5'
    """
    files = list(dict.fromkeys(paths))
    count = Counter(path.name for path in files)
    names = {path: path.name if count[path.name] == 1 else f"{path.parent.name}/{path.name}" for path in files}
    again = Counter(names.values())
    return {path: name if again[name] == 1 else path.as_posix() for path, name in names.items()}
