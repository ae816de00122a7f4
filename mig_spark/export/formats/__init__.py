"""What files are written in: one module a format. Their table is `plugins.EXPORTS`."""
