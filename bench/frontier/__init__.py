"""Is a gated network the best use of a millisecond? Plain, gated and cascaded networks of one recipe, side by side."""
