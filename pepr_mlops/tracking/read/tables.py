"""Reads MLflow's own tables, where the tracking URI is a database.

This is ten times as fast as MLflow's API. The tables are no public interface, so only schemas that
this module was tested with are read; a test checks that both ways give the same frames.
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
from pepr_mlops.tracking.read.frames import (
    CONTEXT,
    ENERGY,
    EXPERIMENT,
    PERFORMANCE_TAG,
    InputRow,
    Latest,
    Page,
    Point,
    Size,
)
from pepr_mlops.tracking.server import existing, sqlite_path

# Alembic revisions: MLflow 3.17 and 3.18, whose tables that are read here are the same.
KNOWN_SCHEMAS = {"dc11669786a5", "f4a9b2c7d1e6"}
SCHEMES = ("sqlite", "postgresql", "mysql", "mssql")
_PAGE = 2000  # runs; each page is a query per table

# Without the hint SQLite reads all runs' points of a metric for each page of runs.
_BY_RUN = sa.text("metrics INDEXED BY index_metrics_run_uuid_key_step")

NO_STORE = "no_store"  # the reason of `check_exists`
_ACTIVE = "active"


def _table(name: str, columns: str) -> sa.TableClause:
    return sa.table(name, *map(sa.column, columns.split()))


_runs = _table(
    "runs", "run_uuid experiment_id status start_time end_time lifecycle_stage artifact_uri"
)
_experiments = _table("experiments", "experiment_id name lifecycle_stage workspace creation_time")
_metrics = _table("latest_metrics", "run_uuid key value is_nan step timestamp")
_params, _tags = (_table(name, "run_uuid key value") for name in ("params", "tags"))
_experiment_tags = _table("experiment_tags", "experiment_id key value")
_inputs = _table("inputs", "input_uuid source_type source_id destination_type destination_id")
_datasets = _table("datasets", "dataset_uuid digest dataset_source dataset_profile")
_input_tags = _table("input_tags", "input_uuid name value")


def check_exists(uri: str) -> None:
    """Raise `WrongUse` for a missing SQLite file."""
    path = sqlite_path(uri)
    if path is not None and not Path(path).exists():
        raise WrongUse(
            f"tracking: there is no store {path}; name where runs were logged with --tracking-uri "
            "or MLFLOW_TRACKING_URI",
            reason=NO_STORE,
        )


def readable(uri: str) -> bool:
    """Whether the store has tables that may be read: with workspaces each has its own runs."""
    return uri.startswith(SCHEMES) and not os.environ.get("MLFLOW_ENABLE_WORKSPACES")


def open_tables(uri: str) -> Tables | None:
    """A reader of the tables at `uri`, or None where they cannot be read or have another schema.

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
    """An engine that makes no SQLite file; where it is missing it fails as `check_exists`."""
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
    """The schema of a database and how it is read, for `pepr doctor`."""
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
    """A database of MLflow; `experiments` are the readable ones, as names by id."""

    engine: sa.Engine
    uri: str
    experiments: dict[str, str]

    def runs(self, experiment_ids: Sequence[str], tagged: str | None = None) -> Iterator[Page]:
        """The active runs of these experiments, newest first: all, or those with the tag."""
        query = self._active(experiment_ids)
        if tagged is not None:
            t = _tags.c
            ids = sa.select(t.run_uuid).where(t.key == EXPERIMENT, t.value == tagged)
            query = query.where(_runs.c.run_uuid.in_(ids))
        query = query.order_by(_runs.c.start_time.desc(), _runs.c.run_uuid)
        with self.engine.connect() as connection:
            found = connection.execute(query).all()
            for start in range(0, len(found), _PAGE):
                yield self._page(connection, found[start : start + _PAGE])

    def some(self, run_ids: Sequence[str]) -> Iterator[Page]:
        """These runs, where they are active."""
        with self.engine.connect() as connection:
            for start in range(0, len(run_ids), _PAGE):
                ids = run_ids[start : start + _PAGE]
                query = self._active(list(self.experiments)).where(_runs.c.run_uuid.in_(ids))
                yield self._page(connection, connection.execute(query).all())

    def tags(self, experiment_id: str) -> dict[str, str]:
        """The tags of an experiment."""
        c = _experiment_tags.c
        query = sa.select(c.key, c.value).where(c.experiment_id == int(experiment_id))
        with self.engine.connect() as connection:
            return {str(key): str(value) for key, value in _fetched(connection, query)}

    def newest(self, experiment_ids: Sequence[str], metric: str, most: int) -> Page:
        """The newest finished runs of these experiments that have a seed and this P."""
        c, p, t = _runs.c, _params.c, _tags.c
        seeded = sa.exists().where(p.run_uuid == c.run_uuid, p.key == "seed")
        measured = sa.exists().where(
            t.run_uuid == c.run_uuid, t.key == PERFORMANCE_TAG, t.value == metric
        )
        query = self._active(experiment_ids).where(c.status == "FINISHED", seeded, measured)
        query = query.order_by(c.start_time.desc(), c.run_uuid).limit(most)
        with self.engine.connect() as connection:
            return self._page(connection, connection.execute(query).all())

    def running(self, metric: str, most: int) -> tuple[Page, list[Latest]]:
        """The newest active runs that are under way, and the latest point of `metric` of each that
        has one."""
        c, m = _runs.c, _metrics.c
        query = self._active(list(self.experiments)).where(c.status == "RUNNING")
        query = query.order_by(c.start_time.desc(), c.run_uuid).limit(most)
        with self.engine.connect() as connection:
            page = self._page(connection, connection.execute(query).all())
            points = sa.select(m.run_uuid, m.step, m.timestamp).where(
                m.key == metric, m.run_uuid.in_([run_id for run_id, *_ in page.info])
            )
            return page, [tuple(row) for row in _fetched(connection, points)]

    def artifacts(self, run_ids: Sequence[str]) -> pd.DataFrame:
        """Where the artifacts of these runs are, where they are active: `run_id`, `place`."""
        c, found = _runs.c, list[Any]()
        query = sa.select(c.run_uuid, c.artifact_uri).where(c.lifecycle_stage == _ACTIVE)
        with self.engine.connect() as connection:
            for start in range(0, len(run_ids), _PAGE):
                of_page = c.run_uuid.in_(run_ids[start : start + _PAGE])
                found += _fetched(connection, query.where(of_page))
        return pd.DataFrame(found, columns=["run_id", "place"], dtype="str")

    def inputs(self, run_ids: Sequence[str]) -> list[InputRow]:
        """The data sets that these runs logged as inputs."""
        i, d, t, found = _inputs.c, _datasets.c, _input_tags.c, list[Any]()
        query = (
            sa.select(i.destination_id, t.value, d.digest, d.dataset_source, d.dataset_profile)
            .select_from(
                _inputs.join(_datasets, d.dataset_uuid == i.source_id).join(
                    _input_tags, t.input_uuid == i.input_uuid
                )
            )
            .where(
                *(i.source_type == "DATASET", i.destination_type == "RUN", t.name == CONTEXT),
            )
        )
        with self.engine.connect() as connection:
            for start in range(0, len(run_ids), _PAGE):
                of_page = i.destination_id.in_(run_ids[start : start + _PAGE])
                found += _fetched(connection, query.where(of_page))
        return [tuple(row) for row in found]

    def _active(self, experiment_ids: Sequence[str]) -> sa.Select[tuple[object, ...]]:
        c = _runs.c
        return sa.select(c.run_uuid, c.experiment_id, c.status, c.start_time, c.end_time).where(
            c.experiment_id.in_([int(i) for i in experiment_ids]), c.lifecycle_stage == _ACTIVE
        )

    def _page(self, connection: sa.Connection, found: Sequence[Any]) -> Page:
        page = Page([(r[0], str(r[1]), r[2], r[3], r[4] or None) for r in found])
        ids = [row[0] for row in found]

        def values(table: sa.TableClause, value: Any) -> Sequence[Any]:
            c = table.c
            query = sa.select(c.run_uuid, c.key, value).where(c.run_uuid.in_(ids))
            return _fetched(connection, query)

        page.params += values(_params, _params.c.value)
        page.tags += values(_tags, _tags.c.value)
        page.metrics += values(
            _metrics, sa.case((_metrics.c.is_nan, sa.null()), else_=_metrics.c.value)
        )
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

    def sizes(self) -> tuple[list[Size], bool]:
        """How many active runs each experiment and tag has, and that these are all."""
        c, t = _runs.c, _tags.c
        tagged = (t.run_uuid == c.run_uuid) & (t.key == EXPERIMENT)
        query = (
            sa.select(c.experiment_id, t.value, sa.func.count(), sa.func.max(c.start_time))
            .select_from(_runs.outerjoin(_tags, tagged))
            .where(c.lifecycle_stage == _ACTIVE)
            .group_by(c.experiment_id, t.value)
        )
        with self.engine.connect() as connection:
            rows = _fetched(connection, query)
        return [(str(i), tag, runs, newest) for i, tag, runs, newest in rows], True

    def names(self) -> set[str]:
        """The names of MLflow's experiments, and the tags of all active runs."""
        query = (
            sa.select(_tags.c.value)
            .join(_runs, _runs.c.run_uuid == _tags.c.run_uuid)
            .where(_tags.c.key == EXPERIMENT, _runs.c.lifecycle_stage == _ACTIVE)
            .distinct()
        )
        with self.engine.connect() as connection:
            return {*self.experiments.values(), *connection.execute(query).scalars()}

    def epochs(
        self, run_ids: Sequence[str], metrics: Sequence[str] | None
    ) -> Iterator[list[Point]]:
        """The histories of runs, in batches: points in the order in which they were logged."""
        names = ("run_uuid", "key", "value", "step", "timestamp", "is_nan")
        columns: list[sa.ColumnClause[Any]] = [sa.column(name) for name in names]
        run, key, value, step, timestamp, is_nan = columns
        by_run = self.engine.dialect.name == "sqlite" and metrics is not None
        query = (
            sa.select(run, key, sa.case((is_nan, sa.null()), else_=value), step)
            .select_from(_BY_RUN if by_run else sa.table("metrics"))
            .order_by(timestamp, value)
        )
        if metrics is not None:
            query = query.where(key.in_(metrics))
        with self.engine.connect() as connection:
            for start in range(0, len(run_ids), _PAGE):
                of_runs = query.where(run.in_(run_ids[start : start + _PAGE]))
                yield list(_fetched(connection, of_runs))

    def energies(self, low: float, high: float, without: Collection[str]) -> pd.DataFrame:
        """`Evidence.energies` from `low` to `high`, of active runs of other experiments."""
        left_out = [int(i) for i, name in self.experiments.items() if name in without]
        run, m, p, t = _runs.c, _metrics.c, _params.c, _tags.c
        of_run = (p.run_uuid == run.run_uuid) & (p.key == "model")
        named = (t.run_uuid == run.run_uuid) & (t.key == EXPERIMENT)
        query = (
            sa.select(run.run_uuid, p.value, t.value, run.experiment_id, m.value)
            .join(_metrics, m.run_uuid == run.run_uuid)
            .outerjoin(_params, of_run)
            .outerjoin(_tags, named)
            .where(
                m.key == ENERGY,
                m.value.between(low, high),
                run.lifecycle_stage == _ACTIVE,
                run.experiment_id.not_in(left_out),
            )
        )
        with self.engine.connect() as connection:
            rows = _fetched(connection, query)
        return pd.DataFrame(
            [
                (run_id, model, tag or self.experiments.get(str(experiment), ""), value)
                for run_id, model, tag, experiment, value in rows
            ],
            columns=["run_id", "model", "experiment", "energy_wh"],
        )
