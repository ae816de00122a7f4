"""Files that people and trainers take away: the selected rows in order, in the form that is asked for."""
