"""A dataset classified offline: images from files, shards or tables, answers as Parquet, and nothing done twice."""
