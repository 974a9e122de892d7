"""A trained network as a file to deploy, checked and timed."""
