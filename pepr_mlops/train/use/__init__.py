"""Trained models: keep, load and export them, predict with them, and measure what use costs."""
