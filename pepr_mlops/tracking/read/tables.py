"""Reading MLflow's own tables, where the tracking URI is a database.

It is ten times as fast as MLflow's API. The tables are no public interface, so they are read only
where the database says it has a schema this module was tested with; a test checks that both ways
give the same frames.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from pepr_mlops.errors import WrongUse
from pepr_mlops.tracking.read.frames import Page, Point
from pepr_mlops.tracking.server import existing, sqlite_path

# Alembic revisions: MLflow 3.17 and 3.18, whose tables that are read here are the same.
KNOWN_SCHEMAS = {"dc11669786a5", "f4a9b2c7d1e6"}
SCHEMES = ("sqlite", "postgresql", "mysql", "mssql")
_PAGE = 2000  # runs; each page is a query per table

# Left to choose, SQLite goes through all runs' points of a metric for each page of runs.
_BY_RUN = sa.text("metrics INDEXED BY index_metrics_run_uuid_key_step")

NO_STORE = "no_store"  # the reason of `check_exists`
_ACTIVE = "active"

_runs = sa.table(
    "runs",
    *map(sa.column, ("run_uuid", "experiment_id", "status", "start_time", "end_time", "name")),
    sa.column("lifecycle_stage"),
)
_experiments = sa.table(
    "experiments",
    *map(sa.column, ("experiment_id", "name", "lifecycle_stage", "workspace", "creation_time")),
)
_values = {
    name: sa.table(name, *map(sa.column, ("run_uuid", "key", "value", "is_nan")))
    for name in ("latest_metrics", "params", "tags")
}


def check_exists(uri: str) -> None:
    """Raise `WrongUse` for a SQLite file that is not there."""
    path = sqlite_path(uri)
    if path is not None and not Path(path).exists():
        raise WrongUse(
            f"tracking: there is no store {path}; name where runs were logged with --tracking-uri "
            "or MLFLOW_TRACKING_URI",
            reason=NO_STORE,
        )


def readable(uri: str) -> bool:
    """Whether tables of this store may be read: with workspaces each has its own runs."""
    return uri.startswith(SCHEMES) and not os.environ.get("MLFLOW_ENABLE_WORKSPACES")


def tables(uri: str) -> Tables | None:
    """A reader of the tables at `uri`, or None where they are out of reach or of another schema.

    None as well where an experiment is in a workspace: MLflow refuses to read these without.
    """
    if not readable(uri):
        return None
    engine = _engine(uri)
    known = _schemas(engine)
    if not known or not known <= KNOWN_SCHEMAS:
        return None
    c = _experiments.c
    with engine.connect() as connection:
        found = connection.execute(
            sa.select(c.experiment_id, c.name, c.lifecycle_stage, c.workspace).order_by(
                c.creation_time.desc(), c.experiment_id
            )
        ).all()
    if any(workspace not in (None, "default") for *_, workspace in found):
        return None
    return Tables(engine, uri, {str(i): name for i, name, stage, _ in found if stage == _ACTIVE})


def _engine(uri: str) -> sa.Engine:
    """An engine that makes no SQLite file; what fails for want of one fails as `check_exists`."""
    engine = sa.create_engine(existing(uri), poolclass=NullPool)
    sa.event.listen(engine, "handle_error", lambda _: check_exists(uri))
    return engine


def _schemas(engine: sa.Engine) -> set[str] | None:
    try:
        with engine.connect() as connection:
            version = connection.execute(sa.text("SELECT version_num FROM alembic_version"))
            return set(version.scalars())
    except SQLAlchemyError:
        return None


def version(uri: str) -> str:
    """What `pepr doctor` says of the schema of a database."""
    known = _schemas(_engine(uri))
    if known is None:
        return "no MLflow database"
    how = "its tables" if readable(uri) and known <= KNOWN_SCHEMAS else "MLflow, more slowly"
    return f"schema {', '.join(sorted(known))}, read through {how}"


def _fetched(connection: sa.Connection, query: sa.Select[Any]) -> Sequence[Any]:
    """All rows as the driver has them: SQLAlchemy's own rows take three times as long."""
    return connection.execute(query).cursor.fetchall()


@dataclass(frozen=True)
class Tables:
    """A database of MLflow; `experiments` are the names by id of those that may be read."""

    engine: sa.Engine
    uri: str
    experiments: dict[str, str]

    def runs(
        self, experiment_ids: Sequence[str], tag: tuple[str, str] | None = None
    ) -> Iterator[Page]:
        """The active runs of the experiments, of those with the tag only, newest first."""
        wanted = self._active(experiment_ids)
        if tag is not None:
            tags = _values["tags"]
            wanted = wanted.where(
                _runs.c.run_uuid.in_(
                    sa.select(tags.c.run_uuid).where(tags.c.key == tag[0], tags.c.value == tag[1])
                )
            )
        with self.engine.connect() as connection:
            found = connection.execute(
                wanted.order_by(_runs.c.start_time.desc(), _runs.c.run_uuid)
            ).all()
            for start in range(0, len(found), _PAGE):
                rows = found[start : start + _PAGE]
                yield self._page(connection, [tuple(r) for r in rows])

    def some(self, run_ids: Sequence[str]) -> Iterator[Page]:
        """These runs, where they are active."""
        with self.engine.connect() as connection:
            for start in range(0, len(run_ids), _PAGE):
                ids = run_ids[start : start + _PAGE]
                query = self._active(list(self.experiments)).where(_runs.c.run_uuid.in_(ids))
                found = connection.execute(query).all()
                yield self._page(connection, [tuple(row) for row in found])

    def _active(self, experiment_ids: Sequence[str]) -> sa.Select[tuple[object, ...]]:
        c = _runs.c
        return sa.select(c.run_uuid, c.experiment_id, c.status, c.start_time, c.end_time).where(
            c.experiment_id.in_([int(i) for i in experiment_ids]), c.lifecycle_stage == _ACTIVE
        )

    def _page(self, connection: sa.Connection, found: list[tuple[object, ...]]) -> Page:
        info = [(r[0], str(r[1]), r[2], r[3], r[4] or None) for r in found]
        ids = [r[0] for r in info]
        page = Page(info)  # type: ignore[arg-type]
        for name, into in (("params", page.params), ("tags", page.tags)):
            t = _values[name]
            query = sa.select(t.c.run_uuid, t.c.key, t.c.value).where(t.c.run_uuid.in_(ids))
            into += _fetched(connection, query)
        t = _values["latest_metrics"]
        value = sa.case((t.c.is_nan, sa.null()), else_=t.c.value)
        query = sa.select(t.c.run_uuid, t.c.key, value).where(t.c.run_uuid.in_(ids))
        page.metrics += _fetched(connection, query)
        return page

    def stamp(self) -> str:
        """Changes when a run begins, ends, is deleted or restored."""
        c = _runs.c
        query = (
            sa.select(c.status, sa.func.count(), sa.func.max(c.start_time), sa.func.max(c.end_time))
            .where(c.lifecycle_stage == _ACTIVE)
            .group_by(c.status)
            .order_by(c.status)
        )
        with self.engine.connect() as connection:
            return str(connection.execute(query).all())

    def tagged(self, key: str, some: int) -> set[str]:
        """The values of a tag over all runs; `some` bounds slower readers only."""
        t = _values["tags"]
        with self.engine.connect() as connection:
            query = (
                sa.select(t.c.value)
                .join(_runs, _runs.c.run_uuid == t.c.run_uuid)
                .where(t.c.key == key, _runs.c.lifecycle_stage == _ACTIVE)
                .distinct()
            )
            return set(connection.execute(query).scalars())

    def epochs(
        self, run_ids: Sequence[str], metrics: Sequence[str] | None
    ) -> Iterator[list[Point]]:
        """Histories of some runs after others: points in the order they were logged in."""
        names = ("run_uuid", "key", "value", "step", "timestamp", "is_nan")
        columns: list[sa.ColumnClause[Any]] = [sa.column(name) for name in names]
        run, key, value, step, timestamp, is_nan = columns
        number = sa.case((is_nan, sa.null()), else_=value)
        by_run = self.engine.dialect.name == "sqlite" and metrics is not None
        wanted = sa.select(run, key, number, step).select_from(
            _BY_RUN if by_run else sa.table("metrics")
        )
        if metrics is not None:
            wanted = wanted.where(key.in_(metrics))
        with self.engine.connect() as connection:
            for start in range(0, len(run_ids), _PAGE):
                query = wanted.where(run.in_(run_ids[start : start + _PAGE]))
                yield list(_fetched(connection, query.order_by(timestamp, value)))

    def energies(
        self, metric: str, low: float, high: float, without: Collection[str]
    ) -> pd.DataFrame:
        """`frame.Evidence.energies` between two values, over all active runs but those in the
        experiments `without`."""
        left_out = [int(i) for i, name in self.experiments.items() if name in without]
        t, params, tags = _values["latest_metrics"], _values["params"], _values["tags"]
        query = (
            sa.select(
                _runs.c.run_uuid, params.c.value, tags.c.value, _runs.c.experiment_id, t.c.value
            )
            .join(t, t.c.run_uuid == _runs.c.run_uuid)
            .outerjoin(params, (params.c.run_uuid == _runs.c.run_uuid) & (params.c.key == "model"))
            .outerjoin(
                tags, (tags.c.run_uuid == _runs.c.run_uuid) & (tags.c.key == "pepr.experiment")
            )
            .where(
                t.c.key == metric,
                t.c.value.between(low, high),
                _runs.c.lifecycle_stage == _ACTIVE,
                _runs.c.experiment_id.not_in(left_out),
            )
        )
        with self.engine.connect() as connection:
            rows = _fetched(connection, query)
        return pd.DataFrame(
            [
                (run, model, tag or self.experiments.get(str(where), ""), value)
                for run, model, tag, where, value in rows
            ],
            columns=["run_id", "model", "experiment", "energy_wh"],
        )
