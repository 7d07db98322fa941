"""Training files of what is stored: one module a format, and what all formats share."""
