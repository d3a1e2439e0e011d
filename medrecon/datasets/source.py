"""Where a sample is from."""

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
