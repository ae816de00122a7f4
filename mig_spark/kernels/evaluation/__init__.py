"""What a selection is worth, measured by what it did not optimise."""
