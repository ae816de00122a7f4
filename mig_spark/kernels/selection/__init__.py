"""MIG selection over packed rows: gains, the compiled greedy, and the rounds by which blocks and driver agree."""
