"""Measurements with p50, p99 and the machine they were made on; not part of the tests."""
