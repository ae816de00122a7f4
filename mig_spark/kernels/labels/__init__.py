"""Labels: their vectors, merging, normalising, and the phrases that name clusters."""
