"""Images in: MR, CT or natural ones, whatever the format."""

from medrecon.io.images.load import load_image

__all__ = ["load_image"]
