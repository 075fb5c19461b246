"""The jobs behind the MLproject: `python -m pepr_mlops.cli.project [sweep] KEY=VALUE …`.

MLflow enforces no types and passes keys that the MLproject does not name on as `--KEY VALUE`.
Both are told in one line, and the run MLflow has begun carries that line.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress

import click

from pepr_mlops.errors import PeprError, WorkFailed, WrongUse, nearest
from pepr_mlops.spec import NONE, RunSpec
from pepr_mlops.validation import checked


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

    run_command(lambda: _main(sys.argv[1:]), whole=True)


def _main(words: Sequence[str]) -> int | None:
    from pepr_mlops import tracking

    try:
        if words[:1] == ["sweep"]:
            return _sweep(parse(words[1:]))
        from pepr_mlops.cli.train import train_and_print

        raw = parse(words)
        strict = checked(bool, raw.pop("strict", "false").strip(), "strict")
        train_and_print(RunSpec.parse(raw), strict=strict)
    except PeprError as error:
        with suppress(WorkFailed):  # the first error is the one to tell
            tracking.fail_inherited(error)
        raise
    return None


def _sweep(raw: dict[str, str]) -> int:
    """`pepr sweep` with parameters as options: `none` is as not given, and flags take `true`."""
    from pepr_mlops.cli.sweep import command

    options = {
        option.opts[0].removeprefix("--").replace("-", "_"): option
        for option in command.params
        if isinstance(option, click.Option)
    }
    words = [raw.pop("file")] if raw.get("file", NONE) != NONE else []
    raw.pop("file", None)
    for key, value in raw.items():
        option = options.get(key)
        if option is None:
            close = nearest(key, options) or "."
            raise WrongUse(f"{key}: no such parameter{close} See 'pepr sweep --help'")
        if value in ("", NONE):
            continue
        if option.is_flag:
            words += [option.opts[0]] if checked(bool, value.strip(), key) else []
        else:
            words += [option.opts[0], value]
    status = command.main(words, standalone_mode=False)
    return int(status or 0)


if __name__ == "__main__":
    main()
