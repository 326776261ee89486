"""What a device needs to work alone: rosters, keys, sync and the pages that run without the server."""
