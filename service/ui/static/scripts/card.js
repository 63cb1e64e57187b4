// One image: its picture, what the service says it shows, and the path it took; or why there is no answer.

import { BudgetSlider } from "./budget_slider.js";
import { html } from "./elements.js";
import { count, duration, percent, probability } from "./figures.js";
import { knowledgeInShort } from "./knowledge.js";
import { Network } from "./network.js";
import { seen } from "./seen.js";

const PREDICTIONS = 5;

/** The card of one image. It has its final height from the start, so that nothing moves when the answer comes. */
export class Card {
  answer = null;
  slider = null;
  #model;
  #hooks;
  #state = html("p", { class: "state" });
  #predictions = html("ol", { class: "predictions" });
  #outcome = html("div", { class: "outcome" });
  #compare;

  /**
   * @param {{name: string, url: string, file: Blob}} image
   * @param {object} model as GET /model tells it
   * @param {object[]} budgets of `budgetsOf`; with one or none there is nothing to choose
   * @param {{onCompare: Function, onRemove: Function, onRetry: Function, onTouch: Function, onMove: Function}} hooks
   *   called with the card; the last two are those of its slider
   */
  constructor(image, model, budgets, hooks) {
    this.image = image;
    this.#model = model;
    this.#hooks = hooks;
    this.network = new Network(model, `Inference graph of ${image.name}; the arrow keys go from block to block`);
    if (budgets.length > 1) {
      this.slider = new BudgetSlider(budgets, { onTouch: () => hooks.onTouch(this), onMove: () => hooks.onMove(this) });
    }
    this.#compare = html(
      "button",
      { type: "button", "aria-pressed": "false", hidden: true, onclick: () => hooks.onCompare(this) },
      "Compare",
    );
    const remove = html(
      "button",
      { type: "button", class: "remove", "aria-label": `Remove ${image.name}`, onclick: () => hooks.onRemove(this) },
      "Remove",
    );
    this.element = html(
      "article",
      { class: "card", "aria-label": image.name, tabindex: -1 },
      html("div", { class: "sight" }, html("div", { class: "picture" }, portrait(image)), sightOf(image, model)),
      html("div", { class: "about" }, html("h3", { title: image.name }, image.name), this.#predictions, knowledgeInShort(model)),
      html("div", { class: "path" }, this.#state, this.network.element, this.#outcome, this.slider?.element),
      html("div", { class: "actions" }, this.#compare, remove),
    );
    this.wait();
  }

  /** Show that the image is on its way. */
  wait() {
    const rows = Math.min(PREDICTIONS, this.#model.labels.length);
    this.#predictions.replaceChildren(...Array.from({ length: rows }, () => predictionRow("", null)));
    this.#outcome.replaceChildren();
    this.#say("waiting", html("span", { class: "spinner", "aria-hidden": "true" }), "Asking the network …");
  }

  /** Show that the service asked to come back later. */
  waitFor(seconds) {
    const text = `The service is busy; asking again in ${seconds} s`;
    this.#say("waiting", html("span", { class: "spinner", "aria-hidden": "true" }), text);
  }

  /** Show the first answer, which is the one that is compared. */
  succeed(answer) {
    this.answer = answer;
    this.show(answer, { thinking: true });
    this.#compare.hidden = false;
    this.slider?.start(answer);
  }

  /** Show an answer; the options are those of `Network.show`. */
  show(answer, options) {
    this.#predictions.replaceChildren(
      ...answer.predictions.map(({ label, probability: share }) => predictionRow(label, share)),
    );
    this.#outcome.replaceChildren();
    this.#say("answered", ...summary(answer));
    this.network.show(answer, options);
  }

  /** Show why there is no answer. */
  fail(problem) {
    const { title, advice, retriable } = problem.explanation;
    this.#predictions.replaceChildren();
    this.#say("failed", html("strong", {}, title));
    const retry = html("button", { type: "button", onclick: () => this.#retry() }, "Try again");
    this.#outcome.replaceChildren(html("p", {}, advice), retriable ? retry : "");
  }

  #retry() {
    this.element.focus(); // the button goes away
    this.wait();
    this.#hooks.onRetry(this);
  }

  /** Show that what is there is about to be replaced. */
  set busy(busy) {
    this.element.setAttribute("aria-busy", String(busy));
  }

  /** Whether the image is picked to be compared. */
  set compared(compared) {
    this.#compare.setAttribute("aria-pressed", String(compared));
  }

  #say(kind, ...what) {
    this.busy = false;
    this.element.dataset.state = kind;
    this.#state.replaceChildren(...what);
  }
}

/** The picture, or a stand-in where the browser cannot show its format. */
export function portrait({ name, url }) {
  const image = html("img", { src: url, alt: "", decoding: "async" });
  image.addEventListener("error", () => {
    const ending = name.includes(".") ? name.split(".").pop().slice(0, 6) : "?";
    image.replaceWith(html("span", { class: "unshown", "aria-hidden": "true" }, ending));
  });
  return image;
}

/** An answer in one line, in parts of a page. */
export function summary({ layers, compute, timing_ms: timing }) {
  return [
    figure(`${count(layers.executed)}`, ` of ${count(layers.total)} blocks executed`),
    figure(percent(compute.ratio), " of the compute"),
    figure(duration(timing.inference), " inference", `${duration(timing.total)} in the service, decoding and waiting included`),
  ];
}

/** The same as plain text. */
export function sentence(name, { predictions: [best], layers, compute }) {
  return (
    `${name}: ${best.label}, ${probability(best.probability)}. ${layers.executed} of ${layers.total} blocks executed, ` +
    `${percent(compute.ratio)} of the compute.`
  );
}

function sightOf({ file, name }, model) {
  const { crop } = model.preprocessing;
  return html("div", { class: "shrunk" }, seen(file, name, model), html("p", {}, `What it sees: ${crop}×${crop} pixels`));
}

function figure(value, unit, hint) {
  return html("span", { class: "figure", title: hint }, html("strong", {}, value), unit);
}

function predictionRow(label, share) {
  const waiting = share === null;
  return html(
    "li",
    waiting ? { class: "blank", "aria-hidden": "true" } : {},
    html("span", { class: "label", title: label }, label || "\u00a0"),
    html("span", { class: "amount" }, waiting ? "" : probability(share)),
    html("span", { class: "bar", "aria-hidden": "true", "--share": share ?? 0 }),
  );
}
