"""Fingerprint of an input, so that a result can be traced to it without naming anybody."""

import hashlib
from pathlib import Path


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal; of a BART pair those of the .cfl."""
    if not path.is_file():
        path = path.with_name(path.name + ".cfl")
    elif path.suffix == ".hdr":
        path = path.with_suffix(".cfl")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
