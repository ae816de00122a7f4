"""Exact, distributed instruction-data selection by Maximizing Information Gain on Spark."""
