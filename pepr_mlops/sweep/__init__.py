"""Sweeps: which jobs there are, which come next, and what works on them.

`plan` and `frugal` say what to do next, from what the tracking server holds; `local` and
`ray_engine` do it; `driver` joins the two.
"""
