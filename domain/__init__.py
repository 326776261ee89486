"""What attendance is: tables, operations, resolution, permissions, the one write path, the event log."""
