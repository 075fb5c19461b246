window.dash_clientside = Object.assign({}, window.dash_clientside, {
  live: {
    // Whether the browser prefers dark colours, now and whenever that changes.
    dark: function () {
      const preference = window.matchMedia("(prefers-color-scheme: dark)");
      if (!window.peprWatches) {
        window.peprWatches = true;
        preference.addEventListener("change", (event) => {
          window.dash_clientside.set_props("dark", { data: event.matches });
        });
        if (window.innerWidth < 800) {
          window.dash_clientside.set_props("controls", { open: false });
        }
      }
      return preference.matches;
    },
    // The view in the address bar, without loading it or filling the history with every change.
    address: function (search) {
      if (typeof search === "string") {
        window.history.replaceState(null, "", window.location.pathname + search);
      }
    },
    // What came late counts if the view is still the one it is of.
    late: function (late, address) {
      const same = window.dash_clientside.no_update;
      return ["headline", "ranking", "notes", "problem"].map((name) =>
        late && late.address === address && name in late ? late[name] : same,
      );
    },
    // The run's page of the point that was clicked.
    open: function (click, figure, page) {
      const point = click && click.points[0];
      const trace = point && figure.data[point.curveNumber];
      const run = trace && trace.ids && trace.ids[point.pointIndex];
      if (page && run) {
        window.open(page + encodeURIComponent(run), "_blank", "noopener");
      }
    },
  },
});
