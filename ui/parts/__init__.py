"""Elements of our own: one Vue component each, fed with patches, instead of hundreds of elements."""
