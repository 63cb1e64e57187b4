"""Speed and load measurements; each command prints a table and ends with one line of JSON."""
