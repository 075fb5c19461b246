"""Reports: from compared runs to figures, tables and a page.

`material` gathers what is drawn; each figure has a file with `Options`, `data` (what is drawn, as
frames), `draw` (a thin drawer) and `panel` (both, with title and caption); `kinds` lists them,
`board` says which to show in which order, `summary` answers in words and `page` puts it into HTML.
Pure, but that `board` and `publications` read a file and `export` writes images.
"""
