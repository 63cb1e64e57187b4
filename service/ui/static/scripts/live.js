// The panel of what the service is doing now, from GET /metrics alone; where that is kept from it, it says so.

import { readMetrics } from "./api.js";
import { html, svg } from "./elements.js";
import { Exposition } from "./exposition.js";
import { count, duration, large, percent, rate } from "./figures.js";
import { rateLegend } from "./legend.js";
import { RateChart } from "./rate_chart.js";
import { Readings } from "./readings.js";

const EVERY_MS = 2000;
const EVERY_MS_AFTER_FAILURE = 10_000;
const POINTS = 60;
const NOTHING = "–";

// Name, caption, and of which time the value is.
const TILES = [
  ["rate", "images a second", "last 10 s"],
  ["median", "median to answer", "since start"],
  ["p99", "99% answered within", "since start"],
  ["skipped", "of the blocks skipped", "since start"],
  ["images", "images answered", "since start"],
  ["refused", "images refused as busy", "since start"],
];

/** The panel. It reads the metrics while the page can be seen. */
export class Live {
  #readings;
  #labels;
  #values = new Map(TILES.map(([name]) => [name, html("strong", {}, NOTHING)]));
  #periods = new Map(TILES.map(([name, , period]) => [name, html("small", {}, period)]));
  #trend = svg("polyline", {});
  #rates = [];
  #message = html("p", { class: "notice", role: "status", hidden: true });
  #model = html("p", { class: "served" });
  #often = html("div", {});
  #section;
  #figures;
  #chart;

  /** @param {HTMLElement} section that becomes the panel, once a model is described */
  constructor(section) {
    this.#section = section;
    const tiles = TILES.map(([name, caption]) =>
      html(
        "div",
        { class: "tile", "data-figure": name },
        html("dt", {}, caption, this.#periods.get(name)),
        html("dd", {}, this.#values.get(name)),
      ),
    );
    const trend = svg("svg", { class: "trend", viewBox: "0 0 100 20", preserveAspectRatio: "none", "aria-hidden": "true" }, svg("path", { d: "M0 19.5h100" }), this.#trend);
    tiles[0].querySelector("dd").append(trend);
    this.#figures = html("div", { class: "figures" }, html("dl", {}, ...tiles), this.#often);
    section.append(
      html("header", {}, html("h2", { id: "live-title" }, "The service now"), this.#model),
      this.#message,
      this.#figures,
    );
  }

  /** Name the model, and prepare the chart of its blocks; also when another one was chosen. */
  describe({ name, version, blocks, profile, total_macs: macs, engine }) {
    const gated = blocks.filter((block) => block.gated).length;
    this.#readings = new Readings();
    this.#labels = { model: name, version }; // of metrics that are told for each model
    this.#model.replaceChildren(
      html("span", {}, `${name}, version ${version}`),
      html("span", {}, `${blocks.length} blocks, ${gated} with a gate`),
      html("span", {}, `${large(macs)} MACs with all of them`),
      html("span", {}, `${engine.runtime} on ${engine.device}, ${engine.precision}`),
    );
    this.#chart = new RateChart(blocks, profile);
    this.#often.replaceChildren(
      html("h3", {}, "How often each block runs ", html("small", {}, "all images since the service started")),
      rateLegend(profile),
      this.#chart.element,
    );
    this.#section.hidden = false;
  }

  /** Read the metrics now and again, for as long as the page is open. */
  async watch() {
    for (;;) {
      if (document.hidden) await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
      const pause = (await this.#read()) ? EVERY_MS : EVERY_MS_AFTER_FAILURE;
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }

  async #read() {
    let text;
    try {
      text = await readMetrics(EVERY_MS_AFTER_FAILURE);
    } catch (problem) {
      this.#excuse(problem);
      return false;
    }
    this.#message.hidden = true;
    this.#figures.classList.remove("stale");
    this.#show(this.#readings.add(new Exposition(text, this.#labels), performance.now() / 1000));
    return true;
  }

  #excuse({ status }) {
    this.#message.textContent = status
      ? "The service does not show its figures here. Everything else on this page works without them."
      : "The service does not answer; trying again.";
    this.#message.hidden = false;
    this.#figures.classList.add("stale");
  }

  #show(now) {
    const period = now.latencyIsRecent ? "last minute" : "since start";
    const known = (value, words) => (value === null ? NOTHING : words(value));
    this.#set("rate", rate(now.imagesPerSecond));
    this.#set("median", known(now.medianMs, duration), period);
    this.#set("p99", known(now.p99Ms, duration), period);
    this.#set("skipped", known(now.skipRatio, percent));
    this.#set("images", count(now.images));
    this.#set("refused", count(now.refused));
    this.#chart.show(now.executionRates);
    this.#draw(now.imagesPerSecond);
  }

  #set(name, value, period) {
    this.#values.get(name).textContent = value;
    if (period) this.#periods.get(name).textContent = period;
  }

  #draw(latest) {
    this.#rates = [...this.#rates, latest].slice(-POINTS);
    const most = Math.max(...this.#rates, 1);
    const from = POINTS - this.#rates.length;
    const points = this.#rates.map((value, at) => `${((from + at) * 100) / (POINTS - 1)},${19 - (18 * value) / most}`);
    this.#trend.setAttribute("points", points.join(" "));
  }
}
