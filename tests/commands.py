"""Commands called in this process, as their scripts call them."""

from __future__ import annotations


def outcome(capsys, command, *arguments):
    """Exit status and what was written to stderr, which must be no traceback."""
    status = command(list(arguments))
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return status, captured.err
