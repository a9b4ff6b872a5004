"use strict";
// One look at the POP a second; rates are differences between looks, over the last few seconds.

const WINDOW = 5; // looks that a rate is taken over
const KEPT = 60; // looks that a line shows
const looks = [];

const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let place = 0;
  while (bytes >= 1024 && place < units.length - 1) { bytes /= 1024; place += 1; }
  return [bytes >= 100 || place === 0 ? bytes.toFixed(0) : bytes.toFixed(1), units[place]];
}

function duration(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = parts.findIndex(([length]) => seconds >= length);
  return parts.slice(first, first + 2).map(([length, unit]) => {
    const count = Math.floor(seconds / length);
    seconds -= count * length;
    return `${count} ${unit}`;
  }).join(" ");
}

const shown = (rate) => (rate >= 10 || rate === 0 ? number.format(rate) : rate.toFixed(1));

// A figure that went back has begun anew: the proxy was started again.
function rate(read, from = looks.at(-1 - WINDOW) ?? looks[0], to = looks.at(-1)) {
  const seconds = to.uptime_s - from.uptime_s;
  return seconds > 0 ? Math.max(0, read(to) - read(from)) / seconds : 0;
}

function figure(id, text, unit) {
  $(id).replaceChildren(text, ...(unit ? [element("small", {}, unit)] : []));
}

function line(id, read) {
  const rates = looks.slice(1).map((look, place) => rate(read, looks[Math.max(0, place - 2)], look));
  const top = Math.max(...rates, 0) || 1;
  const points = rates.map((each, place) => `${100 - (rates.length - 1 - place) * (100 / (KEPT - 2))},${26 - (24 * each) / top}`);
  const drawn = (className, d) => {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("class", className);
    path.setAttribute("d", d);
    return path;
  };
  const svg = $(id);
  svg.setAttribute("viewBox", "0 0 100 28");
  svg.setAttribute("preserveAspectRatio", "none");
  if (points.length < 2) return;
  const left = points[0].split(",")[0];
  svg.replaceChildren(drawn("area", `M${points.join("L")}L100,28L${left},28Z`), drawn("line", `M${points.join("L")}`));
}

function bar(value, most, className = "") {
  const filled = element("i");
  filled.style.width = `${Math.min(100, (100 * value) / most)}%`;
  return element("div", { class: `bar ${className}`, role: "meter", "aria-valuenow": value, "aria-valuemax": most }, filled);
}

function load(connections, limit, most) {
  const full = limit ? connections / limit : 0;
  return element("div", { class: "load" }, bar(connections, limit || most, full >= 1 ? "at" : full > 0.8 ? "near" : ""),
    element("span", {}, element("b", {}, number.format(connections)), limit ? ` / ${number.format(limit)}` : ""));
}

function backendRow(view, before, seconds, most) {
  const perSecond = (key) => (before && seconds > 0 ? Math.max(0, view[key] - before[key]) / seconds : 0);
  const cell = (className, label, ...children) => element("td", { class: className, "data-label": label }, ...children);
  const place = [view.country, view.region].filter(Boolean).join(", ");
  const connect = view.connect_ms === null ? "–" : `${view.connect_ms.toFixed(view.connect_ms < 10 ? 1 : 0)} ms`;
  return element("tr", { class: view.state },
    cell("name", "Backend", view.id, element("span", { class: `state ${view.state}` }, view.state), element("small", {}, view.address)),
    cell("place", "Place", place || "–", element("small", {}, view.app)),
    cell("wide", "Connections", load(view.connections, view.hard_limit, most)),
    cell("n", "New/s", shown(perSecond("opened"))),
    cell("n", "To clients", `${size(perSecond("bytes_sent")).join(" ")}/s`),
    cell("n", "Connect", connect),
    cell(view.errors ? "n errors" : "n", "Errors", number.format(view.errors)),
    cell("n weight", "Weight", String(view.weight)));
}

function facts(look) {
  const rows = [
    ["Up for", duration(look.uptime_s)],
    ["Workers", look.worker_restarts ? `${look.workers}, ${look.worker_restarts} restarted` : `${look.workers}`, look.worker_restarts > 0],
    ["Routing table", `version ${look.table_version}, read ${duration(look.table_age_s)} ago`, look.table_age_s > 60],
    ["Rows skipped for problems", number.format(look.bad_rows), look.bad_rows > 0],
    ["Since the start", `${number.format(look.clients)} connections`],
    ["Moved", `${size(look.bytes_sent).join(" ")} to clients, ${size(look.bytes_received).join(" ")} from them`],
  ];
  return rows.map(([name, text, bad]) => element("div", {}, element("dt", {}, name), element("dd", bad ? { class: "bad" } : {}, text)));
}

function show(look) {
  looks.push(look);
  if (looks.length > KEPT) looks.shift();
  const from = looks.at(-1 - WINDOW) ?? looks[0];
  document.title = `${look.node} · edgeproxy`;
  $("node").textContent = look.node;
  $("about").textContent = `edgeproxy ${look.version} · region ${look.region}`;
  figure("active", number.format(look.active));
  $("clients").textContent = `${number.format(look.clients)} since the start`;
  figure("opened-rate", shown(rate((each) => each.clients)), "per second");
  const [sent, received] = ["bytes_sent", "bytes_received"].map((key) => size(rate((each) => each[key])));
  figure("sent-rate", sent[0], `${sent[1]}/s`);
  figure("received-rate", received[0], `${received[1]}/s`);
  line("opened-line", (each) => each.clients);
  line("sent-line", (each) => each.bytes_sent);
  line("received-line", (each) => each.bytes_received);
  figure("refused", number.format(look.refused));
  $("refused").classList.toggle("bad", rate((each) => each.refused) > 0);
  $("reasons").textContent = look.refused ? `${shown(rate((each) => each.refused))} per second` : "clients without a backend";

  const before = new Map(from.backends.map((view) => [view.id, view]));
  const seconds = look.uptime_s - from.uptime_s;
  const most = Math.max(...look.backends.map((view) => view.connections), 1);
  $("backends").replaceChildren(...look.backends.map((view) => backendRow(view, before.get(view.id), seconds, most)));
  $("states").textContent = Object.entries(look.states).map(([state, count]) => `${number.format(count)} ${state}`).join(" · ");
  const hidden = look.backends_total - look.backends.length;
  $("backends-note").hidden = look.backends_total > 0 && hidden === 0;
  $("backends-note").textContent = hidden
    ? `${number.format(hidden)} more, with fewer connections, are not shown.`
    : "The routing table holds no backend.";

  const top = Math.max(...look.countries.map((each) => each.active), 1);
  $("countries").replaceChildren(...look.countries.map((each) => element("li", {},
    element("span", {}, each.country || "unknown"),
    bar(each.active, top),
    element("span", {}, `${number.format(each.active)} open, ${number.format(each.opened)} in all`))));
  $("countries-note").hidden = look.countries.length > 0;
  $("facts").replaceChildren(...facts(look));
}

function linkIs(state, text) {
  $("link").dataset.state = state;
  $("link").textContent = text;
}

const source = new EventSource("status/events");
source.addEventListener("message", (event) => {
  linkIs("live", "live");
  show(JSON.parse(event.data));
});
source.addEventListener("error", () => {
  looks.length = 0;
  linkIs("lost", "no answer, trying again");
  // A refusal, unlike a lost connection, is final for an EventSource.
  if (source.readyState === EventSource.CLOSED) setTimeout(() => location.reload(), 5000);
});
