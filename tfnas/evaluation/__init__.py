"""Evaluating a trained network on images, and predicting classes."""

from tfnas.utils.lazy_names import moved_names

__getattr__ = moved_names(__name__)
