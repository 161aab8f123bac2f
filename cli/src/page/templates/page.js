// The page is drawn by the server. This takes its new parts from /api/events, and sends what the buttons ask for.
"use strict";

const SILENCE_MS = 10000; // the server sends an event a second; a busy machine is late
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const at = (id) => document.getElementById(id);
const make = (name, text, className) => {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
};

// Makes an element's children those of another one, and keeps those that have the same key: focus, selection, place and open details stay.
function become(old, wanted) {
  const keys = new Set([...wanted.children].map((child) => child.dataset.key));
  for (const child of [...old.children]) if (child.dataset.key && !keys.has(child.dataset.key)) child.remove();
  const keyed = new Map([...old.children].map((child) => [child.dataset.key, child]));
  let place = old.firstChild;
  const drop = () => {
    const next = place.nextSibling;
    place.remove();
    place = next;
  };
  for (const next of [...wanted.childNodes]) {
    const key = next.dataset?.key;
    const found = key ? keyed.get(key) : place?.dataset?.key ? null : place;
    if (!found || found.nodeName !== next.nodeName) {
      old.insertBefore(next, place);
      continue;
    }
    // What was moved would lose its focus: rather what stands before it goes.
    while (place !== found && place && !place.dataset?.key) drop();
    if (found === place) place = place.nextSibling;
    else old.insertBefore(found, place);
    change(found, next);
  }
  while (place) drop();
}

function change(old, wanted) {
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== wanted.data) old.data = wanted.data;
    return;
  }
  if (old.dataset.keep !== undefined) return;
  if (old.dataset.raw !== undefined && old.dataset.raw !== wanted.dataset.raw && !calm.matches) {
    old.animate([{ color: "var(--accent)" }, {}], 900);
  }
  const ours = ["open", "aria-busy"]; // set here, not by the server
  for (const { name } of [...old.attributes]) {
    if (!wanted.hasAttribute(name) && !ours.includes(name)) old.removeAttribute(name);
  }
  for (const { name, value } of wanted.attributes) {
    if (old.getAttribute(name) !== value && !ours.includes(name)) old.setAttribute(name, value);
  }
  become(old, wanted);
}

let events;
let heard = Date.now();
let lost = false;

function connect() {
  events?.close();
  events = new EventSource("/api/events");
  events.addEventListener("status", (event) => {
    heard = Date.now();
    if (lost) {
      lost = false;
      at("connection").textContent = "";
      document.body.classList.remove("lost");
    }
    const { version, parts } = JSON.parse(event.data);
    // The server was started again, and is another one.
    if (version !== document.documentElement.dataset.version) location.reload();
    for (const [id, html] of Object.entries(parts)) {
      const template = document.createElement("template");
      template.innerHTML = html;
      become(at(id), template.content);
    }
  });
  events.addEventListener("error", disconnected);
}

function disconnected() {
  if (lost) return;
  lost = true;
  const since = new Date(heard).toLocaleTimeString([], { hour12: false });
  at("connection").textContent = `Not connected since ${since}, trying again.`;
  document.body.classList.add("lost");
}

let tried = Date.now();
setInterval(() => {
  if (document.hidden) return;
  const now = Date.now();
  if (now - heard > SILENCE_MS) disconnected();
  // The browser tries again by itself, but not after every kind of end.
  if (lost && now - tried > SILENCE_MS / 2 && (events.readyState === EventSource.CLOSED || now - heard > SILENCE_MS)) {
    tried = now;
    connect();
  }
}, 500);

// Nobody looks at a tab that lies behind others.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return events?.close();
  heard = tried = Date.now();
  connect();
});

// The answer, or an error whose message says what to do.
async function ask(path, body) {
  let answer;
  try {
    answer = await fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body ?? {}) });
  } catch {
    throw new Error("The page is not connected: try again when it is.");
  }
  const said = await answer.json().catch(() => ({ error: `status ${answer.status}` }));
  if (!answer.ok) throw new Error(said.error);
  return said;
}

// Disables a button while its work goes on.
async function busy(button, work) {
  if (button.ariaBusy === "true") return;
  button.ariaBusy = "true";
  try {
    await work();
  } finally {
    button.ariaBusy = null;
  }
}

function count(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

let quiet;
async function run() {
  let text = "Started.";
  try {
    if (at("run-now").ariaDisabled === "true") throw new Error("A run is under way: wait for its end.");
    await ask("/api/runs");
  } catch (error) {
    text = error.message;
  }
  at("run-message").textContent = text;
  clearTimeout(quiet);
  quiet = setTimeout(() => (at("run-message").textContent = ""), 6000);
}

// The last one that is asked for is the one that is answered.
let asked = false;
async function query() {
  asked = true;
  await busy(at("sql-run"), async () => {
    while (asked) {
      asked = false;
      await answer();
    }
  });
}

async function answer() {
  const [said, result] = [at("sql-said"), at("sql-result")];
  try {
    const { columns, rows, cut, elapsed_ms } = await ask("/api/query", { sql: at("sql-text").value });
    const numeric = columns.map((column) => (column.numeric ? "n" : ""));
    const head = make("tr");
    columns.forEach((column, i) => {
      const cell = make("th", column.name, numeric[i]);
      cell.scope = "col";
      cell.title = column.type;
      head.append(cell);
    });
    const [thead, tbody, table] = [make("thead"), make("tbody"), make("table")];
    thead.append(head);
    for (const row of rows) {
      const line = make("tr");
      row.forEach((cell, i) => line.append(make("td", cell ?? "null", `${numeric[i]} ${cell === null ? "null" : ""}`)));
      tbody.append(line);
    }
    table.append(thead, tbody);
    said.textContent = `${cut ? "The first " : ""}${count(rows.length, "row")} in ${elapsed_ms.toLocaleString("en")} ms`;
    result.replaceChildren(table);
    result.dataset.rows = rows.length;
  } catch (error) {
    said.textContent = "The query was not answered.";
    result.replaceChildren(make("p", error.message, "trouble"));
    delete result.dataset.rows;
  }
}

async function verify() {
  const result = at("verify-result");
  result.replaceChildren(make("p", "Reading every row …", "quiet"));
  try {
    const report = await ask("/api/verify");
    const verdict = make("p", report.verdict, report.clean ? "verdict ok" : "verdict bad");
    const list = make("ul");
    for (const { kind, place, message, advice } of report.findings) {
      const item = make("li");
      const where = place ? `${place.topic} ${place.partition}: ` : "";
      item.append(make("b", kind), make("p", where + message), make("p", advice, "quiet"));
      list.append(item);
    }
    const notes = report.notes.map((note) => make("p", note, "quiet"));
    result.replaceChildren(verdict, ...(report.findings.length ? [list] : []), ...notes);
    result.dataset.clean = report.clean;
  } catch (error) {
    result.replaceChildren(make("p", error.message, "trouble"));
    delete result.dataset.clean;
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.id === "run-now") busy(button, run);
  if (button?.id === "sql-run") query();
  if (button?.id === "verify-now") busy(button, verify);
});
at("sql-saved").addEventListener("change", (event) => {
  at("sql-text").value = event.target.value;
  query();
});
at("sql-text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    query();
  }
});
if (!document.hidden) connect();
