"""Who is told what, when and how; and the jobs that run by the clock."""
