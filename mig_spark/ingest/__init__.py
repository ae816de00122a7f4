"""Whatever the user has, to the tables `pool` and `rejected`."""
