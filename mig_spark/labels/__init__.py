"""From tags to the label graph: the vocabulary, its edges, and the propagation matrix."""
