// What the signs of a network's drawing mean.

import { html, svg } from "./elements.js";

const BOX = { x: 3, y: 3, width: 14, height: 14, rx: 3 };
const CORE = { class: "core", x: 7.5, y: 7.5, width: 5, height: 5, rx: 1 };
const GATE = { class: "gate", d: "M6 10l4-4 4 4-4 4z" };

/** A list of the signs. */
export function legend() {
  return html(
    "ul",
    { class: "legend network", "aria-label": "Legend" },
    sign("executed gated", "executed", svg("rect", { class: "body", ...BOX })),
    sign("skipped gated", "skipped: its shortcut is taken", svg("rect", { class: "body", ...BOX })),
    sign("executed ungated", "no gate: always runs", svg("rect", { class: "body", ...BOX }), svg("rect", CORE)),
    sign("executed", "gate open", svg("path", GATE)),
    sign("skipped", "gate closed", svg("path", GATE)),
    sign(
      "executed",
      "gate probability, and from where it opens",
      svg("rect", { class: "track", x: 2, y: 3, width: 16, height: 14 }),
      svg("rect", { class: "probability", x: 2, y: 7, width: 16, height: 10 }),
      svg("path", { class: "threshold", d: "M0 10h20" }),
    ),
  );
}

function sign(kind, meaning, ...parts) {
  return html("li", {}, svg("svg", { viewBox: "0 0 20 20", width: 16, height: 16, class: kind, "aria-hidden": "true" }, ...parts), meaning);
}
