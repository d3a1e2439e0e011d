"""Files to scans and images to files: one module per format, found by content."""

from typing import TYPE_CHECKING

from medrecon.lazy import lazy_names

if TYPE_CHECKING:
    from medrecon.io.geometry import Geometry
    from medrecon.io.image import Image
    from medrecon.io.images import load_image
    from medrecon.io.options import ReadOptions
    from medrecon.io.registry import read_scan
    from medrecon.io.scan import CartesianAcquisition, Scan, SliceStack
    from medrecon.io.writers.measurements import write_fastmri, write_native
    from medrecon.io.writers.registry import write_image
    from medrecon.io.writers.sinogram import write_sinogram

_MODULES = {
    "CartesianAcquisition": "scan",
    "Geometry": "geometry",
    "Image": "image",
    "ReadOptions": "options",
    "Scan": "scan",
    "SliceStack": "scan",
    "load_image": "images",
    "read_scan": "registry",
    "write_fastmri": "writers.measurements",
    "write_image": "writers.registry",
    "write_native": "writers.measurements",
    "write_sinogram": "writers.sinogram",
}

__all__ = [
    "CartesianAcquisition",
    "Geometry",
    "Image",
    "ReadOptions",
    "Scan",
    "SliceStack",
    "load_image",
    "read_scan",
    "write_fastmri",
    "write_image",
    "write_native",
    "write_sinogram",
]

__getattr__ = lazy_names(__name__, _MODULES)


def __dir__() -> list[str]:
    return __all__
