// What the marks of the drawings mean.

import { html, svg } from "./elements.js";
import { count } from "./figures.js";

const BOX = { x: 3, y: 3, width: 14, height: 14, rx: 3 };
const BODY = svg("rect", { class: "body", ...BOX });
const CORE = svg("rect", { class: "core", x: 7.5, y: 7.5, width: 5, height: 5, rx: 1 });
const GATE = svg("path", { class: "gate", d: "M6 10l4-4 4 4-4 4z" });
const END = svg("rect", { class: "end lit", x: 7, y: 1, width: 6, height: 18, rx: 2 });
const ARCH = "M1 15C6 15 4 5 10 5S14 15 19 15";

/** How to read the path of an image, in a section that can be folded. */
export function showReading(section, model) {
  // On a small screen it would push the answers out of sight; later it stays as the visitor left it.
  if (!section.hasChildNodes()) section.open = matchMedia("(min-width: 700px)").matches;
  section.replaceChildren(html("summary", {}, "How to read the drawings"), legend(model), margins(model) ?? "");
}

/** The signs of a path. */
export function legend({ blocks }) {
  const gated = blocks.some((block) => block.gated);
  const signs = [
    sign("executed gated", "block that ran", BODY),
    gated && sign("skipped gated", "block that was skipped", BODY),
    sign("executed ungated", "block without a gate", BODY, CORE),
    gated && sign("executed", "gate open", GATE),
    gated && sign("skipped", "gate closed", GATE),
    gated && sign("executed", "probability of the gate, which opens above the line", ...probability()),
    sign("", "the path of the picture", svg("path", { class: "taken", d: ARCH })),
    sign("", "shortcut, added to what the block computes", svg("path", { class: "also", d: ARCH })),
    blocks.some((block) => block.shortcut_macs > 0) &&
      sign("executed", "shortcut that computes", svg("path", { class: "also", d: ARCH }), svg("rect", { class: "projection", x: 7, y: 2, width: 6, height: 6, rx: 1 })),
    sign("", "first and last layer, which always run", END),
    gated && sign("", "differs between two pictures", svg("rect", { class: "mark", x: 3, y: 1, width: 14, height: 18, rx: 3 })),
  ];
  return list(signs);
}

/** The signs of the network before any picture. */
export function flowLegend() {
  return list([
    sign("", "the wider a line, the more of the images went along it", svg("path", { class: "flow", d: "M0 14H20", "--share": 0.8 }), svg("path", { class: "flow", d: "M0 5H20", "--share": 0.1 })),
    sign("gated", "block, filled to the share of the images it ran for", BODY, svg("rect", { class: "share", x: 3, y: 10, width: 14, height: 7, rx: 3 })),
    sign("executed ungated", "block that ran for every image: it has no gate", BODY, CORE),
    sign("", "gate: lets the block run, or sends the image around it", GATE),
    sign("", "first and last layer", END),
  ]);
}

/** The signs of the chart of execution rates. */
export function rateLegend(profile) {
  const track = () => svg("rect", { class: "track", x: 3, y: 1, width: 14, height: 18 });
  return list(
    [
      sign("gated", "share of the images it ran for", track(), svg("rect", { class: "rate", x: 3, y: 9, width: 14, height: 10 })),
      sign("ungated", "the same of a block without a gate", svg("rect", { class: "rate", x: 3.75, y: 1.75, width: 12.5, height: 16.5 })),
      profile && sign("", `share when the model was exported, of ${count(profile.images)} images`, track(), svg("path", { class: "expected", d: "M1 8h18" })),
    ],
    "rates",
  );
}

function margins({ blocks, gate_threshold: threshold }) {
  if (!blocks.some((block) => block.gated)) return null;
  return html(
    "p",
    { class: "hint" },
    "Point at a block, or go to it with the Tab and arrow keys: it tells how likely its gate was to let it run, and its ",
    html("em", {}, "margin"),
    `, which is how clearly it decided. Above ${threshold} the gate is open, below it is closed; the further away, the clearer.`,
  );
}

function probability() {
  return [
    svg("rect", { class: "track", x: 2, y: 3, width: 16, height: 14 }),
    svg("rect", { class: "probability", x: 2, y: 7, width: 16, height: 10 }),
    svg("path", { class: "threshold", d: "M0 10h20" }),
  ];
}

function list(signs, kind = "") {
  return html("ul", { class: `legend network ${kind}`, "aria-label": "Legend" }, ...signs);
}

function sign(kind, meaning, ...parts) {
  const copies = parts.map((part) => part.cloneNode(true));
  return html("li", {}, svg("svg", { viewBox: "0 0 20 20", width: 16, height: 16, class: kind, "aria-hidden": "true" }, ...copies), meaning);
}
