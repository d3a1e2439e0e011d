"""Sinograms in files: the schema of their geometry, and the way from raw intensities to a scan."""
