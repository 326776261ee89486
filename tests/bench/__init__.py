"""`make bench`: speed, measured and printed with the machine; never asserted."""
