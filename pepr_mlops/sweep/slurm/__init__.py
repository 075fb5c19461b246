"""Sweeps on a Slurm cluster: one job of an array for each task."""
