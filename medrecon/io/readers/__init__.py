"""One module per input format; :func:`medrecon.io.read_scan` finds the right one by content."""
