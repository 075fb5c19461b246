"""The imports of the process that the tasks of a sweep are forked from.

`multiprocessing`'s fork server preloads this module last, since the imports of a job take many
times as long as a fork. Nothing here may initialise CUDA, leave a thread running, or compute with
PyTorch, because none of these survives a fork.
"""

from __future__ import annotations

import os
import signal
import tempfile

from pepr_mlops.costs import device, memory
from pepr_mlops.process import ends_at_once, importing

ends_at_once()(0)
with importing(device.load_torch):
    import timm  # noqa: F401
    import torch._dynamo  # noqa: F401  # which the first optimizer imports

    import pepr_mlops.costs.recorder
    import pepr_mlops.data
    import pepr_mlops.sweep.worker
    import pepr_mlops.tracking
    import pepr_mlops.train.autotune
    import pepr_mlops.train.checkpoint
    import pepr_mlops.train.job
    import pepr_mlops.train.loop
    import pepr_mlops.train.models
    import pepr_mlops.train.resume
    import pepr_mlops.train.trainer  # noqa: F401

_me = os.getpid()
_pages = memory.file_pages()
# A signal to the process group is for the tasks, which still have to report how they ended.
_before = {
    number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGHUP)
}


def _born() -> None:
    """Make a child equal to a process that has imported everything itself."""
    if os.getppid() != _me:  # forked by one of the children
        return
    for number, handler in _before.items():  # nohup's among them
        signal.signal(number, handler)
    tempfile.tempdir = None  # its environment may name another one
    memory.map_file_pages(_pages)


os.register_at_fork(after_in_child=_born)
