// Pictures to try: those of things that the model knows.

import { html } from "./elements.js";

const SAMPLES = ["cat", "horse", "frog", "ship", "airplane", "automobile", "truck"];

/** The samples that fit a model, each named as its class. */
export function samplesOf({ labels }) {
  return SAMPLES.filter((name) => labels.includes(name));
}

/** A sample's picture as a file. */
export async function fetchSample(name) {
  const data = await (await fetch(addressOf(name))).blob();
  return new File([data], `${name}.webp`, { type: data.type });
}

/** Where a sample's picture is. */
export function addressOf(name) {
  return `ui/samples/${name}.webp`;
}

/** Show the samples that fit a model in a section, which is hidden where none does. */
export function showSamples(section, model, take) {
  const names = samplesOf(model);
  section.hidden = !names.length;
  section.querySelector("ul").replaceChildren(...names.map((name) => sample(name, take)));
}

function sample(name, take) {
  const image = html("img", { src: addressOf(name), alt: "", width: 64, height: 64 });
  const send = async () => take([await fetchSample(name)]);
  return html("li", {}, html("button", { type: "button", title: name, "aria-label": `Sample: ${name}`, onclick: send }, image));
}
