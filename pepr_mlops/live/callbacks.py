"""The functions that answer the controls of the live page.

A changed control is answered in two steps: first what is fast, the ranking without intervals and
the main figure; then the intervals and the other figures, one request after another, so that the
next change need not wait. The later requests stop as soon as the view changes.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import plotly.graph_objects as go
from dash import ClientsideFunction, Input, Output, State, html, no_update
from dash.exceptions import PreventUpdate

from pepr_mlops.comparison.intervals import NOT_DRAWN
from pepr_mlops.errors import PeprError, one_line, trace
from pepr_mlops.live import content, layout, view_state
from pepr_mlops.live.cache import Cache
from pepr_mlops.report import cautions, page, templates, theme
from pepr_mlops.report.dashboards import Dashboard
from pepr_mlops.report.figures.common import Panel
from pepr_mlops.report.material import Material, NothingToDraw
from pepr_mlops.text import address

_log = logging.getLogger(__name__)

_SIMPLE = ("experiments", "alpha", "normalisation", "mixed", "strict", "least", "colour", "axis",
           "set", "rows", "images", "years")  # fmt: skip


class Callbacks:
    """The callbacks of one application, and their state. `name` is the dashboard's."""

    def __init__(
        self,
        dashboard: Dashboard,
        name: str,
        experiments: tuple[str, ...],
        tracking_uri: str | None,
    ) -> None:
        self._dashboard, self._name = dashboard, name
        self._uri = address(tracking_uri) if tracking_uri else None
        self._offered = view_state.offered(dashboard.resources or ())
        main = dashboard.resources or view_state.View().resources
        resources = main[:1]  # the main one, as in `pepr report`
        self._default = view_state.View(
            experiments=experiments,
            resources=resources,
            weights=(view_state.WEIGHT,) * len(resources),
            normalisation=dashboard.normalisation or "minmax",
        )
        self._cache = Cache(tracking_uri, dashboard.experiments)

    def connect(self, app: Any) -> None:
        """Give `app`, a `Dash`, whose callbacks are not typed, its layout and its callbacks."""
        app.layout = lambda: layout.page(self._dashboard, self._default, self._offered)
        indices = range(len(self._offered))
        controls: dict[str, Any] = {name: Input(name, "value") for name in _SIMPLE}
        for kind in ("use", "weight", "limit"):
            controls[kind] = [Input(f"{kind}-{i}", "value") for i in indices]
        restored = {
            name: [Output(c.component_id, "value") for c in control]
            if isinstance(control, list)
            else Output(control.component_id, "value")
            for name, control in controls.items()
        }
        app.clientside_callback(
            ClientsideFunction("live", "dark"), Output("dark", "data"), Input("url", "pathname")
        )
        app.clientside_callback(ClientsideFunction("live", "address"), Input("address", "data"))
        app.clientside_callback(
            ClientsideFunction("live", "open"),
            Input("graph-main", "clickData"),
            State("graph-main", "figure"),
            State("run-page", "data"),
        )
        app.callback(
            output={"controls": restored, "messages": Output("messages", "children"),
                    "options": Output("experiments", "options", allow_duplicate=True)},
            inputs={"search": Input("url", "search")},
            prevent_initial_call="initial_duplicate",
        )(self._restore)  # fmt: skip
        app.callback(
            output={"options": Output("experiments", "options"),
                    "trouble": Output("trouble", "children"),
                    "version": Output("version", "data")},
            inputs={"count": Input("tick", "n_intervals")},
            state={"experiments": State("experiments", "value"), "known": State("known", "data"),
                   "options": State("experiments", "options"),
                   "trouble": State("trouble", "children")},
        )(self._tick)  # fmt: skip
        app.callback(
            output=self._answer(),
            inputs={"controls": controls, "dark": Input("dark", "data"),
                    "_": Input("version", "data")},
            state={"before": State("seen", "data"), "digest": State("digest-main", "data")},
            running=[(Output("page", "className"), "busy", "")],
            prevent_initial_call=True,
        )(self._show)  # fmt: skip
        self._line(app)
        app.callback(
            output={"file": Output("file", "data"),
                    "problem": Output("problem", "children", allow_duplicate=True)},
            inputs={"_": Input("export", "n_clicks")},
            state={"seen": State("seen", "data")},
            running=[(Output("export", "disabled"), True, False)],
            prevent_initial_call=True,
        )(self._export)  # fmt: skip

    def _answer(self) -> dict[str, Any]:
        """The outputs of the first answer to a changed control."""
        return {
            "trouble": Output("trouble", "children", allow_duplicate=True),
            **{name: Output(name, "children")
               for name in ("problem", "headline", "warnings", "ranking", "more", "notes",
                            "command")},
            **_slot("main"),
            **{name: Output(name, "data") for name in ("address", "seen", "known", "run-page")},
            "sets": Output("set", "options"),
            "several": Output("sets", "hidden"),
            "export": Output("export", "disabled"),
            "shares": [Output(f"share-{i}", "children") for i in range(len(self._offered))],
            "resources": [Output(f"use-{i}", "className") for i in range(len(self._offered))],
        }  # fmt: skip

    def _line(self, app: Any) -> None:
        """The later requests: each starts when the one before has ended."""
        app.callback(
            output={"late": Output("late", "data"), "done": Output("done", "data")},
            inputs={"turn": Input("seen", "data")},
            state={"address": State("address", "data")},
            prevent_initial_call=True,
        )(self._thorough)
        again = ("headline", "ranking", "notes", "problem")
        app.clientside_callback(
            ClientsideFunction("live", "late"),
            [Output(name, "children", allow_duplicate=True) for name in again],
            Input("late", "data"),
            State("address", "data"),
            prevent_initial_call=True,
        )
        before = Input("done", "data")
        for i, _ in layout.others(self._dashboard):
            app.callback(
                output=_slot(i),
                inputs={"turn": before},
                state={"now": State("seen", "data"), "digest": State(f"digest-{i}", "data")},
                prevent_initial_call=True,
            )(self._figure(i))
            before = Input(f"digest-{i}", "data")

    # Answers ---------------------------------------------------------------------------------

    def _restore(self, search: str | None) -> dict[str, Any]:
        """The controls as in the address."""
        view, messages = view_state.parse(search or "", self._default, self._offered)
        weights = dict(zip(view.resources, view.weights, strict=True))
        limits = dict(view.at_most)
        return {
            "controls": {
                **{n: getattr(view, n)
                   for n in ("alpha", "normalisation", "mixed", "colour", "axis", "rows")},
                "experiments": list(view.experiments),
                "strict": ["strict"] if view.strict else [],
                "least": view.at_least,
                "set": view.chosen_set or None,
                "images": view.images_per_year,
                "years": view.years,
                "use": [["use"] if r in view.resources else [] for r in self._offered],
                "weight": [weights.get(r, view_state.WEIGHT) for r in self._offered],
                "limit": [limits.get(r) for r in self._offered],
            },
            "messages": [html.P(message) for message in messages],
            "options": self._options(view.experiments),
        }  # fmt: skip

    def _view(self, controls: dict[str, Any]) -> view_state.View:
        """The view of the controls, with defaults for empty fields."""
        default = self._default
        used = [i for i, value in enumerate(controls["use"]) if value]
        limits = [view_state.limit(v, 0, float("inf")) for v in controls["limit"]]
        rows = view_state.limit(controls["rows"], 1, view_state.MOST_ROWS)
        return view_state.View(
            experiments=tuple(controls["experiments"] or ()),
            resources=tuple(self._offered[i] for i in used) or default.resources,
            weights=tuple(
                view_state.limit(controls["weight"][i], 0, 1) or 0.0 for i in used
            ) or default.weights,
            alpha=view_state.limit(controls["alpha"], 1, view_state.MOST_ALPHA) or default.alpha,
            normalisation=controls["normalisation"],
            mixed=controls["mixed"],
            strict=bool(controls["strict"]),
            at_most=tuple(
                (name, limit)
                for name, limit in zip(self._offered, limits, strict=True)
                if limit is not None
            ),
            at_least=view_state.limit(controls["least"], 0, 1),
            colour=controls["colour"],
            axis=controls["axis"],
            chosen_set=controls["set"] or "",
            rows=int(rows) if rows else default.rows,
            images_per_year=view_state.limit(controls["images"], 0, float("inf")) or None,
            years=view_state.limit(controls["years"], 0, float("inf")) or default.years,
        )  # fmt: skip

    def _options(self, experiments: Sequence[str]) -> list[dict[str, str]]:
        """Experiments to choose from, among them the chosen ones even if the server lost them."""
        names = dict.fromkeys([*self._cache.names, *experiments])
        return [{"label": name, "value": name} for name in names]

    def _tick(
        self,
        count: int,
        experiments: list[str] | None,
        known: dict[str, Any] | None,
        options: list[Any] | None,
        trouble: str | None,
    ) -> dict[str, Any]:
        """Report that the server has news, at each tick until the page shows them."""
        chosen = tuple(experiments or ())
        self._cache.check(chosen)
        now = self._cache.trouble(chosen)
        version, choice = self._cache.version(chosen), self._options(chosen)
        news = version != "" and known is not None and known != _known(chosen, version)
        return {
            "options": choice if choice != options else no_update,
            "trouble": now if now != (trouble or "") else no_update,
            "version": {"version": version, "count": count} if news else no_update,
        }

    def _show(
        self,
        controls: dict[str, Any],
        dark: bool | None,
        _: dict[str, Any] | None,
        before: dict[str, Any] | None,
        digest: str | None,
    ) -> dict[str, Any]:
        """The first answer: headline, ranking and main figure of a view."""
        # None before the browser has reported its colours. Dash does not always call again when it
        # has, and the page would stay empty.
        dark = bool(dark)
        view = self._view(controls)
        address = view_state.written(view, self._default)
        answer = self._empty(view, address)
        if not view.experiments:
            return {**answer, "headline": "Choose one or several experiments."}
        try:
            source = self._cache.source(view.experiments)
        except PeprError as error:
            return {**answer, "trouble": str(error)}
        answer["known"] = _known(view.experiments, self._cache.version(view.experiments))
        frames = [source.runs[name] for name in source.main]
        there = content.known(frames, self._offered)
        answer["resources"] = [
            layout.resource_class(r in there, r in view.resources) for r in self._offered
        ]
        try:
            return {**answer, **self._first(view, address, dark, digest, before)}
        except PeprError as error:
            return {**answer, "problem": str(error)}
        except Exception as error:  # whatever is wrong with the runs, the controls must stay usable
            _log.error("a view could not be shown\n%s", trace())
            return {**answer, "problem": f"this view could not be shown ({one_line(error)})"}

    def _empty(self, view: view_state.View, address: str) -> dict[str, Any]:
        """The answer where there is nothing to show."""
        shares = dict(zip(view.resources, view_state.shares(view), strict=True))
        return {
            "trouble": self._cache.trouble(view.experiments),
            **dict.fromkeys(("problem", "headline", "more"), ""),
            **{name: [] for name in ("warnings", "ranking", "notes")},
            **_nothing(""),
            "command": view_state.command(view, self._name, self._uri),
            "address": address,
            "seen": None,
            "run-page": None,
            "sets": [],
            "several": True,
            "export": True,
            "shares": [f"{shares[r]:.2f}" if r in shares else "" for r in self._offered],
            "known": _known(view.experiments, ""),
            "resources": [layout.resource_class(True, r in view.resources) for r in self._offered],
        }

    def _first(
        self,
        view: view_state.View,
        address: str,
        dark: bool,
        digest: str | None,
        before: dict[str, Any] | None,
    ) -> dict[str, Any]:
        material, notes = self._cache.material(view, thorough=False)
        ranking = content.ranking(material, view)
        index = layout.main_figure(self._dashboard)
        drawn = {}
        if index is not None:
            spec = self._dashboard.figures[index]
            drawn = _drawn(lambda: content.plane(material, spec, view, ranking), dark, digest)
        # the other figures do not depend on budgets, colours and the axis of the main one
        plain = replace(
            view, at_most=(), at_least=None, colour="none", axis="R", rows=self._default.rows
        )
        seen = {
            "experiments": list(view.experiments),
            "version": self._cache.version(view.experiments),
            "search": view_state.written(plain, self._default),
            "dark": dark,
            "waits": address if (material.models["no_interval"] == NOT_DRAWN).any() else "",
        }
        same = before is not None and not seen["waits"] and before == {
            **seen, "waits": before["waits"]}  # fmt: skip
        sets = [{"label": name, "value": name} for name in material.main_sets]
        beyond = len(ranking.fitting) - view.rows
        return {
            **_ranked(material, ranking, view, notes),
            "warnings": [html.P(w) for w in cautions.warnings(material)],
            "more": f"{beyond} more models within the view." if beyond > 0 else "",
            **drawn,
            "seen": no_update if same else seen,
            "run-page": material.run_page,
            "sets": sets,
            "several": len(sets) < 2,
            "export": False,
        }

    def _thorough(self, turn: dict[str, Any] | None, address: str | None) -> dict[str, Any]:
        """The parts of the first answer that need intervals or companion experiments."""
        if turn is None:
            raise PreventUpdate
        view, _ = view_state.parse(address or "", self._default, self._offered)
        late = {"address": address}
        try:
            material, notes = self._cache.material(view)
            ranking = content.ranking(material, view)
        except PeprError as error:
            return {"late": {**late, "problem": str(error)}, "done": turn}
        return {"late": {**late, **_ranked(material, ranking, view, notes)}, "done": turn}

    def _figure(self, index: int) -> Callable[..., dict[str, Any]]:
        """The function that draws one of the later figures."""
        spec = self._dashboard.figures[index]

        def draw(turn: Any, now: dict[str, Any] | None, digest: Any) -> dict[str, Any]:
            # `_thorough` passes the turn on as it is, a figure together with its digest.
            if turn is None or now is None or turn.get("turn", turn) != now:
                raise PreventUpdate
            view, _ = view_state.parse(now["search"], self._default, self._offered)
            try:
                material, _ = self._cache.material(view)
                drawn = _drawn(
                    lambda: content.panel(material, spec, view), now["dark"], _mark(digest)
                )
            except Exception as error:  # one figure must not take the others with it
                _log.error("a figure could not be drawn\n%s", trace())
                drawn = _nothing(f"{spec.title or spec.kind}: not drawn ({one_line(error)})")
            mark = drawn["digest"] if drawn["digest"] is not no_update else _mark(digest)
            return {**drawn, "digest": {"mark": mark, "turn": now}}

        return draw

    def _export(self, _: int | None, seen: dict[str, Any] | None) -> dict[str, Any]:
        """The static report of the view."""
        if seen is None:
            raise PreventUpdate
        view, _messages = view_state.parse(seen["search"], self._default, self._offered)
        try:
            material, notes = self._cache.material(view)
            command = view_state.command(view, self._name, self._uri)
            made = templates.made_now()
            html_page = page.html(material, self._dashboard, notes, command=command, made=made)
        except Exception as error:
            why = str(error) if isinstance(error, PeprError) else one_line(error)
            _log.error("the report could not be made\n%s", trace())
            return {"file": no_update, "problem": f"the report could not be made ({why})"}
        return {
            "file": {"content": html_page, "filename": "pepr-report.html", "type": "text/html"},
            "problem": no_update,
        }


def _ranked(
    material: Material, ranking: content.Ranking, view: view_state.View, notes: Sequence[str]
) -> dict[str, Any]:
    """The parts of an answer that change when the intervals are found."""
    return {
        "headline": content.headline(ranking),
        "ranking": layout.table(content.table(ranking, material, view)),
        "notes": layout.notes(material, notes),
    }


def _slot(name: int | str) -> dict[str, Any]:
    return {
        "title": Output(f"title-{name}", "children"),
        "figure": Output(f"graph-{name}", "figure"),
        "style": Output(f"graph-{name}", "style"),
        "caption": Output(f"caption-{name}", "children"),
        "digest": Output(f"digest-{name}", "data"),
    }


def _nothing(why: str) -> dict[str, Any]:
    """A figure's place with a sentence in it."""
    return {"title": "", "figure": go.Figure(), "style": {"display": "none"}, "caption": why,
            "digest": ""}  # fmt: skip


def _drawn(make: Callable[[], Panel], dark: bool, before: str | None) -> dict[str, Any]:
    """A figure in its place; one that has not changed is not sent again."""
    try:
        panel = make()
    except NothingToDraw as nothing:
        return _nothing(f"Nothing to draw: {nothing}.")
    panel.figure.update_layout(template=theme.template(dark))
    text = panel.figure.to_json()
    digest = hashlib.sha256(text.encode()).hexdigest()
    same = digest == before
    return {
        "title": panel.title,
        "figure": no_update if same else json.loads(text),
        "style": no_update if same else layout.height(panel.figure),
        "caption": panel.caption,
        "digest": no_update if same else digest,
    }


def _known(experiments: Sequence[str], version: str) -> dict[str, Any]:
    """Which experiments a page shows, and the version of their runs."""
    return {"experiments": list(experiments), "version": version}


def _mark(value: dict[str, Any] | None) -> str | None:
    return None if value is None else value["mark"]
