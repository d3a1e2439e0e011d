"""Which method suits a scan: a classical one, or a trained model within its scope."""

from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from medrecon.errors import EmptyDataError, UsageError
from medrecon.io.oversampling import without_readout_oversampling
from medrecon.io.scan import CartesianAcquisition, Scan
from medrecon.models.shipped import shipped_models
from medrecon.operators.block_cs import BlockCompressedSensing
from medrecon.operators.cartesian_mri import CartesianMRI
from medrecon.operators.ct.base import XRayTransform
from medrecon.reconstructors.learned import method_of_checkpoint, preparation
from medrecon.reconstructors.mri import acceleration, is_fully_sampled, sampling_mask, single_coil_operator
from medrecon.reconstructors.scope import modality_of, read_scope, shipped_scopes

RSS = "rss"
DEFAULT_METHOD = "tv"
FBP = "fbp"
_NO_BORDER = 1.02


class Choice(NamedTuple):
    """A method, why it was chosen, and the folder of the trained model that it needs, if any."""

    method: str
    reason: str
    checkpoint: Path | None = None


def choose_method(scan: Scan, index: int = 0, *, trained: bool = True) -> Choice:
    """Return the method that suits a scan, and the reason.

    K-space without gaps needs no more than an inverse FFT. Everything else is for the trained model of its modality
    that comes with medrecon, where there is one and the slice lies within its :class:`~.scope.Scope`. Otherwise a
    sinogram with one view in half a turn for every second bin gets filtered back-projection, and what is left the
    default method; the reason then says why not the model.

    Parameters
    ----------
    scan
        What was measured.
    index
        The slice that decides.
    trained
        Whether a trained model may be chosen.
    """
    classical = _classical(scan, index)
    if not trained or classical.method in (RSS, "adjoint"):
        return classical
    reasons = [classical.reason]
    for name in shipped_scopes(modality_of(scan.acquisition)):
        folder = shipped_models()[name]
        outside = outside_scope(scan, index, folder)
        if outside is None:
            reason = f"{_headline(scan, index)}: within the scope of the trained model {name!r}"
            return Choice(method_of_checkpoint(folder), reason, folder)
        reasons.append(f"not the trained model {name!r}: {outside}")
    return classical._replace(reason="; ".join(reasons))


def shipped_choice(scan: Scan, method: str) -> Choice:
    """Return a trained method with the model that comes with medrecon for scans of this modality.

    Raises
    ------
    UsageError
        Where there is none.
    """
    for name in shipped_scopes(modality_of(scan.acquisition)):
        folder = shipped_models()[name]
        if method_of_checkpoint(folder) == method:
            return Choice(method, f"asked for, with the trained model {name!r}", folder)
    raise UsageError(
        f"{method}: needs a trained model, and none of those that come with medrecon "
        f"({', '.join(shipped_models()) or 'there is none'}) is for {scan.source.name}; give one with --checkpoint"
    )


def outside_scope(scan: Scan, index: int, checkpoint: str | Path) -> str | None:
    """Return why a slice is not what a model was trained for; None where it is, or nothing is known."""
    scope = read_scope(checkpoint)
    if scope is None:
        return None
    if preparation(checkpoint).crop_readout:
        scan = without_readout_oversampling(scan)
    data, acquisition = scan.measurements[index], scan.acquisition
    if isinstance(acquisition, CartesianAcquisition):
        operator = single_coil_operator(data, sampling_mask(data, acquisition, index))
        return scope.refusal(operator, data[:, None])
    return scope.refusal(acquisition, data[None])


def first_slice(scan: Scan, slices: range | None = None) -> int:
    """Return the first slice that holds data; EmptyDataError where none of them does."""
    candidates = range(len(scan.measurements)) if slices is None else slices
    for index in candidates:
        try:
            scan.measurements[index]
        except EmptyDataError:
            if index == candidates[-1]:
                raise
        else:
            return index
    raise UsageError(f"{scan.source.name}: no slices are asked for")


def _classical(scan: Scan, index: int) -> Choice:
    acquisition = scan.acquisition
    if isinstance(acquisition, CartesianAcquisition):
        mask = sampling_mask(scan.measurements[index], acquisition, index)
        if is_fully_sampled(mask):
            rate = acceleration(mask)
            gaps = "fully sampled" if rate < _NO_BORDER else f"sampled without gaps, R = {rate:.2f} by an empty border"
            return Choice(RSS, f"the k-space is {gaps}")
        return Choice(DEFAULT_METHOD, f"the k-space is undersampled, R = {acceleration(mask):.2f}")
    if isinstance(acquisition, XRayTransform):
        views, bins = acquisition.data_shape[1:]
        found = _headline(scan, index)
        if views >= bins / 2 * max(1.0, acquisition.turns * 2):
            return Choice(FBP, f"the sinogram is densely sampled, {found}")
        return Choice(DEFAULT_METHOD, f"the sinogram is sparse, {found}")
    if acquisition.unitary:
        return Choice("adjoint", "the operator is unitary")
    return Choice(DEFAULT_METHOD, f"the operator {type(acquisition).__name__} loses information")


def _headline(scan: Scan, index: int) -> str:
    """Return what a slice is, in a few words."""
    acquisition = scan.acquisition
    if isinstance(acquisition, CartesianAcquisition):
        data = scan.measurements[index]
        return _rate(sampling_mask(data, acquisition, index), len(data))
    if isinstance(acquisition, CartesianMRI):
        return _rate(acquisition.mask[0], acquisition.data_shape[0])
    if isinstance(acquisition, XRayTransform):
        return f"{acquisition.data_shape[1]} views of {acquisition.data_shape[2]} bins"
    if isinstance(acquisition, BlockCompressedSensing):
        return f"{acquisition.ratio:.3g} measurements a pixel"
    return type(acquisition).__name__


def _rate(mask: Tensor, coils: int) -> str:
    return f"R = {acceleration(mask):.2f}, {coils} coil{'s' if coils > 1 else ''}"
