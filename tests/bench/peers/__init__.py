"""Other servers that send the same messages to as many connections: what Muster is compared with."""
