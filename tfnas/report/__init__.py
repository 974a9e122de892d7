"""From facts to text."""
