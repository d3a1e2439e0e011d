"""Raw measurements to images: MRI k-space, CT sinograms, block compressed sensing."""

__version__ = "0.1.0.dev0"
