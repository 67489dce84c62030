// The page of one device: asks its API for the overview and the last minutes, and draws both. No library, no build.
// Words of agents are only ever set as text, never as markup.
"use strict";

const ASK_EVERY_MS = 2000;
const HISTORY_EVERY = 3; // every third round
const LATENCY_LIMIT_MS = 50;
const $ = (id) => document.getElementById(id);
let token = sessionStorage.getItem("nis-edge-token");
let round = 0;

async function ask(path) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const answer = await fetch(path, { headers, cache: "no-store" });
  if (answer.status === 401) {
    await askToken();
    return ask(path);
  }
  if (!answer.ok) throw new Error(`${path} answered ${answer.status}`);
  return answer.json();
}

function askToken() {
  return new Promise((resolve) => {
    $("ask").onclose = () => {
      token = $("token").value.trim();
      sessionStorage.setItem("nis-edge-token", token);
      resolve();
    };
    if (!$("ask").open) $("ask").showModal();
  });
}

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function showVerdict(verdict) {
  const status = verdict ? verdict.status : "unknown";
  $("verdict").className = status;
  $("status").textContent = status;
  $("level").textContent = verdict ? `level ${verdict.level ?? "none"}: ${verdict.level_reason}` : "no verdict yet";
  $("action").textContent = verdict && verdict.action !== "none" ? verdict.action : "";
  document.title = `${status} · nis-edge`;
}

function showFindings(findings) {
  const shown = findings.map((finding) => {
    const article = element("article", undefined, finding.severity);
    const title = element("h3", `${finding.label} · ${finding.agents.join(", ")}`);
    title.append(element("span", finding.severity));
    article.append(title, element("p", finding.text));
    const evidence = element("ul");
    for (const piece of finding.evidence.filter((one) => one.text)) {
      const line = element("li");
      line.append(element("code", `${piece.id}  `), piece.text);
      evidence.append(line);
    }
    if (evidence.childElementCount) article.append(evidence);
    article.append(element("p", finding.action, "do"));
    return article;
  });
  $("findings").replaceChildren(...(shown.length ? shown : [element("p", "none", "quiet")]));
}

function showAgents(agents) {
  const shown = Object.entries(agents).map(([name, state]) => element("li", `${name} · ${state}`, state));
  $("agents").replaceChildren(...(shown.length ? shown : [element("li", "none seen yet", "quiet")]));
}

function showFacts(view) {
  const { model, broker, spool, events, update, easing } = view;
  const waiting = Object.values(spool.on_disk).reduce((sum, n) => sum + n, 0) + spool.in_memory;
  const facts = {
    model: model.name ? `${model.name} (${model.isa}, ${model.threads} thread${model.threads > 1 ? "s" : ""})` : `none: ${model.reason}`,
    events: `${events.seen} seen, ${events.refused} refused, ${events.lost} lost`,
    broker: broker.configured
      ? `${broker.host}:${broker.port} ${broker.connected ? "connected" : `not connected (${broker.reason})`}; ${spool.delivered} delivered, ${waiting} waiting`
      : `none; ${waiting} records kept locally`,
    update: update ? `${update.state.toLowerCase()}, installed ${update.installed_version}${update.error ? `; ${update.error}` : ""}` : "off: the model is pinned by the configuration",
  };
  if (easing && easing.reason) facts.heat = `${easing.level}: ${easing.reason}`;
  for (const [name, value] of Object.entries(view.device_readings)) {
    facts[name.replaceAll("_", " ")] = typeof value === "number" ? String(Math.round(value * 10) / 10) : `unknown: ${value.reason}`;
  }
  $("facts").replaceChildren(...Object.entries(facts).flatMap(([name, words]) => [element("dt", name), element("dd", words)]));
}

function showNow(view) {
  const figures = view.latency.assessment;
  $("latency-now").textContent = figures.n
    ? `p50 ${figures.p50_ms} ms, p99 ${figures.p99_ms} ms over the newest ${figures.n}; dashed: ${LATENCY_LIMIT_MS} ms`
    : "no latency yet";
  const power = view.power;
  const unknown = power.source ? `unknown: ${power.source}: ${power.reason}` : "unknown: no power sensor here can be read; nis-edge doctor says what would help";
  $("power-now").textContent = power.watts === null ? unknown : `${power.watts} W, scope ${power.scope}, grade ${power.grade}, ${power.source}`;
}

// One chart: lines over seconds; a null is a gap. `limit` is drawn when the values come near it.
function draw(id, points, names, limit) {
  const svg = $(id);
  const [width, height] = [svg.clientWidth || 400, 150];
  const [left, bottom, top] = [38, 18, 8];
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const values = points.flatMap((point) => names.map((name) => point[name])).filter((value) => value !== null);
  const parts = [];
  const svgElement = (name, attributes, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    parts.push(made);
  };
  if (values.length === 0) {
    svgElement("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "nothing measured yet");
    svg.replaceChildren(...parts);
    return;
  }
  const peak = Math.max(...values);
  const most = peak > limit / 3 ? Math.max(peak, limit) * 1.1 : peak * 1.25 || 1;
  const last = points[points.length - 1].ts;
  const span = Math.max(last - points[0].ts, 60);
  const x = (ts) => width - 6 - ((last - ts) / span) * (width - left - 6);
  const y = (value) => top + (1 - value / most) * (height - top - bottom);
  for (const share of [0, 0.5, 1]) {
    const value = share * most;
    svgElement("line", { class: "grid", x1: left, x2: width - 6, y1: y(value), y2: y(value) });
    svgElement("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, value >= 10 ? value.toFixed(0) : value.toFixed(1));
  }
  if (most > limit) svgElement("line", { class: "limit", x1: left, x2: width - 6, y1: y(limit), y2: y(limit) });
  svgElement("text", { x: left, y: height - 4 }, `${Math.round(span / 60)} min ago`);
  svgElement("text", { x: width - 6, y: height - 4, "text-anchor": "end" }, "now");
  names.forEach((name, number) => {
    let path = "";
    let pen = "M";
    for (const point of points) {
      if (point[name] === null) {
        pen = "M";
        continue;
      }
      path += `${pen}${x(point.ts).toFixed(1)} ${y(point[name]).toFixed(1)}`;
      pen = "L";
    }
    svgElement("path", { d: path, class: number ? "faint" : "" });
  });
  svg.replaceChildren(...parts);
}

async function refresh() {
  try {
    const view = await ask("v1/status");
    $("who").textContent = `${view.site}/${view.device}  ${view.version}`;
    $("link").className = "";
    $("link").textContent = `up ${Math.round(view.uptime_s)} s`;
    showVerdict(view.verdict);
    showFindings(view.verdict ? view.verdict.findings : []);
    showAgents(view.verdict ? view.verdict.agents : {});
    showNow(view);
    showFacts(view);
    if (round++ % HISTORY_EVERY === 0) {
      const { points } = await ask("v1/history");
      draw("latency", points, ["assessment_ms_p99", "assessment_ms_p50"], LATENCY_LIMIT_MS);
      draw("power", points, ["watts"], 10);
    }
  } catch (error) {
    $("link").className = "lost";
    $("link").textContent = `no answer: ${error.message}; what stands here is old`;
  }
  setTimeout(refresh, ASK_EVERY_MS);
}

refresh();
