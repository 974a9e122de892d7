"""Retraining a derived network."""
