"""The shell around Spark: sessions, Delta tables, files, leases and run records."""
