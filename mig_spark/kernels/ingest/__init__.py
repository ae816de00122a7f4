"""One record to one normalised row, or the reason why not."""
