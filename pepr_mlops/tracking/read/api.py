"""Reads MLflow through its API: a server over HTTP, or any store MLflow knows.

Over HTTP the JSON of the answers is read, since MLflow's own client spends a third of the time on
turning it into objects, and the next page is requested while one is processed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from pepr_mlops.text import matches
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
    raw_frame,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

_PAGE = 1000  # runs
_BULK = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"
_BULK_RUNS = 100  # the most runs the bulk route of histories takes
_BULK_POINTS = 25_000  # the most points it answers with


@dataclass(frozen=True)
class Server:
    """A tracking server; `experiments` are the readable ones, as names by id."""

    client: MlflowClient
    uri: str
    experiments: dict[str, str]

    @property
    def _http(self) -> bool:
        return self.uri.startswith(("http://", "https://"))

    def runs(self, experiment_ids: Sequence[str], tagged: str | None = None) -> Iterator[Page]:
        """The active runs of these experiments, newest first: all, or those with the tag."""
        if tagged is None:
            return self._search(experiment_ids, "")
        pages = self._search(experiment_ids, f"tags.`{EXPERIMENT}` {matches(tagged)}")
        return (_only(page, EXPERIMENT, tagged) for page in pages)

    def some(self, run_ids: Sequence[str]) -> Iterator[Page]:
        """These runs, where they are active."""
        for ids in _filters(run_ids):
            yield from self._search(list(self.experiments), ids)

    def tags(self, experiment_id: str) -> dict[str, str]:
        """The tags of an experiment."""
        return dict(self.client.get_experiment(experiment_id).tags)

    def newest(self, experiment_ids: Sequence[str], metric: str, most: int) -> Page:
        """The newest finished runs of these experiments that have a seed and this P."""
        if not experiment_ids:
            return Page([])
        within = (
            "attributes.status = 'FINISHED' AND params.seed LIKE '%' AND "
            f"tags.`{PERFORMANCE_TAG}` {matches(metric)}"
        )
        answer, _ = self._fetch(list(experiment_ids), within, None, most)
        return _only(self._page(answer), PERFORMANCE_TAG, metric)

    def running(self, metric: str, most: int) -> tuple[Page, list[Latest]]:
        """The newest active runs that are under way, and the latest point of `metric` of each that
        has one."""
        if not self.experiments:
            return Page([]), []
        within = "attributes.status = 'RUNNING'"
        answer, _ = self._fetch(list(self.experiments), within, None, most)
        page = self._page(answer)
        if self._http:
            return page, [
                (run["info"]["run_id"], int(point.get("step", 0)), int(point["timestamp"]))
                for run in answer
                for point in run.get("data", {}).get("metrics", ())
                if point["key"] == metric
            ]
        histories = [
            (run_id, self.client.get_metric_history(run_id, metric))
            for run_id, name, _ in page.metrics
            if name == metric
        ]
        return page, [
            (run_id, *max((point.step, point.timestamp) for point in history))
            for run_id, history in histories
        ]

    def artifacts(self, run_ids: Sequence[str]) -> pd.DataFrame:
        """Where the artifacts of these runs are, where they are active: `run_id`, `place`."""
        found = [
            (run.info.run_id, run.info.artifact_uri)
            for ids in _filters(run_ids)
            for run in self.client.search_runs(list(self.experiments), ids)
        ]
        return pd.DataFrame(found, columns=["run_id", "place"], dtype="str")

    def inputs(self, run_ids: Sequence[str]) -> list[InputRow]:
        """The data sets that these runs logged as inputs."""
        found = []
        for run_id in run_ids:
            inputs = self.client.get_run(run_id).inputs
            found += [
                (run_id, tag.value, of.dataset.digest, of.dataset.source, of.dataset.profile)
                for of in (inputs.dataset_inputs if inputs else ())
                for tag in of.tags or ()
                if tag.key == CONTEXT
            ]
        return found

    def stamp(self) -> str:
        """Changes when a run begins or ends."""
        newest = []
        for order in ("start_time", "end_time"):
            last = [f"attributes.{order} DESC"]
            found = self.client.search_runs(list(self.experiments), order_by=last, max_results=1)
            newest += [(run.info.run_id, run.info.status, run.info.end_time) for run in found]
        return str(newest)

    def sizes(self) -> tuple[list[Size], bool]:
        """How many of the newest runs each experiment and tag has, and whether these are all."""
        if not self.experiments:
            return [], True
        answer, more = self._fetch(list(self.experiments), "", None)
        page = self._page(answer)
        tags = {run_id: text for run_id, name, text in page.tags if name == EXPERIMENT}
        begun = defaultdict[tuple[str, str | None], list[int]](list)
        for run_id, experiment_id, _, start_ms, _ in page.info:
            begun[experiment_id, tags.get(run_id)].append(start_ms or 0)
        found: list[Size] = [
            (i, tag, len(starts), max(starts)) for (i, tag), starts in begun.items()
        ]
        return found, more is None

    def names(self) -> set[str]:
        """The names of MLflow's experiments, and the tags of the newest runs that have one."""
        pages = self._search(list(self.experiments), f"tags.`{EXPERIMENT}` LIKE '%'")
        tags = {value for _, name, value in next(pages, Page([])).tags if name == EXPERIMENT}
        return tags.union(self.experiments.values())

    def epochs(
        self, run_ids: Sequence[str], metrics: Sequence[str] | None
    ) -> Iterator[list[Point]]:
        """The histories of runs, in batches: points in the order in which they were logged."""
        for start in range(0, len(run_ids), _BULK_RUNS):
            ids = run_ids[start : start + _BULK_RUNS]
            names = metrics
            if names is None:
                names = sorted({name for page in self.some(ids) for _, name, _ in page.metrics})
            yield [point for name in names for point in self._histories(ids, name)]

    def energies(self, low: float, high: float, without: Collection[str]) -> pd.DataFrame:
        """`Evidence.energies` from `low` to `high`, of active runs of other experiments."""
        ids = [i for i, name in self.experiments.items() if name not in without]
        within = f"metrics.`{ENERGY}` >= {low!r} AND metrics.`{ENERGY}` <= {high!r}"
        found = raw_frame(self._search(ids, within), self.experiments)
        columns = {
            "run_id": "run_id",
            "params.model": "model",
            f"tags.{EXPERIMENT}": "experiment",
            f"metrics.{ENERGY}": "energy_wh",
        }
        energies = found.reindex(columns=list(columns)).rename(columns=columns)
        energies["experiment"] = energies["experiment"].fillna(found["mlflow_experiment"])
        return energies

    def _search(self, experiment_ids: Sequence[str], within: str) -> Iterator[Page]:
        if not experiment_ids:
            return
        fetch = partial(self._fetch, list(experiment_ids), within)
        with ThreadPoolExecutor(1) as prefetch:
            coming = prefetch.submit(fetch, None)
            while True:
                answer, token = coming.result()
                if token:
                    coming = prefetch.submit(fetch, token)
                yield self._page(answer)
                if not token:
                    return

    def _page(self, answer: Any) -> Page:
        return _from_json(answer) if self._http else _from_entities(answer)

    def _fetch(
        self, ids: list[str], within: str, token: str | None, most: int | None = None
    ) -> tuple[Any, str | None]:
        """The runs of one page as the server sends them, and the token of the next page."""
        size = most or _PAGE
        if not self._http:
            found = self.client.search_runs(ids, within, max_results=size, page_token=token)
            return found, found.token
        body = {"experiment_ids": ids, "filter": within, "max_results": size}
        if token is not None:
            body["page_token"] = token
        answer = self._request("POST", "/api/2.0/mlflow/runs/search", json=body)
        return answer.get("runs", []), answer.get("next_page_token")

    def _request(self, method: str, endpoint: str, **content: Any) -> Any:
        from mlflow.utils.credentials import get_default_host_creds
        from mlflow.utils.rest_utils import http_request_safe

        creds = get_default_host_creds(self.uri)
        return http_request_safe(creds, endpoint, method, **content).json()

    def _histories(self, run_ids: Sequence[str], metric: str) -> list[Point]:
        """Points of one metric, by the UI's bulk route where the server has it, else run by run."""
        from mlflow.exceptions import MlflowException

        if self._http:
            parameters = [("run_id", i) for i in run_ids] + [("metric_key", metric)]
            try:
                answer = self._request("GET", _BULK, params=parameters)["metrics"]
            except MlflowException as error:
                if error.get_http_status_code() != 404:
                    raise
            else:
                if len(answer) < _BULK_POINTS:
                    answer.sort(key=lambda p: (p["timestamp"], float(p["value"])))
                    return [(p["run_id"], metric, float(p["value"]), p["step"]) for p in answer]
                if len(run_ids) > 1:  # cut off: request fewer at a time
                    half = len(run_ids) // 2
                    parts = (run_ids[:half], run_ids[half:])
                    return [point for part in parts for point in self._histories(part, metric)]
        points: list[Point] = []
        for i in run_ids:
            history = self.client.get_metric_history(i, metric)
            history.sort(key=lambda p: (p.timestamp, p.value))
            points += [(i, metric, p.value, p.step) for p in history]
        return points


def _filters(run_ids: Sequence[str]) -> Iterator[str]:
    """MLflow's filters for these runs, some at a time."""
    for start in range(0, len(run_ids), _BULK_RUNS):
        ids = ", ".join(map(repr, run_ids[start : start + _BULK_RUNS]))
        yield f"attributes.run_id IN ({ids})"


def _only(page: Page, tag: str, text: str) -> Page:
    """The runs of the page with exactly this value of the tag: some databases ignore case."""
    ids = {run for run, key, value in page.tags if (key, value) == (tag, text)}
    return Page(
        [i for i in page.info if i[0] in ids],
        *([t for t in kind if t[0] in ids] for kind in (page.metrics, page.params, page.tags)),
    )


def _from_json(runs: list[dict[str, Any]]) -> Page:
    page = Page([])
    for run in runs:
        info, data = run["info"], run.get("data", {})
        run_id = info["run_id"]
        start, end = (int(info.get(name) or 0) or None for name in ("start_time", "end_time"))
        page.info.append((run_id, info["experiment_id"], info["status"], start, end))
        # float() also reads "NaN" and "Infinity", which JSON has as texts
        page.metrics += [(run_id, m["key"], float(m["value"])) for m in data.get("metrics", ())]
        page.params += [(run_id, p["key"], p["value"]) for p in data.get("params", ())]
        page.tags += [(run_id, t["key"], t["value"]) for t in data.get("tags", ())]
    return page


def _from_entities(runs: Any) -> Page:
    page = Page([])
    for run in runs:
        i, data = run.info, run.data
        page.info.append((i.run_id, i.experiment_id, i.status, i.start_time, i.end_time or None))
        page.metrics += [(i.run_id, key, value) for key, value in data.metrics.items()]
        page.params += [(i.run_id, key, value) for key, value in data.params.items()]
        page.tags += [(i.run_id, key, value) for key, value in data.tags.items()]
    return page
