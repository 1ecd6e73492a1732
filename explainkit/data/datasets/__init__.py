"""Data sets: drawn, downloaded by you, or inside packages."""
