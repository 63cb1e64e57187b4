// A slider along the model's budgets, with marks where they change what the network says about an image.

import { html } from "./elements.js";
import { percent, probability } from "./figures.js";

let made = 0; // labels find their sliders by number

/** The slider of one image; it cannot be moved before the first answer. */
export class BudgetSlider {
  #rows;
  #input;
  #ticks;
  #wording = html("p", { class: "wording", "aria-hidden": "true" });
  #key = html("p", { class: "key" }, "Each line is a budget measured at export, the long one the network as trained.");

  /**
   * @param {object[]} rows of `budgetsOf`
   * @param {{onTouch: () => void, onMove: () => void}} hooks called at the first touch, and at every move
   */
  constructor(rows, { onTouch, onMove }) {
    this.#rows = rows;
    const id = `budget-${(made += 1)}`;
    this.#input = html("input", { type: "range", id, min: 0, max: rows.length - 1, step: 1, disabled: true });
    this.#input.addEventListener("input", () => {
      this.#tell();
      onMove();
    });
    const touches = new AbortController(); // not every browser focuses what is pointed at
    for (const kind of ["focus", "pointerdown"]) {
      this.#input.addEventListener(kind, () => (touches.abort(), onTouch()), { signal: touches.signal });
    }
    this.#ticks = rows.map(({ gate_offset: offset }, at) =>
      html("span", { class: offset === 0 ? "tick trained" : "tick", "--at": at / (rows.length - 1) }),
    );
    this.element = html(
      "div",
      { class: "budget" },
      html("label", { for: id }, "Budget"),
      html("div", { class: "scale" }, this.#input, html("div", { class: "ticks", "aria-hidden": "true" }, this.#ticks)),
      this.#wording,
      this.#key,
    );
    this.#stand(({ gate_offset: offset }) => offset === 0);
  }

  /** The budget it stands at. */
  get row() {
    return this.#rows[this.#input.value];
  }

  /** Let it be moved, from where the first answer was. */
  start({ compute }) {
    this.#stand(({ gate_offset: offset }) => offset === compute.gate_offset);
    this.#input.disabled = false;
  }

  /** Mark the budgets with which the network says something else than on its full path, as far as answers are known. */
  mark(known) {
    const guess = (row) => known.get(row)?.predictions[0];
    const full = guess(this.#rows.at(-1));
    if (!full) return;
    const others = this.#rows.map(guess).map((best) => (best && best.index !== full.index ? best.label : null));
    this.#ticks.forEach((tick, at) => tick.classList.toggle("changed", others[at] !== null));
    const labels = [...new Set(others.filter((label) => label !== null))];
    if (labels.length) this.#key.textContent = `≠ marks where the network says ${anyOf(labels)}. With every block it says ${full.label}.`;
    else if (known.size === this.#rows.length) this.#key.textContent = `The network says ${full.label} with every budget.`;
    this.#tell();
  }

  #stand(where) {
    const at = this.#rows.findIndex(where);
    if (at >= 0) this.#input.value = at;
    this.#tell();
  }

  #tell() {
    const { mac_share: share, accuracy, gate_offset: offset } = this.row;
    const spent = `${percent(share)} of the compute on average${offset === 0 ? " (as trained)" : ""}`;
    const wording = `${spent}, ${probability(accuracy.value)} right on images nobody trained on`;
    const changed = this.#ticks[this.#input.value].classList.contains("changed");
    this.#wording.textContent = wording;
    this.#input.setAttribute("aria-valuetext", changed ? `${wording}; another prediction than with every block` : wording);
  }
}

function anyOf(words) {
  return new Intl.ListFormat("en-GB", { type: "disjunction" }).format(words);
}
