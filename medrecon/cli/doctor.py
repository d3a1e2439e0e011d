"""``medrecon doctor``: what this installation can do."""

import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from medrecon import __version__
from medrecon.cli.console import print_json, print_table
from medrecon.cli.options import Json

_NEEDED = (
    "torch", "numpy", "numba", "scipy", "h5py", "nibabel", "pydicom", "scikit-image", "pillow", "pyyaml", "cyclopts",
    "diffusers", "safetensors", "monai", "rich",
)  # fmt: skip
_OPTIONAL = {
    "astra-toolbox": "its CPU projectors as operators",
    "highdicom": "reads DICOM back in the tests",
    "ismrmrd": "writes ISMRMRD files in the tests",
    "pydantic": "training",
    "pylibjpeg": "compressed DICOM images",
    "pytorch-ignite": "training",
    "tensorboard": "training",
}
_PROGRAMS = {"bart": "oracle in the tests and peer in the benchmarks", "dciodvfy": "DICOM validity in the tests"}


def doctor(*, as_json: Json = False) -> int:
    """Say what is installed, whether the back ends work and which device would be used.

    Exit code 1 if something that medrecon needs does not work.
    """
    from medrecon.cli.runtime import available_threads
    from medrecon.models.shipped import shipped_models

    checks = {"Fourier transform": _fourier, "X-ray projector": _projector, "sandboxed HDF5": _sandbox}
    report: dict[str, Any] = {
        "medrecon": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": available_threads(),
        "device": _device(),
        "trained models": list(shipped_models()),
        "packages": {name: _version(name) for name in _NEEDED},
        "optional": {name: _version(name) for name in _OPTIONAL},
        "programs": {name: shutil.which(name) is not None for name in _PROGRAMS},
        "checks": {name: _outcome(check) for name, check in checks.items()},
    }
    missing = [name for name, found in report["packages"].items() if found is None]
    failed = [name for name, outcome in report["checks"].items() if outcome != "works"]
    if as_json:
        print_json(report)
    else:
        _show(report)
    return 1 if missing or failed else 0


def _show(report: dict[str, Any]) -> None:
    rows = [(name, str(report[name])) for name in ("medrecon", "python", "platform", "threads", "device")]
    rows.append(("trained models", ", ".join(report["trained models"]) or "none"))
    rows += [(name, found or "MISSING: pip install " + name) for name, found in report["packages"].items()]
    rows += [
        (name, f"{found or 'not installed'} (optional: {_OPTIONAL[name]})")
        for name, found in report["optional"].items()
    ]
    rows += [
        (name, f"{'found' if found else 'not found'} (optional: {_PROGRAMS[name]})")
        for name, found in report["programs"].items()
    ]
    rows += list(report["checks"].items())
    print_table("", ("", ""), rows)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return f"cuda ({torch.cuda.get_device_name()}, CUDA {torch.version.cuda})"
    reason = "this torch is a build for the CPU" if torch.version.cuda is None else "no CUDA device is visible"
    return f"cpu ({reason})"


def _outcome(check: Any) -> str:  # noqa: ANN401
    try:
        check()
    except Exception as error:  # noqa: BLE001 (the point is to find out what does not work)
        return f"FAILS: {type(error).__name__}: {error}"
    return "works"


def _fourier() -> None:
    import torch

    from medrecon.operators import CartesianMRI
    from medrecon.testing import adjoint_error

    operator = CartesianMRI(torch.arange(6) % 2 == 0, image_shape=(5, 6))
    if torch.cuda.is_available():
        operator = operator.cuda()
    if adjoint_error(operator) > 1e-6:
        raise ArithmeticError("the adjoint is wrong")


def _projector() -> None:
    import torch

    from medrecon.operators import ParallelBeam2D
    from medrecon.testing import adjoint_error

    operator = ParallelBeam2D((8, 9), torch.arange(5.0))
    if torch.cuda.is_available():
        operator = operator.cuda()
    if adjoint_error(operator) > 1e-6:
        raise ArithmeticError("the adjoint is wrong")


def _sandbox() -> None:
    import tempfile
    from pathlib import Path

    import h5py

    from medrecon.io.hdf5 import Hdf5File

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "probe.h5"
        with h5py.File(path, "w") as file:
            file["x"] = [1.0, 2.0]
        probe = Hdf5File(path)
        try:
            if probe.read("x").sum() != 3:
                raise ArithmeticError(f"read back wrongly on {sys.platform}")
        finally:
            probe.close()
