"""The assets: a thin module each."""
