"""Stage `annotate`: labels and scores for the pool's rows, by taggers and scorers in executors, through a cache."""
