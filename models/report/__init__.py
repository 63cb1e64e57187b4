"""The report on what a network's gates have learned, asking what the paper asks (section 4) of any network and data."""
