"""The SQL of a Table."""
