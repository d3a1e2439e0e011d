"""X-ray transforms, their filters, and what is done to measured intensities before reconstruction."""
