"""Networks: backbones, their layers, and how networks that somebody else wrote are read."""
