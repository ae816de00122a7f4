"""The pool, labelled and scored: taggers and scorers in executors, the cache, and what is told of it."""
