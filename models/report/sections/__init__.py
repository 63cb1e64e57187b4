"""The questions of the report, one a file: figures, what they say in plain words, and pictures of them."""
