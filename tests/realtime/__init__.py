"""Events on their way to whoever watches, and the HTTP door."""
