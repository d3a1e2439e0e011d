"""What a raw file holds, whatever its format: measurements, the physics that explains them, geometry."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from medrecon.io.geometry import Geometry
from medrecon.operators.base import LinearOperator

Scalar = str | int | float | bool


@dataclass(frozen=True)
class SliceStack:
    """A lazily read stack of equally shaped slices: ``stack[i]`` reads slice ``i`` and nothing else.

    ``shape`` is the shape of one slice; ``read`` returns it as a CPU tensor.
    """

    count: int
    shape: tuple[int, ...]
    read: Callable[[int], Tensor]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        if not 0 <= index < self.count:
            raise IndexError(f"slice {index} of a stack of {self.count}")
        return self.read(index)

    @classmethod
    def from_tensor(cls, stack: Tensor) -> "SliceStack":
        """Stack over the first axis of a tensor that is already in memory."""
        return cls(stack.shape[0], tuple(stack.shape[1:]), lambda index: stack[index])


@dataclass(frozen=True)
class CartesianAcquisition:
    """What is known of a Cartesian MRI scan before its coil sensitivity maps are.

    The k-space of a slice is (coils, H, W), centred: the zero frequency is sample (H//2, W//2).

    Parameters
    ----------
    mask
        Which samples were acquired: bool, broadcastable to (slices, H, W). None means that the file
        does not say: it is read off the exact zeros of each slice.
    maps
        Coil sensitivity maps (1 or slices, sets, coils, H, W) where the file or the user supplies them.
    calibration
        Fully sampled k-space (slices, coils, h, w) measured separately for the maps, where there is one.
    matrix
        Rows and columns of the reconstruction grid: the centre crop of the H x W image that removes
        read-out oversampling. None keeps H x W.
    """

    mask: Tensor | None = None
    maps: Tensor | None = None
    calibration: SliceStack | None = None
    matrix: tuple[int, int] | None = None


@dataclass(frozen=True)
class Scan:
    """A raw file, read.

    Parameters
    ----------
    source, format
        The file and the name of the reader that recognised it.
    measurements
        One slice at a time: k-space (coils, H, W) complex64 for MRI, else what the operator maps to.
    acquisition
        The linear operator that explains the measurements (of every slice), or, for MRI, what is
        needed to build it once the coil sensitivities are known.
    geometry
        Of the *reconstructed* image (after the crop to ``acquisition.matrix``).
    modality
        DICOM modality of the object: "MR", "CT" or "OT".
    reference
        Ground-truth images (rows, columns) float32, one a slice, where the file holds them.
    header
        Allow-listed acquisition parameters. No names, no identifiers.
    mu_water
        CT: attenuation of water in 1/mm, with which images are converted to Hounsfield units; None
        leaves them in 1/mm.
    notes
        What the user should know: what was assumed, repaired or missing. Shown, never silent.
    """

    source: Path
    format: str
    measurements: SliceStack
    acquisition: CartesianAcquisition | LinearOperator
    geometry: Geometry
    modality: str = "MR"
    reference: SliceStack | None = None
    header: Mapping[str, Scalar] = field(default_factory=dict)
    mu_water: float | None = None
    notes: tuple[str, ...] = ()
