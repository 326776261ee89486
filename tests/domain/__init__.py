"""The rules, without a server: resolution, the write path, schedules, people, rosters."""
