// Where images come in: chosen, dropped anywhere, or pasted.

import { bytes, large } from "./figures.js";

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
}

/** Tell what the service accepts. */
export function showLimits({ formats, max_bytes: most, max_pixels: pixels }) {
  document.querySelector("#limits").textContent = `${formats.join(", ")}; up to ${bytes(most)} and ${large(pixels)} pixels`;
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
