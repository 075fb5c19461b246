"""The command line: commands parse, call the library and print."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from types import FrameType
from typing import Any

import click

from pepr_mlops.cli.output import say
from pepr_mlops.errors import PeprError, WorkFailed, WrongUse, trace
from pepr_mlops.process import ends_at_once, signals
from pepr_mlops.text import without_password

_COMMANDS = {
    "train": "Train one model and log what it cost.",
    "sweep": "Train many models, each once, and resume after a stop.",
    "measure": "Run any command and log what it cost.",
    "log": "Add P or other metrics to a run.",
    "score": "Score models by performance per resource unit.",
    "select": "Find the cheapest model that is good enough, and what it saves.",
    "predict": "Predict new images with a trained model.",
    "profile": "Measure what using trained models costs on this device.",
    "export": "Write a trained model for other programs, or register it.",
    "stats": "Test whether groups or conditions differ.",
    "runs": "List runs that are left out or doubtful, and why.",
    "card": "Describe a trained model, with an energy label.",
    "report": "Write an experiment as a page, figures and tables.",
    "dashboard": "Show experiments on a live page.",
    "models": "List the paper's 131 models.",
    "data": "List, fetch, check and build data sets.",
    "sync": "Send what the tracking server does not have yet.",
    "doctor": "Check this machine and the tracking server.",
    "import": "Import results and logs of others as runs.",
}
_MODULES = {"import": "import_"}  # where the command's name cannot be a module's


class _Lazy(click.Group):
    """Imports a command's module only when it is called, so that help is fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = import_module(f"pepr_mlops.cli.{_MODULES.get(cmd_name, cmd_name)}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:  # it does not know the names of commands
            raise click.NoSuchCommand(
                error.command_name, possibilities=_COMMANDS, ctx=ctx
            ) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (PeprError, click.UsageError) as error:
            if ctx.invoked_subcommand in ("train", "sweep") and "MLFLOW_RUN_ID" in os.environ:
                from pepr_mlops import tracking

                with suppress(WorkFailed):  # the first error is the one to report
                    tracking.fail_inherited(_as_ours(error))
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pepr_mlops")
def pepr() -> None:
    """Which model is good enough, and what does it cost?

    \b
    Examples:
      pepr train --model resnet18d --dataset digits --image-size 32 --no-pretrained
      pepr score --experiment digits
    """


def main(arguments: list[str] | None = None) -> None:
    """Run `pepr` and exit with its status."""
    run_command(
        lambda: pepr.main(arguments, prog_name="pepr", standalone_mode=False),
        is_program=arguments is None,
    )


def run_command(command: Callable[[], Any], *, is_program: bool = False) -> None:
    """Run and exit: 0 done, 1 the work failed, 2 wrong use, 130 interrupted, 143 terminated.

    A user's mistake is one line on standard error. With `is_program` the process does nothing
    else and ends at once.
    """
    end = ends_at_once() if is_program else None
    if is_program and isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # not every system prints all of Unicode
    _exit_on_signals()
    try:
        sys.exit(_status(command))
    except SystemExit as left:
        if end is not None and isinstance(left.code, int):
            end(left.code)
        raise


def _status(command: Callable[[], Any]) -> int:
    try:
        result = command()
    except click.exceptions.NoArgsIsHelpError as error:
        say(error.format_message(), err=True)
        return 2
    except click.UsageError as error:
        say(_as_ours(error), err=True)
        return 2
    except click.ClickException as error:
        say(f"pepr: {without_password(error.format_message())}", err=True)
        return 1
    except PeprError as error:
        say(f"pepr: {error}", err=True)
        return error.exit_status
    except (click.Abort, KeyboardInterrupt):
        say("pepr: interrupted", err=True)
        return 130
    except BrokenPipeError:  # the reader of our output has ended, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception:  # a bug; whoever reports it must not report a password with it
        say(trace(), err=True)
        return 1
    return result if isinstance(result, int) else 0


def _as_ours(error: PeprError | click.UsageError) -> PeprError:
    if isinstance(error, PeprError):
        return error
    path = error.ctx.command_path if error.ctx else "pepr"
    return WrongUse(f"{path}: {error.format_message()} See '{path} --help'.")


def _exit_on_signals() -> None:
    """Let a job end its run as KILLED when the system stops it or its terminal closes."""

    def stop(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    for hang_up in signals("SIGHUP"):
        if signal.getsignal(hang_up) is signal.SIG_DFL:  # nohup ignores it
            signal.signal(hang_up, stop)
