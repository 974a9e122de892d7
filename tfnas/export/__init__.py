"""A trained network as a file to ship, checked and timed."""
