// How often each block runs: a bar for every block, in the columns of the network's own drawing.

import { html, svg } from "./elements.js";
import { percent } from "./figures.js";
import { title } from "./network.js";
import { layOut, NARROWEST } from "./network_layout.js";
import { Tips } from "./tips.js";

const HEIGHT = 48;

/** The chart; `element` is what to put on the page. */
export class RateChart {
  #blocks;
  #canvas = html("div", { class: "canvas" });
  #tips;
  #bars = [];
  #rates = new Map();
  #expected;
  #width = 0;

  /**
   * @param {{name: string, stage: number, gated: boolean}[]} blocks of a model
   * @param {{rates: number[]} | null} profile its execution rates at export, where they were measured
   */
  constructor(blocks, profile) {
    this.#blocks = blocks;
    this.#expected = new Map(blocks.flatMap(({ name, gated }, at) => (gated && profile ? [[name, profile.rates[at]]] : [])));
    const label = "Execution rate of every block; the arrow keys go from block to block";
    this.element = html("div", { class: "network rates", role: "group", "aria-label": label }, this.#canvas);
    this.#tips = new Tips(this.element);
    new ResizeObserver(() => this.#fit()).observe(this.element);
  }

  /** Show rates by block name. */
  show(rates) {
    this.#rates = rates;
    this.#bars.forEach((bar, index) => {
      this.#raise(bar, index);
      this.#tips.update(index, this.#describe(index));
    });
  }

  #fit() {
    const width = this.element.clientWidth;
    if (width < NARROWEST || width === this.#width) return; // it may have hardly any before the style sheets are there
    this.#width = width;
    const layout = layOut(this.#blocks, width, () => ({ above: HEIGHT, below: 2 }));
    this.#bars = layout.blocks.map((at) => drawBar(at, layout));
    this.#bars.forEach((bar, index) => this.#raise(bar, index));
    const { width: drawn, height } = layout;
    this.#canvas.replaceChildren(
      svg("svg", { role: "none", viewBox: `0 0 ${drawn} ${height}`, width: drawn, height }, axes(layout), this.#bars.map(({ root }) => root)),
    );
    this.#tips.attach(this.#bars.map(({ root }, index) => ({ element: root, lines: this.#describe(index) })));
  }

  #raise({ fill, tick, base }, index) {
    const { name } = this.#blocks[index];
    const height = HEIGHT * (this.#rates.get(name) ?? 0);
    fill.setAttribute("height", height);
    fill.setAttribute("y", base - height);
    const expected = this.#expected.get(name);
    tick.toggleAttribute("hidden", expected === undefined);
    tick.setAttribute("transform", `translate(0 ${-HEIGHT * (expected ?? 0)})`);
  }

  #describe(index) {
    const block = this.#blocks[index];
    const [rate, expected] = [this.#rates.get(block.name), this.#expected.get(block.name)];
    return [
      title(block),
      rate === undefined ? "no image yet" : `ran for ${percent(rate)} of the images`,
      ...(block.gated || block.within ? [] : ["no gate: always runs"]),
      ...(expected === undefined ? [] : [`${percent(expected)} when it was exported`]),
    ];
  }
}

function drawBar({ block, x, y }, { size, pitch }) {
  const left = x - size / 2;
  const fill = svg("rect", { class: "rate", x: left, width: size });
  const tick = svg("path", { class: "expected", d: `M${left - 2} ${y}h${size + 4}` });
  const root = svg(
    "g",
    { class: block.gated ? "block gated" : "block ungated" },
    svg("rect", { class: "reach", x: x - pitch / 2, y: y - HEIGHT, width: pitch, height: HEIGHT }),
    svg("rect", { class: "track", x: left, y: y - HEIGHT, width: size, height: HEIGHT }),
    fill,
    tick,
  );
  return { root, fill, tick, base: y };
}

function axes({ stem, rows, stages, pitch, size, margin }) {
  const right = margin + pitch + (pitch - size) / 2 - 5;
  return [
    svg("text", { class: "scale", x: right, y: stem.y - HEIGHT + 9 }, "100%"),
    svg("text", { class: "scale", x: right, y: stem.y }, "0"),
    ...stages.map(({ number, x, y }) => svg("text", { x, y }, `stage ${number}`)),
    ...rows.map(({ y, right: end }) => svg("path", { class: "wire", d: `M${margin + pitch} ${y}H${end}` })),
  ];
}
