"""ConvNet-AIG: residual networks whose blocks each have a gate, and their training (Veit & Belongie, ECCV 2018)."""
