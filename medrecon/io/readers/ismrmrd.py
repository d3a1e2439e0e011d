"""ISMRMRD raw data (HDF5): acquisitions to centred k-space (slices, coils, kx, ky)."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medrecon.errors import InputError
from medrecon.io.hdf5 import Hdf5File, IsmrmrdAcquisitions, shown
from medrecon.io.mrd_header import parse_mrd_header
from medrecon.io.options import ReadOptions
from medrecon.io.readers.finite import require_finite
from medrecon.io.readers.mrd_lines import sort_lines
from medrecon.io.readers.mrd_scan import assemble
from medrecon.io.scan import Scan

if TYPE_CHECKING:
    from medrecon.io.source import Source

_TABLE = {"head", "data", "traj"}


class IsmrmrdReader:
    """Cartesian scans, 2-D multi-slice or 3-D.

    Rows of the k-space are the read-out (kx) and columns the phase encoding (ky), as in fastMRI. A
    3-D scan becomes a stack of 2-D problems (rows kz, columns ky), one for each read-out position.
    Read-out oversampling is cropped in image space once, here, if all lines are complete, which is
    exact; from partial echoes it is left to ``CartesianAcquisition.matrix``. If the file has a noise
    scan the coils are prewhitened; the mean noise level stays what it was.
    """

    name = "ismrmrd"

    def recognises(self, source: "Source") -> bool:
        """Whether there is a table of acquisitions, or the XML header of one."""
        if source.hdf5 is None:
            return False
        datasets = source.hdf5.datasets
        header = datasets.get("dataset/xml")
        return bool(_groups(source.hdf5)) or (header is not None and header.is_text)

    def read(self, source: "Source", options: ReadOptions) -> Scan:
        """Read the whole scan: its lines lie in the file in the order of time, not of slices."""
        if source.hdf5 is None:
            raise InputError(f"{source.path} is not an HDF5 file, expected an ISMRMRD file")
        group = _group(source.hdf5, options.key)
        prefix = f"{group}/" if group else ""
        header = parse_mrd_header(source.hdf5.read_text(f"{prefix}xml"), source.path)
        table = source.hdf5.read_ismrmrd(group)
        source.hdf5.close()
        if not len(table.heads):
            raise InputError(f"{source.path}: the file holds no acquisitions; the measurement was not stored")
        lines = sort_lines(table.heads, header.encodings, options.repetitions, source.path)
        encoding = header.encodings[lines.encoding]
        if encoding.trajectory not in {"cartesian", ""}:
            raise InputError(
                f"{source.path}: the trajectory is {encoding.trajectory!r}; only Cartesian scans are supported yet"
            )
        table, notes = _finite(table, options, source.path)
        assembled = assemble(table, lines, encoding, options, source.path)
        if options.axes is not None:
            notes = (*notes, "--axes was ignored: ISMRMRD files define their axes")
        return Scan(
            source=source.path,
            format=self.name,
            measurements=assembled.measurements,
            acquisition=assembled.acquisition,
            geometry=assembled.geometry,
            header=header.header,
            notes=(*lines.notes, *notes, *assembled.notes),
        )


def _finite(
    table: IsmrmrdAcquisitions, options: ReadOptions, path: Path
) -> tuple[IsmrmrdAcquisitions, tuple[str, ...]]:
    """Free the samples of NaN and Inf; the error names the acquisition."""
    bad = ~np.isfinite(table.samples)
    if not bad.any():
        return table, ()
    row = int(np.searchsorted(table.offsets, int(bad.argmax()), side="right")) - 1
    step = int(table.heads[row]["idx"]["kspace_encode_step_1"])
    what = f"raw data from acquisition {row} (phase-encoding line {step}) on"
    samples, notes = require_finite(table.samples, options.nonfinite, path, what)
    return replace(table, samples=samples), notes


def _groups(file: Hdf5File) -> list[str]:
    """List the groups that hold a table of acquisitions."""
    return sorted(
        name.removesuffix("data").rstrip("/")
        for name, info in file.datasets.items()
        if name.rpartition("/")[2] == "data" and set(info.fields) >= _TABLE
    )


def _group(file: Hdf5File, key: str | None) -> str:
    groups = _groups(file)
    if key is not None:
        wanted = key.strip("/")
        groups = [group for group in groups if wanted in {group, f"{group}/data".lstrip("/")}]
        if not groups:
            raise InputError(f"{file.path}: --key {key}: no group of this name holds ISMRMRD acquisitions")
    if not groups:
        raise InputError(f"{file.path}: an ISMRMRD header without acquisitions: 'dataset/data' is missing")
    if len(groups) > 1:
        listing = ", ".join(shown(group) for group in groups)
        raise InputError(f"{file.path}: several groups hold ISMRMRD acquisitions; say which with --key: {listing}")
    name = f"{groups[0]}/xml".lstrip("/")
    if name not in file.datasets or not file.datasets[name].is_text:
        raise InputError(f"{file.path}: ISMRMRD acquisitions without their header: '{shown(name)}' is missing")
    return groups[0]
