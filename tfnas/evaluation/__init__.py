"""A trained network on labelled images, and the classes of some pictures."""

from tfnas.utils.moved_names import moved_names

__getattr__ = moved_names(__name__)
