"""`rare-assets`: what the command needs, and nothing else uses."""
