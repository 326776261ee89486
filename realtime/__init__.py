"""Getting committed events to whoever watches, and the HTTP door: bus, hub, API, security, health."""
