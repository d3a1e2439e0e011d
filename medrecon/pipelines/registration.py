"""medrecon's readers and writers among MONAI's, on request."""

import logging
import warnings

from monai.data import image_writer
from monai.transforms.io.array import SUPPORTED_READERS

from medrecon.pipelines.readers import KSpaceReader, SinogramReader
from medrecon.pipelines.writers import DicomWriter, HDF5Writer

_NOISE = "nvImageCodec is not available"
_NOISY = "monai.data.nvimgcodec_pydicom_plugin"


def register() -> None:
    """Make the readers and writers known to MONAI; call it once, before the pipeline is built. Again does no harm.

    ``LoadImage`` then finds ``KSpaceReader`` and ``SinogramReader`` by name, and on its own for files that hold
    such data. ``SaveImage`` writes ``.dcm`` and ``.h5`` through medrecon; every other reader and writer, and every
    other suffix, stays what it was.
    """
    SUPPORTED_READERS["kspacereader"] = KSpaceReader
    SUPPORTED_READERS["sinogramreader"] = SinogramReader
    if image_writer.EXT_WILDCARD not in image_writer.SUPPORTED_WRITERS:
        image_writer.init()  # MONAI fills the table only while it is empty
    # Nothing after ours: SaveImage asks the next writer where one fails, and MONAI's DICOM has 8 bits.
    image_writer.SUPPORTED_WRITERS["dcm"] = (DicomWriter,)
    image_writer.SUPPORTED_WRITERS["h5"] = (HDF5Writer,)
    # Every LoadImage says twice that an optional decoder is missing; the same filter twice is one filter.
    logging.getLogger(_NOISY).addFilter(_is_news)
    warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader: nvImageCodec decoder plugin did not register")


def _is_news(record: logging.LogRecord) -> bool:
    """Drop the line that every ``LoadImage`` logs on machines without an optional decoder."""
    return _NOISE not in record.getMessage()
