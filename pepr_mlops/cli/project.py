"""The job behind the MLproject: `python -m pepr_mlops.cli.project KEY=VALUE …`.

MLflow enforces no types and passes keys that the MLproject does not name on as `--KEY VALUE`.
Both are told in one line, and the run MLflow has begun carries that line.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from pepr_mlops.errors import PeprError, WrongUse
from pepr_mlops.schema import RunSpec


def parse(words: Sequence[str]) -> dict[str, str]:
    """Parameters by name, from `KEY=VALUE` and `--KEY VALUE`."""
    raw: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        if word.startswith("--"):
            raw[word[2:]] = next(rest, "")
            continue
        key, equals, value = word.partition("=")
        if not equals:
            raise WrongUse(f"{word!r} is not KEY=VALUE; pass parameters as -P KEY=VALUE")
        raw[key] = value
    return raw


def main() -> None:
    from pepr_mlops.cli import run_command

    run_command(lambda: _main(sys.argv[1:]))


def _main(words: Sequence[str]) -> None:
    from pepr_mlops import tracking
    from pepr_mlops.cli.train import train_and_print

    try:
        train_and_print(RunSpec.parse(parse(words)))
    except PeprError as error:
        run = tracking.inherited_run()
        if run is not None and error.reason != tracking.NOT_FRESH:
            tracking.fail(run, error)
        raise


if __name__ == "__main__":
    main()
