"""Labels: similar ones, counts, merging, the vocabulary's rules, the matrix P and groups of labels, and phrases."""
