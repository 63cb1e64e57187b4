// The images on the page: each becomes a card and is sent; the newest stand first.

import { BudgetAnswers, budgetsOf } from "./budget_answers.js";
import { Card, sentence } from "./card.js";
import { html } from "./elements.js";
import { bytes } from "./figures.js";
import { Problem } from "./problems.js";

const REST_MS = 120; // how long a slider rests before the service is asked
const LARGE = 1_000_000; // bytes of a file that is not sent in advance

/** The section with a card for every image. */
export class Gallery {
  #section;
  #model;
  #budgets;
  #sender;
  #comparison;
  #announce;
  #onCount;
  #list = html("div", { class: "cards" });
  #sent = new Map(); // by card, its file, its answers by budget, and what stops its requests

  /**
   * @param {HTMLElement} section hidden while there is no image
   * @param {{sender: Sender, comparison: Comparison, announce: (text: string) => void,
   *   onCount: (images: number) => void}} others
   */
  constructor(section, { sender, comparison, announce, onCount }) {
    this.#section = section;
    this.#sender = sender;
    this.#comparison = comparison;
    this.#announce = announce;
    this.#onCount = onCount;
    const clear = html("button", { type: "button", onclick: () => this.#clear() }, "Remove all");
    section.append(html("header", {}, html("h2", {}, "Images"), clear), this.#list);
  }

  /** Ask a model from now on, for the images that are there too. */
  ask(model) {
    const cards = [...this.#sent.keys()];
    const shown = [...this.#list.children];
    cards.sort((one, other) => shown.indexOf(one.element) - shown.indexOf(other.element));
    const files = cards.map((card) => this.#sent.get(card).file);
    for (const card of cards) this.#remove(card);
    this.#model = model;
    this.#budgets = budgetsOf(model);
    this.#comparison.ask(model);
    this.add(files);
  }

  /** Take files in, in their order. */
  add(files) {
    const cards = files.map((file) => this.#cardOf(file));
    this.#list.prepend(...cards.map((card) => card.element));
    this.#count();
    cards[0]?.element.scrollIntoView({ block: "nearest" }); // on a small screen the images are out of sight
    for (const card of cards) this.#send(card);
  }

  #cardOf(file) {
    const model = this.#model;
    const image = { name: file.name || "pasted picture", url: URL.createObjectURL(file), file };
    const card = new Card(image, model, this.#budgets, {
      onCompare: () => this.#comparison.toggle(card),
      onRemove: () => this.#removeUnderFocus(card),
      onRetry: () => (card.answer ? this.#spend(card) : this.#send(card)),
      onTouch: () => file.size > LARGE || answers.askAll(() => card.slider.mark(answers.known)),
      onMove: () => this.#spend(card),
    });
    const withdrawal = new AbortController();
    const { signal } = withdrawal;
    const answers = new BudgetAnswers(this.#budgets, (options) => this.#sender.classify(model, file, { signal, ...options }));
    this.#sent.set(card, { file, answers, withdrawal });
    return card;
  }

  async #send(card) {
    const { file, answers, withdrawal } = this.#sent.get(card);
    const { signal } = withdrawal;
    card.wait();
    try {
      const most = this.#model.limits.max_bytes;
      if (file.size > most) throw new Problem("image_too_large", `it has ${bytes(file.size)}; up to ${bytes(most)} are taken`);
      const answer = await this.#sender.classify(this.#model, file, {
        signal,
        onBusy: (seconds) => signal.aborted || card.waitFor(seconds),
        onSend: () => card.wait(),
      });
      answers.keep(answer);
      card.succeed(answer);
      this.#comparison.offer(card);
      this.#announce(sentence(card.image.name, answer));
    } catch (error) {
      if (signal.aborted) return;
      this.#excuse(card, error);
    }
  }

  /** Show what the network says with the budget that the card's slider stands at. */
  async #spend(card) {
    const { answers, withdrawal } = this.#sent.get(card);
    const { row } = card.slider;
    const left = () => withdrawal.signal.aborted || card.slider.row !== row;
    card.busy = true;
    try {
      if (!answers.known.has(row)) await new Promise((resolve) => setTimeout(resolve, REST_MS));
      if (left()) return;
      const answer = await answers.of(row, { onBusy: (seconds) => left() || card.waitFor(seconds) });
      card.slider.mark(answers.known);
      if (left()) return;
      card.show(answer);
      this.#announce(sentence(card.image.name, answer));
    } catch (error) {
      if (!left()) this.#excuse(card, error);
    }
  }

  #excuse(card, error) {
    if (!(error instanceof Problem)) throw error;
    card.fail(error);
    this.#announce(`${card.image.name}: ${error.explanation.title}.`);
  }

  /** The focus goes on to the next card, or it would be lost with this one. */
  #removeUnderFocus(card) {
    const next = card.element.nextElementSibling ?? card.element.previousElementSibling;
    this.#remove(card);
    (next?.querySelector(".remove") ?? document.querySelector("#choose")).focus();
  }

  #remove(card) {
    this.#sent.get(card).withdrawal.abort();
    this.#sent.delete(card);
    this.#comparison.withdraw(card);
    card.element.remove();
    URL.revokeObjectURL(card.image.url);
    this.#count();
  }

  #count() {
    this.#section.hidden = !this.#sent.size;
    this.#onCount(this.#sent.size);
  }

  #clear() {
    for (const card of [...this.#sent.keys()]) this.#remove(card);
    document.querySelector("#choose").focus();
  }
}
