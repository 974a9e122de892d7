"""Candidates of a search, compared by zero-shot scores and inherited accuracy."""
