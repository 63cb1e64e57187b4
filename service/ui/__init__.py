"""The page that a browser is shown at `/`."""
