"""Kernels of the room `screen`: near duplicates, and text that the pool has in common with evaluation sets."""
