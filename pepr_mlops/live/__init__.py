"""The live page: the page of a report, which follows the tracking server.

`view` is what a page shows, from its address; `watch` reads, draws and waits for news in a thread;
`states` are the first screens without results, and `under_way` how far runs are; `app` serves it
all to those whom `access` admits. `view`, `states` and `under_way` are pure.
"""
