// From readings of /metrics to what the panel shows: rates over the last minute, and shares of everything seen.

import { quantile, since, total } from "./exposition.js";

const OF_MODELS = ["", "/models/{name}", "/models/{name}/versions/{version}"];
const IMAGE_ROUTES = { route: OF_MODELS.flatMap((model) => [`${model}/classify`, `${model}/classify/batch`]) };
const RATE_WINDOW_S = 10;
const LATENCY_WINDOW_S = 60;

/** The last minute of readings. */
export class Readings {
  #kept = [];

  /**
   * Take in a reading and tell what it means.
   *
   * @param {Exposition} exposition
   * @param {number} atS seconds on any clock that only goes forward
   */
  add(exposition, atS) {
    const now = { exposition, atS, latency: exposition.histogram("aig_request_seconds", IMAGE_ROUTES) };
    now.images = exposition.sum("aig_images_total", { outcome: ["ok"] });
    // A service that was started again counts from nothing.
    if (this.#kept.length && this.#kept.at(-1).images > now.images) this.#kept = [];
    this.#kept = [...this.#kept.filter((reading) => atS - reading.atS <= LATENCY_WINDOW_S), now];
    return { ...this.#recent(now), ...lifetime(now) };
  }

  #recent(now) {
    const start = this.#kept.find((reading) => now.atS - reading.atS <= RATE_WINDOW_S);
    const seconds = now.atS - start.atS;
    const lastMinute = since(now.latency, this.#kept[0].latency);
    const latency = total(lastMinute) ? lastMinute : now.latency;
    return {
      imagesPerSecond: seconds ? (now.images - start.images) / seconds : 0,
      latencyIsRecent: latency === lastMinute,
      medianMs: milliseconds(quantile(latency, 0.5)),
      p99Ms: milliseconds(quantile(latency, 0.99)),
    };
  }
}

function lifetime({ exposition, images }) {
  return {
    images,
    refused: exposition.sum("aig_images_total", { outcome: ["overloaded"] }),
    queued: exposition.sum("aig_queue_depth"),
    skipRatio: images ? exposition.sum("aig_skip_ratio_sum") / exposition.sum("aig_skip_ratio_count") : null,
    executionRates: executionRates(exposition, images),
  };
}

function executionRates(exposition, images) {
  if (!images) return new Map();
  const executed = exposition.samples("aig_block_executed_total");
  return new Map(executed.map(({ labels, value }) => [labels.block, value / images]));
}

function milliseconds(seconds) {
  return seconds === null ? null : seconds * 1000;
}
