"""Blocks, gains, the compiled greedy, and the protocol of the rounds."""
