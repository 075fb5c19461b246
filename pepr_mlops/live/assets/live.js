window.dash_clientside = Object.assign({}, window.dash_clientside, {
  live: {
    // How the browser wants to look, and again when it changes its mind.
    dark: function () {
      const wish = window.matchMedia("(prefers-color-scheme: dark)");
      if (!window.peprWatches) {
        window.peprWatches = true;
        wish.addEventListener("change", (event) => {
          window.dash_clientside.set_props("dark", { data: event.matches });
        });
        if (window.innerWidth < 800) {
          window.dash_clientside.set_props("controls", { open: false });
        }
      }
      return wish.matches;
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
