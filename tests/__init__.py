"""The tests: domain, realtime, notifications, ui in a real browser, and the bench."""
