"""Judging a trained network on images, and asking it for the class of some."""
