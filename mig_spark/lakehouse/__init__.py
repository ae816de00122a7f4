"""The shell: Spark sessions, Delta tables, files, run records."""
