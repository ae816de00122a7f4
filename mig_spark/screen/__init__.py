"""From the pool to what is left out of it, copies and rows of evaluation sets; and groups of near duplicates."""
