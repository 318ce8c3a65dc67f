/** Plots of the last minutes, as SVG, and how numbers are written: both in units that stay readable. */

import { make } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
/** A sample later than this many seconds after the one before it leaves a gap. */
const GAP = 2.6;
/** Room for the labels of the axes, in pixels. */
const LEFT = 52;
const BOTTOM = 20;
const TOP = 6;
const RIGHT = 6;
/** So many seconds are shown at least, whether there is data or not. */
const LEAST = 20;
/** An axis of time has its lines every so many seconds. */
const EVERY = [5, 10, 15, 30, 60, 120];
export const NOTHING = "–";

/** Three digits that count, and the unit: `1.23 k`, `45.6 ms`. */
function digits(value) {
  if (value === 0 || value >= 100) return value.toFixed(0);
  return value.toPrecision(3);
}

function scaled(value, base, units) {
  let step = 0;
  // 999.6 would be written as 1000.
  while (step < units.length - 1 && Math.abs(value) >= base * 0.9995) [value, step] = [value / base, step + 1];
  return [value, units[step]];
}

const real = (format) => (value) => (Number.isFinite(value) ? format(value) : NOTHING);

export const count = real((value) => {
  const [number, unit] = scaled(value, 1000, ["", "k", "M", "G", "T"]);
  if (!unit) return Number.isInteger(value) || value >= 99.95 ? value.toFixed(0) : value.toFixed(1);
  return `${digits(number)} ${unit}`;
});
export const bytes = real((value) => {
  const [number, unit] = scaled(value, 1024, ["B", "KiB", "MiB", "GiB", "TiB"]);
  return `${unit === "B" ? number.toFixed(0) : digits(number)} ${unit}`;
});
export const seconds = real((value) => {
  if (value >= 0.9995) return `${digits(value)} s`;
  if (value === 0) return "0 ms";
  return value < 0.00001 ? "< 0.01 ms" : `${value < 0.001 ? (value * 1000).toFixed(2) : digits(value * 1000)} ms`;
});
export const share = real((value) => {
  if (value > 0 && value < 0.00001) return "< 0.001 %";
  // Two digits that count, of what is less than a thousandth.
  return `${value < 0.001 ? Number((value * 100).toPrecision(2)) : (value * 100).toFixed(value < 0.1 ? 1 : 0)} %`;
});
/** How long something has lasted, in seconds: `3 d 4 h`. */
export const duration = real((value) => {
  const [s, m, h, d] = [value % 60, (value / 60) % 60, (value / 3600) % 24, value / 86400].map(Math.floor);
  if (d > 0) return `${d} d ${h} h`;
  if (h > 0) return `${h} h ${m} min`;
  return m > 0 ? `${m} min ${s} s` : `${s} s`;
});
/** On an axis no digits but those that count: `1 ms` rather than `1.00 ms`. */
const brief = (text) => text.replace(/(\.\d*?)0+(?=\D|$)/, "$1").replace(/\.(?=\D|$)/, "");
export const clock = (time) => new Date(time * 1000).toLocaleTimeString([], { hourCycle: "h23" });

/** Where an axis has its lines, from 0 on: at most five and it, of which the last is its end. */
export function ticks(most, { binary = false, whole = false, least = 1 } = {}) {
  const top = Math.max(most, least);
  const unit = binary ? 1024 ** Math.floor(Math.log(top) / Math.log(1024)) : 10 ** Math.floor(Math.log10(top));
  const steps = binary ? [1, 2, 4, 8, 16, 32, 64, 128, 256, 512] : [0.2, 0.5, 1, 2, 5];
  const smaller = binary ? [0.25, 0.5] : [];
  const step = [...smaller, ...steps].map((one) => one * unit).find((one) => top / one <= 5 && !(whole && one % 1));
  const size = step ?? Math.ceil(top / 5);
  const lines = [];
  for (let line = 0; line < top + size * 0.999; line += size) lines.push(line);
  return lines;
}

/** The same of a logarithmic one: whole decades around what is there, two at least, none far below `usual`. */
export function decades(values, usual) {
  const some = values.filter((value) => value > 0);
  const least = Math.max(some.length ? Math.min(...some) : usual, usual / 10);
  const low = Math.floor(Math.log10(least) + 1e-9);
  const high = Math.max(low + 2, Math.ceil(Math.log10(Math.max(least, ...some)) - 1e-9));
  return Array.from({ length: high - low + 1 }, (_, index) => 10 ** (low + index));
}

/** Runs of samples without a gap in time or in the values; each sample is `[time, value, below]`. */
export function runs(points) {
  const found = [];
  let last = -Infinity;
  for (const point of points) {
    if (!Number.isFinite(point[1])) {
      last = -Infinity;
      continue;
    }
    if (point[0] - last > GAP) found.push([]);
    found.at(-1).push(point);
    last = point[0];
  }
  return found;
}

function draw(name, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}


/**
 * One plot, in an element of its own. `series` are `{ name, value }`, where `value` takes the number from a sample;
 * `format` writes it. `stacked` piles them up, `log` has decades, `span` is how many seconds are shown:
 * fewer while there are fewer, so that what has just begun fills its plot.
 * Who looks at a second, with the pointer or the arrow keys, is told by `onpoint(time)`, or `null`.
 */
export class Plot {
  #options;
  #samples = [];
  #now = 0;
  #span = LEAST;
  #at = null; // the time that is looked at
  #width = 0;
  #height; // of the options, or of a sheet
  #parts;
  #values;
  #when;
  #text;

  constructor(element, options) {
    this.#options = { span: 300, height: 150, format: count, onpoint: () => {}, ...options };
    const { title, series, height } = this.#options;
    element.classList.add("plot");
    const caption = make("figcaption", "");
    const legend = make("ul", "legend");
    this.#when = make("span", "when");
    caption.append(make("h3", "", title), this.#when);
    this.#values = series.map(({ name }, index) => {
      const item = make("li", `series-${index + 1}`);
      const value = make("b", "", NOTHING);
      item.append(make("i", "key"), make("span", "", name), value);
      legend.append(item);
      return value;
    });
    const shapes = series.map((_, index) => draw("path", { class: `shape series-${index + 1}` }));
    const lines = series.map((_, index) => draw("path", { class: `line series-${index + 1}` }));
    const parts = {
      grid: draw("g", { class: "grid" }),
      data: draw("g", {}, ...shapes, ...lines),
      cross: draw("g", { class: "cross" }),
      shapes,
      lines,
    };
    // A picture for who reads it aloud; with the keyboard one goes through the seconds.
    parts.svg = draw("svg", { height, role: "img", tabindex: 0 }, parts.grid, parts.data, parts.cross);
    this.#parts = parts;
    this.#text = make("p", "hidden-text");
    this.#text.setAttribute("aria-live", "polite");
    element.replaceChildren(caption, legend, parts.svg, this.#text);
    parts.svg.addEventListener("pointermove", ({ offsetX }) => this.#look(this.#timeAt(offsetX)));
    parts.svg.addEventListener("pointerdown", ({ offsetX }) => this.#look(this.#timeAt(offsetX)));
    parts.svg.addEventListener("pointerleave", () => this.#look(null));
    parts.svg.addEventListener("blur", () => this.#look(null));
    parts.svg.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(([{ contentRect }]) => {
      this.#width = Math.floor(contentRect.width);
      this.#height = parts.svg.getBoundingClientRect().height;
      this.#paint();
    }).observe(element);
  }

  /** Show these samples, oldest first, up to a time. */
  draw(samples, now) {
    [this.#samples, this.#now] = [samples, now];
    this.#span = Math.min(this.#options.span, Math.max(LEAST, now - (samples[0]?.time ?? now)));
    this.#paint();
  }

  /** Look at a second, here or in another plot; `null`: at the newest. */
  point(time) {
    this.#at = time;
    this.#cross();
  }

  // Looking

  #look(time) {
    const near = time === null ? null : (this.#near(time)?.time ?? time);
    this.#options.onpoint(near);
    this.point(near);
  }

  /** The sample of a second, if there is one. */
  #near(time) {
    const sample = this.#nearest(time);
    return sample && Math.abs(sample.time - time) <= GAP ? sample : undefined;
  }

  #nearest(time) {
    let [best, off] = [null, Infinity];
    for (const sample of this.#samples) {
      if (Math.abs(sample.time - time) < off) [best, off] = [sample, Math.abs(sample.time - time)];
    }
    return best;
  }

  #key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -30, PageDown: 30, Home: -1e9, End: 1e9 }[event.key];
    if (event.key === "Escape") return this.#look(null);
    if (!step || !this.#samples.length) return;
    event.preventDefault();
    const last = this.#samples.length - 1;
    const now = this.#at === null ? last + (step < 0) : this.#samples.indexOf(this.#nearest(this.#at));
    const sample = this.#samples[Math.max(0, Math.min(last, now + step))];
    this.#look(sample.time);
    const said = this.#options.series.map(({ name, value }) => `${name} ${this.#options.format(value(sample))}`);
    this.#text.textContent = `${clock(sample.time)}: ${said.join(", ")}`;
  }

  // Drawing

  #x = (time) => LEFT + ((time - this.#now) / this.#span + 1) * (this.#width - LEFT - RIGHT);

  #timeAt(x) {
    return this.#now + ((x - LEFT) / (this.#width - LEFT - RIGHT) - 1) * this.#span;
  }

  #paint() {
    const { series, stacked, log, format } = this.#options;
    const height = this.#height;
    const { svg, grid, shapes, lines } = this.#parts;
    if (this.#width <= 0 || !this.#now) return;
    const shown = this.#samples.filter(({ time }) => time > this.#now - this.#span - GAP);
    let piles = shown.map(() => 0);
    const points = series.map(({ value }) => {
      const row = shown.map((sample, index) => {
        const below = stacked ? piles[index] : 0;
        return [sample.time, value(sample) == null ? NaN : below + value(sample), below];
      });
      if (stacked) piles = row.map(([, top]) => top);
      return row;
    });
    const values = points.flatMap((row) => row.map(([, value]) => value).filter(Number.isFinite));
    const axis = log ? decades(values, log) : ticks(Math.max(0, ...values), this.#options);
    const [low, high] = [axis[0], axis.at(-1)];
    const y = (value) => {
      const part = log ? Math.log10(Math.max(value, low) / low) / Math.log10(high / low) : value / high;
      return TOP + (1 - part) * (height - TOP - BOTTOM);
    };
    svg.setAttribute("width", this.#width);
    svg.setAttribute("viewBox", `0 0 ${this.#width} ${height}`);
    grid.replaceChildren(...this.#axes(axis, y, values.some((value) => value < low)));
    const at = (number) => number.toFixed(1);
    points.forEach((row, index) => {
      const found = runs(row);
      const line = (run, part = 1) => run.map((point) => `${at(this.#x(point[0]))} ${at(y(point[part]))}`).join("L");
      // One sample alone is a dot: a line of no length, with round ends.
      lines[index].setAttribute("d", found.map((run) => `M${line(run)}${run.length > 1 ? "" : "h0"}`).join(""));
      const area = stacked ? found.map((run) => `M${line(run)}L${line([...run].reverse(), 2)}Z`).join("") : "";
      shapes[index].setAttribute("d", area);
    });
    // Not read aloud again each second to who is there.
    if (document.activeElement !== svg) svg.setAttribute("aria-label", this.#said(shown, format));
    this.#parts.y = y;
    this.#parts.points = points;
    this.#cross();
  }

  #axes(axis, y, more) {
    const [height, { format }] = [this.#height, this.#options];
    const nodes = axis.flatMap((value, index) => {
      const below = more && !index ? "≤ " : ""; // what is less is drawn there, too
      const at = Math.round(y(value)) + 0.5; // on the pixel: crisp
      return [
        draw("line", { x1: LEFT, x2: this.#width - RIGHT, y1: at, y2: at }),
        draw("text", { x: LEFT - 8, y: at + 3.5, "text-anchor": "end" }, below + brief(format(value))),
      ];
    });
    const every = EVERY.find((one) => this.#span / one <= (this.#width < 300 ? 3 : 5)) ?? EVERY.at(-1);
    const [letters, room] = every < 60 ? [8, 26] : [5, 16];
    for (let time = Math.ceil((this.#now - this.#span) / every) * every; time <= this.#now; time += every) {
      const at = Math.round(this.#x(time)) + 0.5;
      if (at > this.#width - room) continue;
      nodes.push(draw("line", { x1: at, x2: at, y1: height - BOTTOM, y2: height - BOTTOM + 4 }));
      nodes.push(draw("text", { x: at, y: height - 4, "text-anchor": "middle" }, clock(time).slice(0, letters)));
    }
    return nodes;
  }

  #cross() {
    const { series, format } = this.#options;
    const { cross, points, y } = this.#parts;
    const sample = this.#at === null ? this.#samples.at(-1) : this.#near(this.#at);
    series.forEach(({ value }, index) => (this.#values[index].textContent = format(sample && value(sample))));
    this.#when.textContent = this.#at === null ? "" : clock(this.#at);
    if (this.#at === null || !points) return cross.replaceChildren();
    const x = Math.max(LEFT, this.#x(this.#at));
    const nodes = [draw("line", { x1: x, x2: x, y1: TOP, y2: this.#height - BOTTOM })];
    points.forEach((row, index) => {
      const [, value] = row.find(([time]) => time === sample?.time) ?? [];
      if (Number.isFinite(value)) {
        nodes.push(draw("circle", { cx: x, cy: y(value), r: 3.5, class: `dot series-${index + 1}` }));
      }
    });
    cross.replaceChildren(...nodes);
  }

  /** The plot in words. */
  #said(shown, format) {
    const words = this.#options.series.map(({ name, value }) => {
      const all = shown.map(value).filter(Number.isFinite);
      if (!all.length) return `${name}: no data`;
      const [now, least, most] = [value(shown.at(-1)), Math.min(...all), Math.max(...all)].map(format);
      return `${name}: now ${now}, least ${least}, most ${most}`;
    });
    const long = this.#span < 120 ? `${Math.round(this.#span)} seconds` : `${Math.round(this.#span / 60)} minutes`;
    return `${this.#options.title}, the last ${long}. ${words.join(". ")}.`;
  }
}
