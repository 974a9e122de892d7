"""The vocabulary: architecture, space, cost, errors. Imports nothing else of the package."""

__version__ = "0.1.0"
