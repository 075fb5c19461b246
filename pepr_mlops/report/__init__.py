"""Figures: one file each, drawn from numbers computed elsewhere."""
