// The images on the page: each becomes a card and is sent; the newest stand first.

import { Card, sentence } from "./card.js";
import { html } from "./elements.js";
import { bytes } from "./figures.js";
import { legend } from "./legend.js";
import { Problem } from "./problems.js";

/** The section with a card for every image. */
export class Gallery {
  #section;
  #model;
  #sender;
  #comparison;
  #announce;
  #list = html("div", { class: "cards" });
  #sent = new Map(); // by card, its file and what stops its request

  /**
   * @param {HTMLElement} section hidden while there is no image
   * @param {object} model as GET /model tells it
   * @param {{sender: Sender, comparison: Comparison, announce: (text: string) => void}} others
   */
  constructor(section, model, { sender, comparison, announce }) {
    this.#section = section;
    this.#model = model;
    this.#sender = sender;
    this.#comparison = comparison;
    this.#announce = announce;
    const clear = html("button", { type: "button", onclick: () => this.#clear() }, "Remove all");
    section.append(html("header", {}, html("h2", {}, "Images"), clear), legend(), this.#list);
  }

  /** Take files in, in their order. */
  add(files) {
    const cards = files.map((file) => this.#cardOf(file));
    this.#list.prepend(...cards.map((card) => card.element));
    this.#section.hidden = false;
    for (const card of cards) this.#send(card);
  }

  #cardOf(file) {
    const image = { name: file.name || "pasted picture", url: URL.createObjectURL(file) };
    const card = new Card(image, this.#model, {
      onCompare: () => this.#comparison.toggle(card),
      onRemove: () => this.#removeUnderFocus(card),
      onRetry: () => this.#send(card),
    });
    this.#sent.set(card, { file, withdrawal: new AbortController() });
    return card;
  }

  async #send(card) {
    const { file, withdrawal } = this.#sent.get(card);
    const { signal } = withdrawal;
    card.wait();
    try {
      const most = this.#model.limits.max_bytes;
      if (file.size > most) throw new Problem("image_too_large", `it has ${bytes(file.size)}; up to ${bytes(most)} are taken`);
      const answer = await this.#sender.classify(file, {
        signal,
        onBusy: (seconds) => signal.aborted || card.waitFor(seconds),
        onSend: () => card.wait(),
      });
      card.succeed(answer);
      this.#comparison.offer(card);
      this.#announce(sentence(card.image.name, answer));
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Problem)) throw error;
      card.fail(error);
      this.#announce(`${card.image.name}: ${error.explanation.title}.`);
    }
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
    this.#section.hidden = !this.#sent.size;
  }

  #clear() {
    for (const card of [...this.#sent.keys()]) this.#remove(card);
    document.querySelector("#choose").focus();
  }
}
