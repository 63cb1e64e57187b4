// What a figure says about the part under the pointer or the keyboard's focus; arrow keys go from part to part.

import { html } from "./elements.js";

const STEPS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

/** Tips over a figure. Its parts share one stop of the Tab key; Escape puts the tip away. */
export class Tips {
  #figure;
  #tip = html("div", { class: "tip", "aria-hidden": "true", hidden: true });
  #parts = [];
  #current = 0; // the part the Tab key comes to
  #shown = null;

  /** @param {HTMLElement} figure positioned, so that a tip can be placed in it */
  constructor(figure) {
    this.#figure = figure;
    figure.append(this.#tip);
    figure.addEventListener("keydown", (event) => this.#press(event));
    figure.addEventListener("pointerleave", () => this.#hide());
  }

  /**
   * The parts of a new drawing.
   *
   * @param {{element: SVGElement, lines: string[]}[]} parts the first line is the tip's title
   */
  attach(parts) {
    const hadFocus = this.#figure.contains(document.activeElement);
    this.#hide();
    this.#parts = parts;
    this.#current = Math.min(this.#current, parts.length - 1);
    parts.forEach(({ element, lines }, index) => {
      element.setAttribute("role", "img");
      element.setAttribute("aria-label", lines.join(", "));
      element.setAttribute("tabindex", index === this.#current ? 0 : -1);
      element.addEventListener("pointerenter", () => this.#show(index));
      element.addEventListener("pointerdown", () => this.#show(index));
      element.addEventListener("focus", () => this.#focus(index));
      element.addEventListener("blur", () => this.#hide());
    });
    if (hadFocus) parts[this.#current].element.focus();
  }

  /** New lines for a part that is there already. */
  update(index, lines) {
    const part = this.#parts[index];
    part.lines = lines;
    part.element.setAttribute("aria-label", lines.join(", "));
    if (index === this.#shown) this.#show(index);
  }

  #press(event) {
    if (event.key === "Escape") this.#hide();
    const last = this.#parts.length - 1;
    const target = { Home: 0, End: last }[event.key] ?? this.#current + (STEPS[event.key] ?? NaN);
    if (Number.isNaN(target) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.#parts[Math.max(0, Math.min(last, target))].element.focus();
  }

  #focus(index) {
    this.#parts[this.#current].element.setAttribute("tabindex", -1);
    this.#current = index;
    this.#parts[index].element.setAttribute("tabindex", 0);
    this.#show(index);
  }

  #show(index) {
    this.#shown = index;
    const { element, lines } = this.#parts[index];
    this.#tip.replaceChildren(...lines.map((line, number) => html(number ? "span" : "strong", {}, line)));
    this.#tip.hidden = false;
    const [part, figure] = [element.getBoundingClientRect(), this.#figure.getBoundingClientRect()];
    const { offsetWidth: width, offsetHeight: height } = this.#tip;
    const centre = part.left + part.width / 2 - figure.left - width / 2;
    const left = Math.max(0, Math.min(figure.width - width, centre));
    const above = part.top - figure.top - height - 4;
    // Below the part where there is no room above it in the window.
    const top = above + figure.top > 4 ? above : part.bottom - figure.top + 4;
    this.#tip.style.setProperty("translate", `${Math.round(left)}px ${Math.round(top)}px`);
  }

  #hide() {
    this.#shown = null;
    this.#tip.hidden = true;
  }
}
