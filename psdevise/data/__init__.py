"""Text and pictures as Parquet: preparing them once, and reading ranges of rows ever after."""
