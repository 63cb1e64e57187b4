// What the model can recognise, and at what size it sees.

import { html } from "./elements.js";
import { count } from "./figures.js";
import { addressOf, fetchSample, samplesOf } from "./samples.js";
import { seen } from "./seen.js";

const MOST = 24; // names that are shown without being asked for

/** Show it in a section. */
export function showKnowledge(section, model) {
  const { labels, input_size: size } = model;
  const known = labels.length > MOST ? search(labels) : list(labels);
  section.replaceChildren(
    html("header", {}, html("h2", { id: "knowledge-title" }, "What it knows"), html("p", {}, `${count(labels.length)} kinds of things, and no others`)),
    html(
      "div",
      { class: "facts" },
      html("div", { class: "kinds" }, html("p", {}, "Whatever it is shown, it names one of these, even if nothing of the kind is there."), known),
      html(
        "div",
        { class: "sight" },
        html("p", {}, html("strong", {}, `It sees ${size}×${size} pixels.`), " Every picture is cut to a square and shrunk to that."),
        example(model),
      ),
    ),
  );
  section.hidden = false;
}

/** The classes in a few words, to stand beside a prediction. */
export function knowledgeInShort({ labels }) {
  const names = labels.length > MOST ? [] : [": ", labels.join(", ")];
  return html("p", { class: "knows" }, "Knows only ", html("a", { href: "#knowledge" }, `${count(labels.length)} kinds of things`), ...names);
}

function list(labels) {
  return html("ul", { "aria-label": "Kinds of things" }, ...labels.map((label) => html("li", {}, label)));
}

function search(labels) {
  const names = labels.map((label) => html("li", {}, label));
  const found = html("p", { role: "status" }, `All ${count(labels.length)}`);
  const field = html("input", { type: "search", id: "kinds-search", autocomplete: "off", spellcheck: "false" });
  field.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase();
    names.forEach((name) => (name.hidden = !name.textContent.toLowerCase().includes(wanted)));
    const left = names.filter((name) => !name.hidden).length;
    found.textContent = wanted ? `${count(left)} of ${count(labels.length)}` : `All ${count(labels.length)}`;
  });
  const all = html("ul", { tabindex: 0, "aria-label": "Kinds of things" }, ...names); // scrolled with the keyboard too
  return html("div", { class: "search" }, html("label", { for: "kinds-search" }, "Does it know …?"), field, found, all);
}

function example(model) {
  const [name] = samplesOf(model);
  if (!name) return null;
  return html(
    "div",
    { class: "example" },
    html("img", { src: addressOf(name), alt: `${name}, the sample`, width: 96, height: 96 }),
    html("span", { "aria-hidden": "true" }, "→"),
    seen(fetchSample(name), `${name}, the sample,`, model),
  );
}
