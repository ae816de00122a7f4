"""Runs that repeat: what has not changed is not done again, gates before publishing, replay, and incremental runs."""
