"""The headings of a command's help text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FlagGroup:
    """A heading of the help text, the fields of the command's dataclass under it, and a line on all of them."""

    title: str
    fields: tuple[str, ...]
    description: str | None = None
