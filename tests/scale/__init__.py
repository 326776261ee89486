"""Two processes on PostgreSQL and Redis behind nginx, all real, and what may happen to them."""
