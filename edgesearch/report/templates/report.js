"use strict";

// Light and dark: figures name CSS variables, such as "--accent", where they need a colour.
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function coloured(value) {
  if (typeof value === "string") return value.startsWith("--") ? css(value) : value;
  if (Array.isArray(value)) return value.map(coloured);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, coloured(item)]));
}

// Plotly reads some HTML in its texts; names of users are text.
const escaped = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

function say(text) {
  document.getElementById("said").textContent = text;
}

const figures = new Map(
  [...document.querySelectorAll("script[data-for]")].map((script) => [
    script.dataset.for,
    JSON.parse(script.textContent),
  ]),
);

function axis(given) {
  const title = given.title ? { ...given.title, text: escaped(given.title.text), standoff: 8 } : undefined;
  const lines = { gridcolor: css("--line"), linecolor: css("--line"), zerolinecolor: css("--faint") };
  return { automargin: true, zeroline: false, ...lines, ...given, title };
}

function layoutOf(figure, height) {
  const given = coloured(figure.layout);
  return {
    ...given,
    margin: { l: 60, r: 16, t: 32, b: 48 },
    font: { family: getComputedStyle(document.body).fontFamily, color: css("--ink"), size: 12 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    hoverlabel: { bgcolor: css("--paper"), bordercolor: css("--faint"), font: { color: css("--ink") }, align: "left" },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--faint"), activecolor: css("--accent") },
    // Below the title of the axis, which is as high in small charts.
    legend: { orientation: "h", x: 0, y: -62 / Math.max(120, height - 150), yanchor: "top" },
    hovermode: "closest",
    xaxis: axis(given.xaxis),
    yaxis: axis(given.yaxis),
  };
}

const isNarrow = () => matchMedia("(max-width: 40rem)").matches;

// On a narrow page a long legend would take the room of the plot: hidden traces are left out of it.
function tracesOf(figure) {
  return coloured(figure.data).map((trace) => ({
    ...trace,
    name: escaped(trace.name),
    showlegend: trace.showlegend !== false && !(isNarrow() && trace.visible === "legendonly"),
  }));
}

// Each entry takes a line there; the height of the page's style has room for four.
function makeRoom(plot, traces) {
  const lines = traces.filter((trace) => trace.showlegend).length;
  plot.style.height = isNarrow() && lines > 4 ? `calc(20rem + ${19 * (lines - 4)}px)` : "";
}

const SETTINGS = {
  responsive: true,
  displaylogo: false,
  displayModeBar: isNarrow() ? false : "hover",
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "toggleSpikelines"],
};

function draw(plot) {
  const figure = figures.get(plot.id);
  const traces = tracesOf(figure);
  makeRoom(plot, traces);
  return Plotly.react(plot, traces, layoutOf(figure, plot.clientHeight), SETTINGS);
}

function redraw() {
  for (const plot of document.querySelectorAll(".plot")) {
    draw(plot).then(() => plot.marked !== undefined && ring(plot, plot.marked));
  }
}

// By keyboard: the arrow keys go through the points from left to right, and show what the mouse would.
function pointsOf(plot) {
  const points = [];
  plot.data.forEach((trace, curveNumber) => {
    if (trace.hoverinfo === "skip" || trace.visible === "legendonly" || trace.name === "marked") return;
    trace.x.forEach((x, pointNumber) => points.push({ curveNumber, pointNumber, x, y: trace.y[pointNumber] }));
  });
  return points.sort((a, b) => a.x - b.x || a.curveNumber - b.curveNumber);
}

function move(plot, step) {
  const points = pointsOf(plot);
  if (!points.length) return;
  const last = points.length - 1;
  plot.at = plot.at === undefined ? (step > 0 ? 0 : last) : Math.min(last, Math.max(0, plot.at + step));
  const { curveNumber, pointNumber, x, y } = points[plot.at];
  Plotly.Fx.hover(plot, [{ curveNumber, pointNumber }]);
  const trace = plot.data[curveNumber];
  const name = (trace.hovertext || trace.text || [])[pointNumber] || trace.name;
  say(`${name}: ${Number(x.toPrecision(4))}, ${Number(y.toPrecision(4))}`);
}

function onKey(plot, event) {
  const steps = { ArrowRight: 1, ArrowLeft: -1 };
  if (event.key in steps) {
    move(plot, steps[event.key]);
    event.preventDefault();
  } else if (event.key === "Escape") {
    plot.at = undefined;
    Plotly.Fx.unhover(plot);
  } else if (event.key === "Enter" && plot.at !== undefined && plot.dataset.links) {
    const { curveNumber, pointNumber } = pointsOf(plot)[plot.at];
    tableOf(plot).mark(plot.data[curveNumber].customdata[pointNumber], true);
  }
}

// A ring around the marked trial.
function ring(plot, place) {
  const trials = plot.data[0];
  const at = trials.customdata.indexOf(place);
  const trace = {
    type: "scatter", mode: "markers", name: "marked", showlegend: false, hoverinfo: "skip",
    x: [trials.x[at]], y: [trials.y[at]],
    marker: { symbol: "circle-open", size: 20, line: { width: 3 }, color: css("--bad") },
  };
  plot.marked = place;
  const former = plot.data.findIndex((each) => each.name === "marked");
  const removed = former < 0 ? Promise.resolve() : Plotly.deleteTraces(plot, former);
  return removed.then(() => Plotly.addTraces(plot, trace));
}

// The table of trials: sorted, filtered, and linked with the charts of the same run.
const FEW = 100;
const COMPARED = /^([a-z][\w.-]*?)(<=|>=|!=|=|<|>)(-?[\d.eE+-]+)$/i;
const COMPARE = {
  "<": (a, b) => a < b, ">": (a, b) => a > b, "<=": (a, b) => a <= b,
  ">=": (a, b) => a >= b, "=": (a, b) => a === b, "!=": (a, b) => a !== b,
};

class Trials {
  constructor(root) {
    const { devices, choices, rows } = JSON.parse(root.querySelector("script.rows").textContent);
    this.root = root;
    this.choices = choices;
    this.rows = rows.map((row, place) => ({ ...row, place }));
    const several = devices.length > 1;
    this.columns = [
      { name: "architecture", of: (row) => row.architecture },
      { name: "note", of: (row) => row.mark },
      { name: "agreement", of: (row) => row.agreement, show: (value) => value.toFixed(4) },
      ...devices.map((device, number) => ({
        name: several ? `latency on ${device} (ms)` : "latency (ms)",
        of: (row) => row.latencies[number],
        show: (value) => (value === null ? "–" : value < 10 ? value.toFixed(3) : value.toFixed(1)),
      })),
      { name: "parameters", of: (row) => row.params, show: (value) => value.toLocaleString("en") },
      { name: "MACs", of: (row) => row.macs, show: (value) => value.toLocaleString("en") },
    ];
    this.sorted = { column: 2, falling: true };
    this.all = false;
    this.input = root.querySelector("input");
    this.input.addEventListener("input", () => this.show());
    this.button = root.querySelector("button.all");
    this.button.addEventListener("click", () => {
      this.all = true;
      this.show();
    });
    this.head();
    this.show();
  }

  head() {
    const row = document.createElement("tr");
    this.columns.forEach((column, number) => {
      const cell = document.createElement("th");
      const button = document.createElement("button");
      cell.scope = "col";
      if (column.show) cell.className = "n";
      button.type = "button";
      button.textContent = column.name;
      button.addEventListener("click", () => this.sort(number));
      cell.append(button);
      row.append(cell);
    });
    this.root.querySelector("thead").replaceChildren(row);
  }

  sort(column) {
    const numbers = this.columns[column].show !== undefined;
    const again = this.sorted.column === column;
    this.sorted = { column, falling: again ? !this.sorted.falling : numbers && column === 2 };
    this.show();
  }

  value(row, name) {
    const choice = this.choices.indexOf(name);
    if (choice >= 0) return row.choices[choice];
    if (name === "latency") return row.latencies[0];
    return { agreement: row.agreement, params: row.params, parameters: row.params, macs: row.macs }[name.toLowerCase()];
  }

  fits(row, terms) {
    return terms.every((term) => {
      const found = COMPARED.exec(term);
      const value = found && this.value(row, found[1]);
      if (found && value !== undefined) return value !== null && COMPARE[found[2]](value, Number(found[3]));
      return `${row.architecture} ${row.mark}`.toLowerCase().includes(term.toLowerCase());
    });
  }

  show() {
    const terms = this.input.value.trim().split(/\s+/).filter(Boolean);
    const { column, falling } = this.sorted;
    const of = this.columns[column].of;
    const order = (a, b) => (a === null) - (b === null) || (a < b ? -1 : a > b ? 1 : 0);
    const found = this.rows.filter((row) => this.fits(row, terms));
    found.sort((a, b) => (falling ? -1 : 1) * order(of(a), of(b)) || a.place - b.place);
    const shown = this.all ? found : found.slice(0, FEW);
    this.root.querySelector("tbody").replaceChildren(...shown.map((row) => this.row(row)));
    this.root.querySelectorAll("thead th").forEach((cell, number) => {
      if (number === column) cell.setAttribute("aria-sort", falling ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    });
    const hidden = found.length - shown.length;
    this.root.querySelector(".shown").textContent =
      `${found.length} of ${this.rows.length} trials` + (hidden ? `, the first ${shown.length} shown` : "");
    this.button.hidden = !hidden;
  }

  row(row) {
    const line = document.createElement("tr");
    line.dataset.place = row.place;
    if (row.mark && row.mark !== "front") line.classList.add("own");
    if (row.place === this.marked) line.classList.add("marked");
    this.columns.forEach((column, number) => {
      const cell = document.createElement("td");
      const value = column.of(row);
      if (column.show) cell.className = "n";
      if (number === 0) {
        const button = document.createElement("button");
        button.type = "button";
        button.className = "name";
        button.textContent = value;
        button.title = "Mark it in the chart";
        button.addEventListener("click", () => this.mark(row.place, false));
        cell.append(button);
      } else {
        cell.textContent = column.show ? column.show(value) : value;
      }
      line.append(cell);
    });
    return line;
  }

  // Mark a trial here and in the charts; `go` also moves there, even where a filter hides it.
  mark(place, go) {
    this.marked = place;
    let line = this.line(place);
    if (!line && go) {
      this.input.value = "";
      this.all = true;
      this.show();
      line = this.line(place);
    }
    for (const each of this.root.querySelectorAll("tr.marked")) each.classList.remove("marked");
    if (line) {
      line.classList.add("marked");
      if (go) {
        line.querySelector("button").focus({ preventScroll: true });
        line.scrollIntoView({ block: "nearest" });
      }
    }
    for (const plot of this.root.parentElement.querySelectorAll(".plot[data-links=yes]")) ring(plot, place);
    say(`marked ${this.rows[place].architecture}`);
  }

  line(place) {
    return this.root.querySelector(`tr[data-place="${place}"]`);
  }
}

const tables = new Map();
const tableOf = (plot) => tables.get(plot.closest("section"));

for (const root of document.querySelectorAll(".trials")) {
  tables.set(root.closest("section"), new Trials(root));
}

for (const plot of document.querySelectorAll(".plot")) {
  draw(plot).then(() => {
    plot.on("plotly_click", ({ points }) => {
      if (plot.dataset.links && points.length) tableOf(plot).mark(points[0].customdata, true);
    });
    plot.dataset.drawn = "yes";
  });
  plot.addEventListener("keydown", (event) => onKey(plot, event));
}

for (const button of document.querySelectorAll(".copy")) {
  button.addEventListener("click", () => copy(button));
}

function copy(button) {
  const said = button.textContent;
  const done = (text) => {
    button.textContent = text;
    say(text);
    setTimeout(() => (button.textContent = said), 1500);
  };
  // A page opened from a file may not use the clipboard's interface.
  const area = document.createElement("textarea");
  area.value = button.dataset.text;
  document.body.append(area);
  area.select();
  const worked = document.execCommand("copy");
  area.remove();
  button.focus();
  done(worked ? "Copied" : "Select and copy it");
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
const printing = matchMedia("print");
printing.addEventListener("change", redraw);
addEventListener("beforeprint", () => {
  for (const each of document.querySelectorAll("details:not([open])")) {
    each.open = true;
    each.dataset.closed = "yes";
  }
  for (const table of tables.values()) {
    table.all = true;
    table.show();
  }
});
addEventListener("afterprint", () => {
  for (const each of document.querySelectorAll("details[data-closed]")) {
    each.open = false;
    delete each.dataset.closed;
  }
});
