"""Sweeps: many jobs, each trained once.

`plan` and `frugal` choose the next jobs from the runs on the tracking server, `local_engine` and
`ray_engine` run them, and `driver` connects the two.
"""
