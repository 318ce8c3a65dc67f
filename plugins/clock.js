/** The page of a clock: each time that is shown came from the server just then, and how evenly they come. */

const NOW = /^Current time: (\d{4}-\d\d-\d\d) (\d\d):(\d\d):(\d\d)\.(\d{3})\d* UTC$/;
/** Of how many ticks the intervals are shown. */
const TICKS = 60;
/** The least, in milliseconds, that the plot reaches up and down: what is smaller is even enough. */
const REACH = 20;

const day = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeZone: "UTC" });

function make(tag, className = "", ...content) {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...content);
  return element;
}

function draw(tag, attributes = {}, ...content) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...content);
  return element;
}

/** The face, and a way to set its hands. */
function face() {
  const marks = Array.from({ length: 60 }, (_, minute) => {
    const hour = minute % 5 === 0;
    const length = hour ? 7 : 3;
    const line = { x1: 0, x2: 0, y1: -92, y2: -92 + length, class: hour ? "clock-hour" : "clock-minute" };
    return draw("line", { ...line, transform: `rotate(${minute * 6})` });
  });
  const hand = (kind, from, to) => draw("line", { class: `clock-hand ${kind}`, x1: 0, x2: 0, y1: from, y2: to });
  const [hours, minutes, seconds] = [hand("hours", 0, -50), hand("minutes", 0, -76), hand("seconds", 18, -84)];
  const element = draw(
    "svg",
    { viewBox: "-100 -100 200 200", class: "clock-face", "aria-hidden": "true" },
    draw("circle", { r: 98, class: "clock-rim" }),
    ...marks,
    hours,
    minutes,
    seconds,
    draw("circle", { r: 4.5, class: "clock-hub" }),
  );
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  let angle = 0;
  const set = (h, m, s) => {
    hours.style.transform = `rotate(${h * 30 + m / 2}deg)`;
    minutes.style.transform = `rotate(${m * 6 + s / 10}deg)`;
    seconds.style.transform = `rotate(${s * 6}deg)`;
    const step = (s * 6 - angle + 360) % 360; // over twelve it goes on, not back
    angle = s * 6;
    if (!step || step > 30 || still.matches) return;
    const turn = [angle - step, angle].map((to) => ({ transform: `rotate(${to}deg)` }));
    seconds.animate(turn, { duration: 150, easing: "cubic-bezier(0.3, 1.6, 0.6, 1)" });
  };
  return { element, set };
}

/** The intervals between ticks as a line around the usual one; a hole where it was cut. */
function steadiness() {
  const [width, height] = [600, 96];
  const line = draw("path", { class: "clock-line" });
  const newest = draw("path", { class: "clock-newest" });
  const plot = draw(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, class: "clock-plot", preserveAspectRatio: "none", role: "img", "aria-label": "No interval yet" },
    draw("line", { class: "clock-usual", x1: 0, x2: width, y1: height / 2, y2: height / 2 }),
    line,
    newest,
  );
  const facts = make("dl", "clock-facts");
  const fact = (label) => {
    const value = make("dd", "", "–");
    facts.append(make("div", "", make("dt", "", label), value));
    return value;
  };
  const [last, usual, worst] = [fact("Last interval"), fact("Usual interval"), fact("Furthest from it")];
  const element = make(
    "section",
    "clock-steadiness",
    make("h2", "", "How evenly the ticks come"),
    make("p", "clock-legend", `The last ${TICKS} intervals between two ticks, around the usual one.`),
    plot,
    facts,
  );
  const intervals = [];

  const add = (milliseconds) => {
    intervals.push(milliseconds);
    if (intervals.length > TICKS) intervals.shift();
    const known = intervals.filter((each) => each !== null);
    if (!known.length) return;
    const middle = [...known].sort((a, b) => a - b)[Math.floor(known.length / 2)];
    const off = Math.max(...known.map((each) => Math.abs(each - middle)));
    const reach = Math.max(REACH, off) * 1.15;
    const step = width / (TICKS - 1);
    const begin = TICKS - intervals.length;
    let path = "";
    let pen = "M";
    let [x, y] = [0, 0];
    for (const [at, each] of intervals.entries()) {
      if (each === null) {
        pen = "M";
        continue;
      }
      x = (begin + at) * step;
      y = height / 2 - ((each - middle) / reach) * (height / 2 - 6);
      path += `${pen}${x.toFixed(1)} ${y.toFixed(1)}`;
      pen = "L";
    }
    line.setAttribute("d", path);
    newest.setAttribute("d", `M${x.toFixed(1)} ${y.toFixed(1)}h0`);
    last.textContent = `${(known.at(-1) / 1000).toFixed(3)} s`;
    usual.textContent = `${(middle / 1000).toFixed(3)} s`;
    worst.textContent = `${off.toFixed(0)} ms`;
    plot.setAttribute(
      "aria-label",
      `The last ${known.length} intervals: usually ${usual.textContent}, at most ${worst.textContent} from it`,
    );
  };
  return { element, add };
}

export default function clock(page) {
  const dial = face();
  const even = steadiness();
  const [time, split] = [make("span", "", "––:––:––"), make("span", "clock-split", "")];
  const digits = make("p", "clock-time", time, split);
  digits.setAttribute("role", "timer");
  digits.setAttribute("aria-label", "The time, UTC");
  const date = make("p", "clock-date", "Waiting for the first tick…");
  const note = make("p", "clock-note");
  note.setAttribute("aria-live", "polite");
  const section = make(
    "section",
    "clock",
    make("div", "clock-now", dial.element, make("div", "clock-words", digits, date, note)),
    even.element,
  );
  section.setAttribute("aria-label", "The time");
  page.root.append(section);

  const connection = page.connect({});
  let last = null; // when the last tick came; nothing of one that came late, after a cut
  let live = false;

  connection.addEventListener("message", ({ detail: { id, data } }) => {
    const now = performance.now();
    const found = typeof data === "string" && NOW.exec(data);
    if (!found) return;
    const [, today, ...parts] = found;
    const [h, m, s, ms] = parts;
    time.textContent = `${h}:${m}:${s}`;
    split.textContent = `.${ms}`;
    date.textContent = `${day.format(new Date(`${today}T00:00Z`))} · UTC`;
    dial.set(Number(h), Number(m), Number(s));
    // The first is for this client alone: what comes before it was kept, what comes after it is a tick.
    if (id === null) {
      live = true;
      return;
    }
    if (live && last !== null) even.add(now - last);
    if (live) last = now;
  });
  const going = () => {
    section.classList.remove("cut");
    note.textContent = "";
  };
  connection.addEventListener("open", going);
  const stopped = (text) => {
    section.classList.add("cut");
    note.textContent = text;
    if (last !== null) even.add(null);
    last = null;
    live = false;
  };
  connection.addEventListener("down", () => stopped("Cut off: this was the last time that came."));
  connection.addEventListener("close", () => stopped("Closed: this was the last time that came."));
  connection.addEventListener("degraded", () => stopped("On hold: this was the last time that came."));
  connection.addEventListener("restored", () => {
    going();
    live = true;
  });
}
