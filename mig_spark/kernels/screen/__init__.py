"""Kernels of the room `screen`."""
