"""The documentation names every command and option, and none that is not there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from pepr_mlops import cli
from pepr_mlops.cli.options import HEADINGS, Command

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(page.read_text() for page in PAGES)
# Options of mlflow, uv, ruff, pytest and ray that the pages show.
OTHERS = {
    *("--allowed-hosts", "--artifacts-destination", "--backend-store-uri", "--check"),
    *("--env-manager", "--group", "--head", "--hypothesis-profile"),
    *("--bind", "--cpus-per-task", "--exclusive", "--nv", "--reservation", "--test-only"),
}


def _below(command: click.Command, words: str) -> Iterator[tuple[str, click.Command]]:
    """A command and those in it, by the words that one types."""
    yield words, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from _below(found, f"{words} {name}")


COMMANDS = dict(_below(cli.pepr, "pepr"))


def _options(command: click.Command) -> dict[str, set[str]]:
    """The spellings of each option, such as --compile and --no-compile, by its parameter."""
    found: dict[str, set[str]] = {}
    for one in command.get_params(click.Context(command)):
        if isinstance(one, click.Option) and not one.hidden:
            long = {name for name in [*one.opts, *one.secondary_opts] if name.startswith("--")}
            found.setdefault(one.name or "", set()).update(long)
    return found


def _mentioned(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_and_option_is_documented(words: str) -> None:
    assert re.search(rf"\b{words}\b", TEXT)
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", TEXT))
    assert [
        name for name, flags in _options(COMMANDS[words]).items() if not flags & mentioned
    ] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_documented_option_exists(page: Path) -> None:
    known = {
        flag for one in COMMANDS.values() for flags in _options(one).values() for flag in flags
    }
    shown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", page.read_text()))
    assert shown - known - OTHERS == set()


@pytest.mark.parametrize("name", ["train", "sweep", "score", "select", "stats", "runs", "report"])
def test_options_stand_under_headings(name: str) -> None:
    command = COMMANDS[f"pepr {name}"]
    assert isinstance(command, Command)
    text = CliRunner().invoke(cli.pepr, [name, "--help"]).output
    sections = re.findall(r"^(\w+):\n((?:(?:  .*)?\n)+)", text[text.index("Essentials:") :], re.M)
    headings = [heading for heading, _ in sections]
    assert headings == [heading for heading in HEADINGS if heading in headings]
    assert headings[0] == "Essentials"
    *_, (last, rest) = sections
    assert (last, re.findall(r"--[a-z-]+", rest)) == ("Other", ["--help"])
    shown = {flag for _, body in sections for flag in re.findall(r"^ +.*?(--[a-z-]+)", body, re.M)}
    assert all(flags & shown for flags in _options(command).values())
