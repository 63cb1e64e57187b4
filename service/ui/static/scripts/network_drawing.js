// A network as an SVG: the stem, every block with its shortcut and gate, the classifier, and the path that was taken.

import { svg } from "./elements.js";
import { percent } from "./figures.js";

const BAR = 16;

/** The room a block of a size needs: for its shortcut above, and its gate's probability below. */
export function room(size) {
  return { above: size / 2 + 10, below: size / 2 + 7 + BAR + 3 };
}

/**
 * Draw a network.
 *
 * @param {object} layout of `layOut`
 * @param {Map<string, object> | null} runs of an answer by block name; null while there is none
 * @param {number} threshold probability above which a gate is open
 * @param {Set<string>} marked names of blocks to mark
 * @returns {{root: SVGElement, blocks: SVGElement[]}} the drawing, and its blocks in order
 */
export function draw(layout, runs, threshold, marked) {
  const blocks = layout.blocks.map((at, index) => drawBlock(at, index, layout, runs?.get(at.block.name), threshold));
  return assemble(layout, blocks, [
    layout.blocks.filter(({ block }) => marked.has(block.name)).map((at) => mark(at, layout)),
    svg("path", { class: "wire", d: wires(layout) }),
    runs && svg("path", { class: "also", d: shortcutsBesideExecuted(layout, runs) }),
    runs && svg("path", { class: "taken", pathLength: 1, d: taken(layout, runs) }),
    end(layout.stem, layout, Boolean(runs)),
    end(layout.classifier, layout, Boolean(runs)),
    captions(layout, "gate"),
  ]);
}

/**
 * Draw a network with what many images took of it: the more of them went along a line, the wider it is.
 *
 * @param {object} layout of `layOut`
 * @param {Map<string, number>} rates share of the images that each block ran for, by name
 * @returns {{root: SVGElement, blocks: SVGElement[]}} as `draw` does
 */
export function drawFlow(layout, rates) {
  const blocks = layout.blocks.map((at) => drawShare(at, layout, rates.get(at.block.name)));
  const flows = layout.blocks.flatMap((at) => {
    const rate = rates.get(at.block.name);
    return [flow(through(at, layout), rate), ...(rate < 1 ? [flow(around(at, layout), 1 - rate)] : [])];
  });
  return assemble(layout, blocks, [
    flow(connections(layout), 1),
    ...flows,
    end(layout.stem, layout, true),
    end(layout.classifier, layout, true),
    captions(layout, "ran"),
  ]);
}

function assemble({ width, height }, blocks, parts) {
  const root = svg("svg", { role: "none", viewBox: `0 0 ${width} ${height}`, width, height }, ...parts.flat(), ...blocks);
  return { root, blocks };
}

function flow(d, share) {
  return svg("path", { class: "flow", d, "--share": share });
}

function drawShare({ block, x, y }, { pitch, size, above, below }, rate) {
  const filled = size * rate;
  const share = { x: x - size / 2, y: y + size / 2 - filled, width: size, height: filled, rx: Math.min(3, filled / 2) };
  const always = !block.gated && !block.within;
  return svg(
    "g",
    { class: always ? "block ungated executed" : "block" },
    svg("rect", { class: "reach", x: x - pitch / 2, y: y - above, width: pitch, height: above + below }),
    square("body", x, y, size, 3),
    always ? square("core", x, y, size - 9, 1) : svg("rect", { class: "share", ...share }),
    block.gated && diamond(x - pitch / 2, y, 3.6),
    svg("text", { class: "centred", x, y: y + size / 2 + 7 + BAR - 3 }, percent(rate)),
  );
}

function drawBlock({ block, x, y }, index, { pitch, size, above, below, blocks }, run, threshold) {
  const kind = [
    "block",
    block.gated ? "gated" : "ungated",
    run && (run.executed ? "executed" : "skipped"),
  ];
  const parts = [
    svg("rect", { class: "reach", x: x - pitch / 2, y: y - above, width: pitch, height: above + below }),
    square("body", x, y, size, 3),
    block.gated ? diamond(x - pitch / 2, y, 3.6) : square("core", x, y, size - 9, 1),
    block.shortcut_macs > 0 && square("projection", x, y - above, 5.5, 1),
    ...(block.gated ? probabilityBar(x, y + size / 2, size, run, threshold) : []),
  ];
  return svg("g", { class: kind.filter(Boolean).join(" "), "--place": index / blocks.length }, ...parts.filter(Boolean));
}

function square(name, x, y, size, rx) {
  return svg("rect", { class: name, x: x - size / 2, y: y - size / 2, width: size, height: size, rx });
}

function diamond(x, y, r) {
  return svg("path", { class: "gate", d: `M${x - r} ${y}L${x} ${y - r}L${x + r} ${y}L${x} ${y + r}Z` });
}

function probabilityBar(x, bottom, size, run, threshold) {
  const [left, top] = [x - size / 2, bottom + 7];
  const height = BAR * (run?.gate_probability ?? 0);
  const level = top + BAR * (1 - threshold);
  return [
    svg("rect", { class: "track", x: left, y: top, width: size, height: BAR }),
    svg("rect", { class: "probability", x: left, y: top + BAR - height, width: size, height }),
    svg("path", { class: "threshold", d: `M${left - 1.5} ${level}h${size + 3}` }),
  ];
}

function mark({ x, y }, { pitch, above, below }) {
  const width = pitch - 7;
  return svg("rect", { class: "mark", x: x - width / 2, y: y - above - 4, width, height: above + below + 4, rx: 4 });
}

function end({ x, y }, { size }, lit) {
  const [width, height] = [7, size + 6];
  return svg("rect", { class: lit ? "end lit" : "end", x: x - width / 2, y: y - height / 2, width, height, rx: 2 });
}

function captions({ stem, classifier, stages, size, above }, below) {
  const firstLine = stages[0].y;
  return [
    svg("text", { x: stem.x, y: firstLine, class: "centred" }, "stem"),
    svg("text", { x: classifier.x, y: classifier.y - above - 7, class: "centred" }, "out"),
    svg("text", { x: stem.x, y: stem.y + size / 2 + 7 + BAR - 3, class: "centred" }, below),
    ...stages.map(({ number, x, y }) => svg("text", { x, y }, `stage ${number}`)),
  ];
}

// Lines

function through({ x, y }, { pitch }) {
  return `M${x - pitch / 2} ${y}h${pitch}`;
}

function around({ x, y }, { pitch, above }) {
  const [left, right, top] = [x - pitch / 2, x + pitch / 2, y - above];
  return `M${left} ${y}C${left + pitch * 0.24} ${y} ${left + pitch * 0.1} ${top} ${x} ${top}S${right - pitch * 0.24} ${y} ${right} ${y}`;
}

function wires(layout) {
  return layout.blocks.map((at) => through(at, layout) + around(at, layout)).join("") + connections(layout);
}

function shortcutsBesideExecuted(layout, runs) {
  const executed = layout.blocks.filter(({ block }) => runs.get(block.name).executed);
  return executed.map((at) => around(at, layout)).join("");
}

/** The lines that every image takes: into the first block, from stage to stage and row to row, into the classifier. */
function connections(layout) {
  const ends = [layout.stem, ...layout.blocks, layout.classifier];
  return ends.slice(1).map((at, index) => connection(ends[index], at, layout)).join("");
}

function connection(from, to, { pitch, stem, classifier, rows, margin }) {
  const [start, stop] = [from === stem ? from.x : from.x + pitch / 2, to === classifier ? to.x : to.x - pitch / 2];
  if (from.y === to.y) return `M${start} ${from.y}H${stop}`;
  // Down beside this row, back under it, and down to the next one, with round corners.
  const r = Math.min(margin, 6);
  const edge = rows[from.row].right + margin - 1;
  const middle = rows[to.row].turn;
  return (
    `M${start} ${from.y}H${edge - r}q${r} 0 ${r} ${r}V${middle - r}q0 ${r} ${-r} ${r}` +
    `H${1 + r}q${-r} 0 ${-r} ${r}V${to.y - r}q0 ${r} ${r} ${r}H${stop}`
  );
}

/** One line in the order of the network, so that it can be drawn from its beginning to its end. */
function taken(layout, runs) {
  const ends = [layout.stem, ...layout.blocks, layout.classifier];
  const lines = ends.slice(1).map((at, index) => {
    const into = connection(ends[index], at, layout);
    if (at === layout.classifier) return into;
    return into + (runs.get(at.block.name).executed ? through(at, layout) : around(at, layout));
  });
  // Each begins where the one before ended: lifted pens would be gaps to the animation.
  return lines.join("").replaceAll(/(?<!^)M[\d.-]+ [\d.-]+/g, "");
}
