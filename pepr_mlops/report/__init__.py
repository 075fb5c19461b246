"""Reports: from compared runs to figures, tables and a page.

`sources` reads runs and `material` holds the data behind all figures. Each figure has a file in
`figures` with `Options`, `data` (the numbers drawn, as frames), `draw` and `panel` (both, with
title and caption); `dashboards` says which to show, `summary` answers in words, `page` makes the
HTML and `images` the files for print. Pure, except for `sources`, `dashboards`, `images` and
`figures.publications`.
"""
