// What is left of a picture for the network: its middle, shrunk to the pixels of the network's input.

import { html } from "./elements.js";

let last = Promise.resolve(); // one at a time: a large picture takes much memory while it is shrunk

/**
 * A canvas with a picture as the network sees it; empty where the browser cannot show the picture's format.
 *
 * @param {Blob | Promise<Blob>} file
 * @param {string} name for those who cannot see it
 * @param {{preprocessing: {resize: number, crop: number}}} model
 */
export function seen(file, name, { preprocessing }) {
  const { crop } = preprocessing;
  const canvas = html("canvas", { width: crop, height: crop, class: "seen", role: "img", "aria-label": `${name} as the network sees it` });
  last = last.then(async () => shrink(await file, canvas, preprocessing)).catch(() => canvas.classList.add("unshown"));
  return canvas;
}

/** The service's own preprocessing, as far as a browser can: it filters a little differently. */
async function shrink(file, canvas, { resize, crop }) {
  const whole = await createImageBitmap(file);
  const { width, height } = whole;
  const side = (crop * Math.min(width, height)) / resize;
  const context = canvas.getContext("2d");
  context.fillStyle = "white"; // under what is transparent
  context.fillRect(0, 0, crop, crop);
  context.imageSmoothingQuality = "high"; // to resize the bitmap itself would leave out pixels of a large picture
  context.drawImage(whole, (width - side) / 2, (height - side) / 2, side, side, 0, 0, crop, crop);
  whole.close();
}
