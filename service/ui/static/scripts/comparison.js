// Two images side by side, with the blocks marked in which their paths differ.

import { portrait, summary } from "./card.js";
import { html } from "./elements.js";
import { Network, title } from "./network.js";

/** The section that compares two cards: the last two answered, until the visitor chooses others. */
export class Comparison {
  #section;
  #model;
  #chosen = [];
  #byHand = false;

  /** @param {HTMLElement} section hidden while fewer than two are chosen */
  constructor(section) {
    this.#section = section;
  }

  /** Compare what a model answers from now on; the cards of the one before have left the page. */
  ask(model) {
    this.#model = model;
  }

  /** A card has its answer. */
  offer(card) {
    if (this.#byHand && this.#chosen.length === 2) return;
    this.#choose([...this.#chosen, card].slice(-2));
  }

  /** The visitor wants a card in, or out. */
  toggle(card) {
    this.#byHand = true;
    const others = this.#chosen.filter((other) => other !== card);
    this.#choose(others.length < this.#chosen.length ? others : [...others, card].slice(-2));
  }

  /** A card leaves the page. */
  withdraw(card) {
    if (!this.#chosen.includes(card)) return;
    this.#byHand = false;
    this.#choose(this.#chosen.filter((other) => other !== card));
  }

  #choose(chosen) {
    for (const card of this.#chosen) card.compared = false;
    for (const card of chosen) card.compared = true;
    this.#chosen = chosen;
    this.#section.hidden = chosen.length < 2;
    this.#section.replaceChildren(...(chosen.length < 2 ? [] : this.#content(chosen)));
  }

  #content(cards) {
    const runs = cards.map(({ answer }) => answer.inference_graph.blocks);
    const only = [0, 1].map((side) => runs[side].filter((run, at) => run.executed && !runs[1 - side][at].executed));
    const differing = new Set(only.flat().map(({ name }) => name));
    return [
      html(
        "header",
        {},
        html("h2", { id: "comparison-title" }, "Side by side"),
        html("p", {}, verdict(differing.size, runs[0].length)),
      ),
      html("div", { class: "pair" }, ...cards.map((card, side) => this.#half(card, differing, only[side]))),
    ];
  }

  #half(card, differing, only) {
    const network = new Network(this.#model, `Inference graph of ${card.image.name}, with the blocks marked that differ`);
    network.mark(differing);
    network.show(card.answer);
    const [best] = card.answer.predictions;
    return html(
      "article",
      { class: "half", "aria-label": card.image.name },
      html("div", { class: "picture" }, portrait(card.image)),
      html("h3", { title: card.image.name }, best.label, " ", html("small", {}, card.image.name)),
      html("p", { class: "state" }, ...summary(card.answer)),
      network.element,
      differing.size ? html("p", { class: "only" }, only.length ? `Runs only here: ${named(only)}.` : "Nothing runs only here.") : null,
    );
  }
}

function verdict(differing, total) {
  if (!differing) return `The same path: all ${total} blocks are decided alike.`;
  return `The paths differ in ${differing} of ${total} blocks, marked with a frame.`;
}

/** Blocks by stage: "stage 1, block 2; stage 2, blocks 3 and 4". */
function named(blocks) {
  const stages = Map.groupBy(blocks, ({ stage }) => stage);
  return [...stages].map(([stage, members]) => {
    const numbers = members.map((block) => title(block).split("block ")[1] ?? block.name);
    return `stage ${stage}, ${numbers.length > 1 ? "blocks" : "block"} ${listed(numbers)}`;
  }).join("; ");
}

function listed(words) {
  return new Intl.ListFormat("en-GB", { type: "conjunction" }).format(words);
}
