"""Stand-alone networks: layers, counting, weights."""
