// The network before any picture: its blocks, and how many of the images at export went through each.

import { html } from "./elements.js";
import { count } from "./figures.js";
import { flowLegend, legend } from "./legend.js";
import { Network } from "./network.js";

/** Show it in a section. */
export function showOverview(section, model) {
  const { blocks, profile } = model;
  const gated = blocks.filter((block) => block.gated).length;
  const network = new Network(model, "The network; the arrow keys go from block to block");
  if (profile) network.showRates(new Map(blocks.map(({ name }, at) => [name, profile.rates[at]])));
  const average = profile && profile.rates.reduce((sum, rate) => sum + rate, 0);
  section.replaceChildren(
    html(
      "header",
      {},
      html("h2", { id: "overview-title" }, `The ${count(blocks.length)} blocks of the network`),
      html("p", {}, `${count(gated)} with a gate that decides whether it runs`),
      profile && html("p", {}, `on average ${average.toFixed(1)} of them ran, for ${count(profile.images)} images when the model was exported`),
    ),
    html("div", { class: "panel" }, network.element, profile ? flowLegend() : legend(model)),
  );
  network.fit();
}
