"""What taggers and scorers do to a batch of rows."""
