"""How autoscalers follow a day's load, simulated on a virtual clock; see `__main__`."""
