// Draws the page's charts and knows its slider, legend, theme and table. Everything shown was computed in Python.
"use strict";
const page = JSON.parse(document.getElementById("data").textContent);
const charts = Object.values(page.charts);
const slider = document.getElementById("level");
const hidden = new Set(); // branches and runs that the legend has switched off
const dark = matchMedia("(prefers-color-scheme: dark)");
const root = document.documentElement;
const narrow = matchMedia("(max-width: 600px)");
let onPaper = false; // black on white, for print and for saved pictures
const paper = (yes) => { onPaper = yes; root.classList.toggle("paper", yes); };

// --- numbers: 16 bits each in base64, 65535 for none
const arrays = page.arrays.map(({ step, values }) => {
  const bytes = Uint8Array.from(atob(values), (c) => c.charCodeAt(0));
  return Array.from(new Uint16Array(bytes.buffer), (n) => (n === 65535 ? null : n * step));
});
const numbers = (value) => (typeof value === "number" ? arrays[value] : value);

// --- colours: the branches' own on white; on black as light as it takes to be seen
const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();
const channels = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
const hex = (rgb) => "#" + rgb.map((c) => Math.round(c).toString(16).padStart(2, "0")).join("");
const mix = (a, b, part) => channels(a).map((c, i) => c + part * (channels(b)[i] - c));
const light = (colour) => {
  const [r, g, b] = channels(colour).map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
function ink(colour) {
  if (colour === "dense") return mixed(css("--paper"), css("--ink"), dark.matches && !onPaper ? 0.6 : 0.45);
  if (!dark.matches || onPaper) return colour;
  let part = 0;
  while (part < 1 && (light(mixed(colour, "#ffffff", part)) + 0.05) / (light(css("--paper")) + 0.05) < 4.5) part += 0.05;
  return mixed(colour, "#ffffff", part);
}
const mixed = (a, b, part) => hex(mix(a, b, part));

// --- charts
function trace(given) {
  const t = { ...given, x: numbers(given.x), y: numbers(given.y), visible: !hidden.has(given.meta) };
  if (t.line) t.line = { ...t.line, color: ink(t.line.color ?? "dense") };
  if (t.fillcolor) t.fillcolor = ink(t.fillcolor);
  if (t.marker && t.marker.color) t.marker = { ...t.marker, color: ink(t.marker.color) };
  else if (t.marker && t.line) t.marker = { ...t.marker, color: t.line.color };
  if (t.marker && t.marker.line) {
    t.marker.line = { ...t.marker.line, color: t.marker.color };
    t.marker.color = css("--paper");
  }
  if (t.colorscale === "ink") {
    const end = dark.matches && !onPaper ? "#9bd3f5" : "#08306b";
    t.colorscale = [[0, css("--paper")], [1e-6, mixed(css("--paper"), css("--accent"), 0.18)], [0.5, css("--accent")], [1, end]];
    const font = { color: css("--muted"), size: 11 };
    t.colorbar = { ...t.colorbar, tickfont: font, title: { ...t.colorbar.title, font } };
  }
  return t;
}

function layout(chart) {
  const axis = { gridcolor: css("--grid"), linecolor: css("--rule"), zeroline: false, automargin: true, fixedrange: narrow.matches,
    tickfont: { size: 12, color: css("--muted") }, ticks: "outside", ticklen: 4, tickcolor: css("--rule"), minor: { ticks: "" } };
  const title = (given) => ({ ...given, font: { size: 13, color: css("--muted") }, standoff: 8 });
  const { xaxis, yaxis, ...rest } = chart.layout;
  const here = { type: "line", yref: "paper", y0: 0, y1: 1, layer: "below", line: { color: ink("dense"), width: 1, dash: "dot" } };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true, hovermode: "closest",
    margin: { l: 56, r: 18, t: 12, b: 46 }, showlegend: false,
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: css("--ink") },
    legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom", font: { size: 12 } },
    hoverlabel: { align: "left", bgcolor: css("--paper"), bordercolor: css("--rule"), font: { color: css("--ink"), size: 12 } },
    shapes: (chart.marks[place()] ?? []).map((x) => ({ ...here, x0: x, x1: x })),
    ...rest,
    xaxis: { ...axis, showgrid: false, showline: true, ...xaxis, title: title(xaxis.title) },
    yaxis: { ...axis, ...yaxis, title: title(yaxis.title) },
  };
}

const place = () => Number(slider?.value ?? 0);

function draw(chart) {
  const element = document.getElementById(chart.name);
  const traces = [...chart.traces, ...(chart.by_level[place()] ?? [])].map(trace);
  const says = chart.says_by_level[place()];
  if (says) element.setAttribute("aria-label", says);
  const given = layout(chart);
  if (traces.every((t) => !t.visible || !(t.z ?? t.y).length))
    given.annotations = [{ text: "nothing to show", showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5 }];
  if (onPaper) Object.assign(given, { autosize: false, width: 320, height: 250 });
  return Plotly.react(element, traces, given, { displayModeBar: false, responsive: true });
}

function drawAll() {
  charts.forEach(draw);
  for (const mark of document.querySelectorAll("[data-colour]")) {
    const colour = ink(mark.dataset.colour);
    if (mark.tagName === "I") mark.style.background = colour;
    else {
      mark.setAttribute("stroke", colour);
      mark.setAttribute("stroke-width", 3);
      mark.setAttribute("stroke-dasharray", { dash: "7 4", dot: "2 3", dashdot: "7 3 2 3", longdash: "12 4", longdashdot: "12 3 2 3" }[mark.dataset.dash] ?? "");
    }
  }
}

// --- the slider: one level for the whole page
function chooseLevel() {
  if (slider) {
    document.getElementById("level-label").textContent = page.levels[place()];
    slider.setAttribute("aria-valuetext", page.levels[place()]);
  }
  for (const heading of document.querySelectorAll(".at-level")) heading.textContent = `at level ${page.levels[place()]}`;
  for (const table of document.querySelectorAll("[data-level]")) table.hidden = Number(table.dataset.level) !== place();
}
slider?.addEventListener("input", () => {
  chooseLevel();
  charts.forEach(draw);
});

// --- the legend: a branch is on or off in every chart and in the table
for (const button of document.querySelectorAll("[data-key][aria-pressed]"))
  button.addEventListener("click", () => {
    const key = button.dataset.key;
    hidden.has(key) ? hidden.delete(key) : hidden.add(key);
    button.setAttribute("aria-pressed", String(!hidden.has(key)));
    charts.forEach(draw);
    for (const row of document.querySelectorAll("tr[data-key]")) row.hidden = hidden.has(row.dataset.key);
  });

// --- the table: a click on a heading sorts by it, another the other way round
document.querySelectorAll(".sortable thead th").forEach((heading, column) =>
  heading.addEventListener("click", () => {
    const body = heading.closest("table").tBodies[0];
    const way = heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    for (const other of heading.parentNode.children) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", way);
    const value = (row) => row.children[column].dataset.value;
    const compare = (a, b) => (a === "" ? 1 : b === "" ? -1 : isNaN(a) ? a.localeCompare(b) : a - b);
    const rows = [...body.rows].sort((a, b) => compare(value(a), value(b)) * (way === "ascending" ? 1 : -1));
    body.append(...rows);
  }),
);

// --- paper: black on white, two charts abreast, whatever the screen shows
addEventListener("beforeprint", () => { paper(true); drawAll(); });
addEventListener("afterprint", () => { paper(false); drawAll(); });

// --- pictures: each chart as PNG or SVG, with its title and legend, as on paper
async function picture(chart, format) {
  paper(true);
  const data = [...chart.traces, ...(chart.by_level[place()] ?? [])].map(trace).filter((t) => t.visible);
  const given = layout(chart);
  paper(false);
  const title = chart.by_level.length && page.levels.length > 1 ? `${chart.title}, level ${page.levels[place()]}` : chart.title;
  const named = new Set();
  for (const t of data) { // one entry for each branch, whatever it is drawn by
    const drawn = t.showlegend !== false && t.mode !== "markers" && t.type !== "heatmap" && !named.has(t.name);
    t.showlegend = drawn;
    if (drawn) named.add(t.name);
  }
  Object.assign(given, { paper_bgcolor: "#ffffff", plot_bgcolor: "#ffffff", showlegend: named.size > 1, shapes: [] });
  Object.assign(given, { title: { text: title, font: { size: 15 }, x: 0.02, xanchor: "left" }, margin: { l: 64, r: 24, t: 84, b: 56 } });
  return Plotly.toImage({ data, layout: given }, { format, width: 700, height: 440, scale: format === "png" ? 3 : 1 });
}
for (const button of document.querySelectorAll("[data-save]"))
  button.addEventListener("click", async () => {
    const link = document.createElement("a");
    link.href = await picture(page.charts[button.dataset.chart], button.dataset.save);
    link.download = `${button.dataset.chart}.${button.dataset.save}`;
    link.click();
  });

// --- while the run goes on: the page is loaded again, and keeps its level and what the legend hides
const KEPT = `lottery ${location.pathname}`;
if (page.refresh) {
  document.getElementById("written").textContent = `; it was written at ${new Date(document.lastModified).toLocaleString()}`;
  setInterval(() => {
    if (document.hidden || onPaper) return;
    sessionStorage.setItem(KEPT, JSON.stringify({ level: slider?.value, hidden: [...hidden] }));
    location.reload();
  }, 1000 * page.refresh);
}
const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? "null");
sessionStorage.removeItem(KEPT);
if (slider && kept?.level) slider.value = kept.level;
for (const button of document.querySelectorAll("[data-key][aria-pressed]"))
  if ((kept?.hidden ?? page.hidden).includes(button.dataset.key)) button.click();
dark.addEventListener("change", drawAll);
narrow.addEventListener("change", drawAll);

chooseLevel();
drawAll();
root.dataset.drawn = "yes";
