"""The pages, in a real browser where it matters."""
