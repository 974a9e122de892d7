"""What a space can reach with a table, and where it goes."""
