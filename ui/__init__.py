"""The NiceGUI pages, their components and words. No queries, no rules, no permissions."""
