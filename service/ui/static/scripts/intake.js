// Where images come in: chosen, dropped anywhere, pasted, or one of the samples.

import { html } from "./elements.js";
import { bytes } from "./figures.js";

const SAMPLES = ["cat", "horse", "frog", "ship", "airplane", "automobile", "truck"];

/** Calls `take` with the files of every way in. */
export function watchIntake(take) {
  const chooser = document.querySelector("#chooser");
  document.querySelector("#choose").addEventListener("click", () => chooser.click());
  chooser.addEventListener("change", () => {
    take([...chooser.files]);
    chooser.value = ""; // the same file may be chosen again
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData?.files.length) take([...event.clipboardData.files]);
  });
  watchDrops(take);
  document.querySelector("#samples").append(...SAMPLES.map((name) => sample(name, take)));
}

/** Tell what the service accepts. */
export function showLimits({ formats, max_bytes: most }) {
  document.querySelector("#limits").textContent = `${formats.join(", ")}; up to ${bytes(most)}`;
}

function watchDrops(take) {
  const target = document.documentElement;
  const dragging = (event) => event.dataTransfer?.types.includes("Files");
  let depth = 0; // every element the pointer enters and leaves tells so
  target.addEventListener("dragenter", (event) => {
    if (!dragging(event)) return;
    depth += 1;
    target.classList.add("dragging");
  });
  target.addEventListener("dragleave", (event) => {
    if (!dragging(event)) return;
    depth -= 1;
    if (depth <= 0) target.classList.remove("dragging");
  });
  target.addEventListener("dragover", (event) => {
    if (dragging(event)) event.preventDefault();
  });
  target.addEventListener("drop", (event) => {
    if (!dragging(event)) return;
    event.preventDefault();
    depth = 0;
    target.classList.remove("dragging");
    take([...event.dataTransfer.files]);
  });
}

function sample(name, take) {
  const url = `ui/samples/${name}.webp`;
  const send = async () => {
    const data = await (await fetch(url)).blob();
    take([new File([data], `${name}.webp`, { type: "image/webp" })]);
  };
  const image = html("img", { src: url, alt: "", width: 64, height: 64 });
  return html("li", {}, html("button", { type: "button", title: name, "aria-label": `Sample: ${name}`, onclick: send }, image));
}
