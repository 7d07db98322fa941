"""Files here or behind a URL: whole ones or none."""
