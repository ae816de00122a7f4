"""From the pool to what is left out of it: copies, rows of evaluation sets."""
