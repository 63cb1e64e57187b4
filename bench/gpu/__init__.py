"""Is the CUDA engine right, and how fast is it beside ungated networks in other libraries? See `__main__`."""
