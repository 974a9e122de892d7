"""The run directory and all that a run needs around its algorithm."""
