"""Images to files: NIfTI, DICOM, HDF5, NumPy and PNG, each complete or absent, with a JSON sidecar."""

from medrecon.io.writers.atomic import atomic_folder, atomic_path, check_writable
from medrecon.io.writers.png import contact_sheet
from medrecon.io.writers.registry import OutputPlan, plan_output, source_stem, write_image

__all__ = [
    "OutputPlan",
    "atomic_folder",
    "atomic_path",
    "check_writable",
    "contact_sheet",
    "plan_output",
    "source_stem",
    "write_image",
]
