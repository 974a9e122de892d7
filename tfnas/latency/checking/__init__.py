"""Whole networks against a table, and the correction that they call for."""
