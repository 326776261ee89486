"""The HTTP API under /api/v1 (protocol §4): the outside door, one file for each kind of thing."""
