// The service's public API, and the courtesy it is owed: few requests at a time, and none before it asks for more.

import { key } from "./key.js";
import { Problem } from "./problems.js";

const AT_ONCE = 2;
const ATTEMPTS = 6;

/** The models that are served, from GET /models. */
export async function listModels() {
  const { models } = await (await ask("models")).json();
  return models.filter((model) => model.labels !== null); // others are on their way, or could not be loaded
}

/** One of them in full. */
export async function describeModel(model) {
  return (await ask(pathOf(model))).json();
}

/** The text of GET /metrics; it takes at most so long. */
export async function readMetrics(limitMs) {
  return (await ask("metrics", { limitMs })).text();
}

/** Sends images to a model, two at a time; a 429 holds all of them back as long as the service asks. */
export class Sender {
  #waiting = [];
  #running = 0;
  #resumeAt = 0;

  /**
   * A model's answer to one image.
   *
   * @param {{name: string, version: string}} model
   * @param {Blob} file
   * @param {{signal?: AbortSignal, budget?: number, attempts?: number, onBusy?: (seconds: number) => void,
   *   onSend?: () => void}} options `attempts` is how often a busy service is asked
   * @throws {Problem} the service refused it, could not be reached, or stayed busy
   */
  async classify(model, file, { signal, budget, attempts = ATTEMPTS, onBusy, onSend } = {}) {
    await this.#turn();
    try {
      for (let attempt = 1; ; attempt += 1) {
        await this.#pause(onBusy);
        signal?.throwIfAborted();
        onSend?.();
        try {
          return await classifyOnce(model, file, budget, signal);
        } catch (problem) {
          if (problem.type !== "overloaded" || attempt === attempts) throw problem;
          // A little later than asked for, not all at the same moment.
          const seconds = problem.retryAfterS * (1 + Math.random() / 4);
          this.#resumeAt = Math.max(this.#resumeAt, performance.now() + seconds * 1000);
        }
      }
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#running -= 1;
    }
  }

  async #turn() {
    if (this.#running < AT_ONCE) this.#running += 1;
    else await new Promise((resolve) => this.#waiting.push(resolve)); // whoever is done hands its place over
  }

  async #pause(onBusy) {
    for (let left; (left = this.#resumeAt - performance.now()) > 0; ) {
      onBusy?.(Math.ceil(left / 1000));
      await new Promise((resolve) => setTimeout(resolve, left));
    }
  }
}

async function classifyOnce(model, file, budget, signal) {
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    throw new Problem("unreadable", "the browser could not read it"); // which fetch would not tell from no answer
  }
  // Bytes of no known type are sent as such: the service looks for itself.
  const headers = { "content-type": file.type || "application/octet-stream" };
  const query = budget === undefined ? "" : `?budget=${budget}`;
  return (await ask(`${pathOf(model)}/classify${query}`, { method: "POST", body: file, headers, signal })).json();
}

function pathOf({ name, version }) {
  return `models/${encodeURIComponent(name)}/versions/${encodeURIComponent(version)}`;
}

/** What the service answers; where it wants another API key, once there is one. */
async function ask(path, options) {
  for (;;) {
    const { value } = key;
    const response = await reach(path, value, options);
    if (response.ok) {
      key.accept(value);
      return response;
    }
    if (response.status !== 401) throw await problemOf(response);
    await key.otherThan(value);
  }
}

async function reach(path, bearer, { headers, limitMs, signal = limitMs && AbortSignal.timeout(limitMs), ...options } = {}) {
  const authorization = bearer === null ? {} : { authorization: `Bearer ${bearer}` };
  try {
    return await fetch(path, { ...options, signal, headers: { ...headers, ...authorization } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("unreachable", "no answer from the service");
  }
}

async function problemOf(response) {
  const details = { status: response.status, retryAfterS: Number(response.headers.get("retry-after")) || 1 };
  try {
    const { error } = await response.json();
    return new Problem(error.type, error.message, { ...details, reference: error.request_id });
  } catch {
    return new Problem("unexpected", `HTTP status ${response.status}`, details);
  }
}
