"""What the UI shows of a table: metadata, charts, an example, the report on the corpus."""
