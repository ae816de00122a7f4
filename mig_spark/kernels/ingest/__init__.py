"""From one record of the source to a normalised row, or to the reason why it cannot be used."""
