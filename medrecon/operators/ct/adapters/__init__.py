"""Other projectors behind our X-ray transforms; each is imported by name only, with the package it needs."""
