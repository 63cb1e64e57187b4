// The network of one image on the page: drawn before the answer, lit by it, and drawn again when its width changes.

import { html } from "./elements.js";
import { large, percent, probability, signed } from "./figures.js";
import { draw, drawFlow, room } from "./network_drawing.js";
import { layOut, NARROWEST } from "./network_layout.js";
import { Tips } from "./tips.js";

/** A figure of the network; `element` is what to put on the page. */
export class Network {
  #model;
  #canvas = html("div", { class: "canvas" });
  #tips;
  #runs = null;
  #rates = null;
  #marked = new Set();
  #width = 0;

  /**
   * @param {{blocks: object[], gate_threshold: number}} model as GET /model tells it
   * @param {string} label for those who cannot see it
   */
  constructor(model, label) {
    this.#model = model;
    this.element = html("div", { class: "network", role: "group", "aria-label": label }, this.#canvas);
    this.#tips = new Tips(this.element);
    new ResizeObserver(() => this.fit()).observe(this.element);
  }

  /** Show the path of an answer; `thinking` lets it run through the network, where motion is welcome. */
  show(answer, { thinking = false } = {}) {
    this.#runs = new Map(answer.inference_graph.blocks.map((run) => [run.name, run]));
    this.element.classList.toggle("thinking", thinking);
    this.#draw();
  }

  /** Show, by block name, for which share of many images each block ran. */
  showRates(rates) {
    this.#rates = rates;
    this.#draw();
  }

  /** Mark the blocks of these names. */
  mark(names) {
    this.#marked = names;
    this.#draw();
  }

  /** Draw it as wide as its place; this happens by itself, but only after what stands below was painted once. */
  fit() {
    const width = this.element.clientWidth;
    // Before the style sheets are there, a figure may have hardly any width.
    if (width < NARROWEST || width === this.#width) return;
    // A path that was shown once is not run through again; one whose answer came before the first fit still is.
    if (this.#width) this.element.classList.remove("thinking");
    this.#width = width;
    this.#draw();
  }

  #draw() {
    if (!this.#width) return;
    const layout = layOut(this.#model.blocks, this.#width, room);
    const { root, blocks } = this.#rates
      ? drawFlow(layout, this.#rates)
      : draw(layout, this.#runs, sigmoid(this.#model.gate_threshold), this.#marked);
    this.#canvas.replaceChildren(root);
    const lines = this.#model.blocks.map((block) => describe(block, this.#runs?.get(block.name), this.#rates?.get(block.name)));
    this.#tips.attach(blocks.map((element, index) => ({ element, lines: lines[index] })));
  }
}

function describe(block, run, rate) {
  if (!run) {
    const often = rate === undefined ? [] : [`ran for ${percent(rate)} of the images at export`];
    return [title(block), ...often, block.gated ? "has a gate" : ungated(block), `${large(block.macs)} MACs`];
  }
  return [
    `${title(block)}: ${run.executed ? "executed" : "skipped"}`,
    gate(block, run),
    `${large(run.macs)} MACs ${run.executed ? "spent" : "saved"}`,
  ];
}

function gate(block, run) {
  if (!run.gated) return ungated(block);
  if (run.margin === null) return "its network was not asked";
  return `gate probability ${probability(run.gate_probability)}, margin ${signed(run.margin)}`;
}

function ungated(block) {
  return block.within ? `no gate: runs with ${title({ name: block.within }).toLowerCase()}` : "no gate: always runs";
}

/** A block's name as people read it: stage2_block3 is stage 2, block 3, and network2 is network 2. */
export function title({ name }) {
  const parts = /^stage(\d+)_block(\d+)$/.exec(name);
  return parts ? `Stage ${parts[1]}, block ${parts[2]}` : name.replace(/^network(\d+)$/, "Network $1");
}

function sigmoid(x) {
  return 1 / (1 + Math.exp(-x));
}
