"""Selected records on their way out: their lines, their dialogues, and what trainers take."""
