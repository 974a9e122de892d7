"""The vocabulary: architecture, space, cost, errors. Imports nothing else of the package."""
