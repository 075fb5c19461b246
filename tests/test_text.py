"""What people and servers name is only text, and passwords stay with their owners."""

from __future__ import annotations

import ast
import logging
from pathlib import Path

import click
import pytest
from made import logged, run

from pepr_mlops import tracking
from pepr_mlops.cli import run_command
from pepr_mlops.cli.options import command_line
from pepr_mlops.errors import PeprError, WorkFailed, WrongUse, one_line, trace
from pepr_mlops.sweep.worker import Worker
from pepr_mlops.text import (
    address,
    cell,
    decimals,
    file_name,
    matches,
    printable,
    secrets,
    without_password,
)
from pepr_mlops.tracking import read

PACKAGE = Path(__file__).parents[1] / "pepr_mlops"
SECRET = "S3cret"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://user:S3cret@host:5000/x", "http://host:5000/x"),
        ("http://S3cret@host", "http://host"),
        ("http://me@site.org:S3cret@host", "http://host"),
        ("http://user:a@S3cret@host/x", "http://host/x"),
        ("http://user:a/S3cret@host/x", "http://host/x"),
        ("http://user:a?b#S3cret@host/x", "http://host/x"),
        ("http://user:a S3cret@host/x", "http://host/x"),
        ("HTTPS://user:S3cret@[::1]:5000", "HTTPS://[::1]:5000"),
        ("http:/user:S3cret@host", "host"),  # a slash is missing
        ("user:S3cret@host", "host"),
        ("postgresql://u:S3cret@db/mlflow", "postgresql://db/mlflow"),
        ("postgresql://u:p%40S3cret@db/mlflow", "postgresql://db/mlflow"),
        ("postgresql+psycopg://db/x?user=u&password=S3cret", "postgresql+psycopg://db/x?user=u&password=***"),
        ("mysql+pymysql://db/x?password=a S3cret&ssl=1", "mysql+pymysql://db/x?password=***&ssl=1"),
        ("postgresql://db/x?sslpassword=S3cret", "postgresql://db/x?sslpassword=***"),
        ("http://host/?token=S3cret#/runs", "http://host/?token=***"),
        ("mssql+pyodbc:///?odbc_connect=PWD%3DS3cret", "mssql+pyodbc:///?odbc_connect=***"),
        # nothing to hide
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("sqlite:////home/me@work/a:b@c.db", "sqlite:////home/me@work/a:b@c.db"),
        ("http://host/path@v1", "http://host/path@v1"),
        ("http://[::1]:5000/", "http://[::1]:5000/"),
        ("databricks://profile", "databricks://profile"),
    ],
)  # fmt: skip
def test_an_address_is_shown_without_its_password(uri: str, shown: str) -> None:
    assert address(uri) == shown
    words = f"cannot open '{uri}' twice"
    if " " not in uri and "://" in uri:
        assert SECRET not in without_password(words)
        assert without_password(words).startswith("cannot open '")
    if SECRET in uri:
        assert SECRET not in without_password(words, *secrets(uri))


def test_a_password_is_found_in_the_forms_that_errors_have_it_in() -> None:
    uri = "postgresql://user:pa%40ss wörd@db.example:5432/mlflow"
    for quoted in ("pa@ss wörd", "pa%40ss%20w%C3%B6rd", "pa%40ss wörd"):
        assert without_password(f"bad: {quoted}.", *secrets(uri)) == "bad: ***."
    # psycopg takes what follows the first @ for the host
    raw = "postgresql://user:p@ss@db.example/mlflow"
    assert without_password("cannot resolve 'ss@db.example'", *secrets(raw)) == (
        "cannot resolve '***'"
    )
    assert secrets("sqlite:////home/me@work/x.db") == ()


def test_no_error_of_ours_has_a_password_or_steers_a_terminal() -> None:
    bad = "http://u:S3cret@h\nis \x1b]0;away\x07"
    for kind in (WrongUse, WorkFailed):
        assert str(kind(bad)) == r"http://h is \x1b]0;away\x07"
    assert one_line(ValueError("a http://u:S3cret@h \x9b")) == r"ValueError: a http://h \x9b"
    assert len(one_line(ValueError("x" * 190 + " http://u:S3cret@h"))) == 200
    assert SECRET[:2] not in one_line(ValueError("x" * 175 + " http://u:S3cret@h"))
    try:
        raise ValueError("of http://u:S3cret@h")
    except ValueError:
        shown = trace()
    assert "ValueError: of http://h" in shown
    assert "test_text.py" in shown


@pytest.mark.parametrize(
    "uri",
    [
        "http://user:S3cret@127.0.0.1:9",
        "http://user:p/S3cret@127.0.0.1:9",
        "http://user:S3cret@127.0.0.1:port",
        "http://user:S3cret@[::bad",
        "http://127.0.0.1:9/?token=S3cret",
        "postgresql://user:S3cret@127.0.0.1:port/db",
        "nosuch://user:S3cret@host/db",
        "user:S3cret@host",
    ],
)
def test_a_server_that_fails_is_reported_without_its_password(
    uri: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(PeprError, match="tracking: ") as refused:
        read.load_runs("x", tracking_uri=uri)
    assert SECRET not in str(refused.value)
    with pytest.raises(PeprError, match="tracking: "):
        tracking.prepare(["x"], uri)
    with pytest.raises(PeprError, match="tracking: "):
        read.load_jobs(["x"], tracking_uri=uri)
    assert SECRET not in "".join(capfd.readouterr())


def test_a_token_that_cannot_be_sent_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "S3cret\nof two lines")
    with pytest.raises(WorkFailed) as refused:
        read.load_runs("x", tracking_uri="http://127.0.0.1:9")
    assert "header" in str(refused.value)
    assert SECRET not in str(refused.value)
    assert "two lines" not in str(refused.value)


def test_mlflow_logs_no_password(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import mlflow.store.db.utils as database

    filters = list(logging.getLogger("mlflow").handlers[0].filters)
    monkeypatch.setattr(database, "MAX_RETRY_COUNT", 2)
    monkeypatch.setattr("pepr_mlops.tracking.server._knock", lambda uri: None)  # let MLflow try
    monkeypatch.setattr("pepr_mlops.tracking.server._LOCKS", {})
    # the library takes what follows the first @ for the host
    with pytest.raises(WorkFailed, match=r"failed to resolve host '\*\*\*'"):
        read.load_runs("x", tracking_uri="postgresql://user:p@S3cret@nowhere.invalid/db")
    printed = capfd.readouterr().err
    assert "host '***'" in printed
    assert SECRET not in printed
    assert logging.getLogger("mlflow").handlers[0].filters == filters


def test_a_crash_and_what_crashed_show_no_password(capfd: pytest.CaptureFixture[str]) -> None:
    def crash() -> None:
        raise ValueError(f"postgresql://u:{SECRET}@h/db\x1b]0;x\x07")

    with pytest.raises(SystemExit) as exit_:
        run_command(crash)
    assert exit_.value.code == 1
    printed = capfd.readouterr().err
    assert r"ValueError: postgresql://h/db\x1b]0;x\x07" in printed
    assert "in crash" in printed
    assert SECRET not in printed
    assert SECRET not in repr(Worker(f"http://u:{SECRET}@h", Path()))


def test_a_command_line_is_shown_without_its_password() -> None:
    shown: list[str] = []

    @click.command()
    @click.option("--experiment", multiple=True)
    @click.option("--tracking-uri")
    @click.option("--out")
    @click.pass_context
    def command(context: click.Context, /, **_: object) -> None:
        shown.append(command_line(context, "pepr report"))

    uri = f"postgresql://u:a {SECRET}@h/db?sslpassword={SECRET}"
    words = ["--tracking-uri", uri, "--out", f"x http://u:{SECRET}@h", "--experiment", "a:b@c"]
    command.main(words, standalone_mode=False)
    assert shown == [
        "pepr report --experiment a:b@c --tracking-uri 'postgresql://h/db?sslpassword=***' "
        "--out 'x http://h'"
    ]


def test_texts_are_printed_without_steering_anything() -> None:
    assert printable("a\x1b[2J\x07\x00b") == r"a\x1b[2J\x07\x00b"
    assert printable("evil\u202egnp.exe\u2066") == r"evil\u202egnp.exe\u2066"
    assert printable("\ud800 ünï – 95\u00a0%") == "\\ud800 ünï – 95\u00a0%"
    assert printable("a\r\nb\tc") == r"a\r\nb\tc"
    assert printable("a\r\nb\tc", lines=True) == "a\\r\nb\tc"


def test_a_spreadsheet_computes_nothing() -> None:
    for formula in ("=1+1", '=HYPERLINK("http://x")', "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"):
        assert cell(formula).startswith("'")
    assert [cell(v) for v in (-1.5, None, "resnet18d", "a=b", "")] == [
        -1.5, None, "resnet18d", "a=b", ""]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("../../etc/passwd", "etc_passwd"),
        ("/abs", "abs"),
        (".hidden", "hidden"),
        ("-rf", "rf"),
        ("a\x00b\nc", "a_b_c"),
        ("C:\\x", "C_x"),
        ("...", ""),
        ("ünï 1.5", "ünï_1.5"),
        ("網" * 60, "網" * 26),  # of 3 bytes each: file systems take 255
    ],
)
def test_a_file_name_stays_in_its_folder(text: str, name: str) -> None:
    assert file_name(text) == name


HOSTILE = ["it's", "' OR '1'='1", "a' OR tags.x LIKE '%", "%", "_", '"', "`", "\\'", "--", "a;b"]


@pytest.mark.parametrize("names", [HOSTILE])
def test_a_filter_finds_its_name_and_no_other(store: str, names: list[str]) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(store)
    for name in names:
        logged(store, run(tags={"pepr.experiment": name}), "elsewhere")
    for name in names:
        found = client.search_runs(["1"], f"tags.`pepr.experiment` {matches(name)}")
        assert name in {r.data.tags["pepr.experiment"] for r in found}, name
        frame = read.load_runs(name)
        assert list(frame["tags.pepr.experiment"]) == [name]


def test_commands_print_by_the_one_function_that_is_safe() -> None:
    for path in (PACKAGE / "cli").rglob("*.py"):
        calls = {
            ast.unparse(node.func)
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call)
        }
        assert not calls & {"print", "click.secho"}, path
        assert "click.echo" not in calls or path.name == "output.py", path


def test_a_column_shows_small_numbers_too() -> None:
    """Two R that differ 150-fold are not both 0.0000."""
    numbers = [0.0, 0.5, 0.001, 2.308e-06, 1.5380e-08, 12345.678, float("nan")]
    shown = ["0.0000", "0.5000", "0.0010", "2.308e-06", "1.538e-08", "1.235e+04", ""]
    assert [decimals(n) for n in numbers] == shown
