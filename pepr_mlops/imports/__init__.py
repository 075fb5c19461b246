"""Results and logs of others as finished runs: a module for each source."""
