"""Searches, and what is done with their results: candidates, parsing, re-ranking, refitting to the device."""

from tfnas.utils.lazy_names import moved_names

__getattr__ = moved_names(__name__)
