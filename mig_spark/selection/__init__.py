"""The annotated pool and the label graph to the selection, with its certificate; and the check of any list of ids."""
