"""What the service and its worker processes say to each other over a socket."""
