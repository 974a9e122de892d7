"""Making the table of a space: measured at few points, or counted."""
