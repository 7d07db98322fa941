"""Words in any language, and texts as they are shown."""
