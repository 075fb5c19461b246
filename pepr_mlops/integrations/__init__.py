"""Callbacks by which other libraries' trainers report epochs to `pepr_mlops.measure`.

Their libraries are no dependencies of this package: a module here imports its own.
"""
