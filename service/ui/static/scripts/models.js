// Which of the service's models the page asks: chosen where there are several, and kept in the page's address.

import { html } from "./elements.js";

const PARAMETER = "model";

/**
 * The model that the page's address names, else the default one.
 *
 * @returns {{model: object, missing: string | null}} `missing` is what the address names and is not there
 */
export function chosenModel(models) {
  const named = new URLSearchParams(location.search).get(PARAMETER);
  const found = models.find((model) => idOf(model) === named);
  return { model: found ?? models.find((model) => model.default) ?? models[0], missing: found ? null : named };
}

/** Keep a choice in the page's address, so that it can be linked to. */
export function keepChoice({ name, version }) {
  history.replaceState(null, "", `?${PARAMETER}=${encodeURIComponent(name)}/${encodeURIComponent(version)}`);
}

/**
 * Name the model; where there are several, let another one be chosen.
 *
 * @param {(model: object) => Promise<object>} choose takes what is chosen, and tells which model answers from now on
 */
export function showModels(place, models, chosen, choose) {
  if (models.length === 1) {
    place.textContent = `${chosen.name} ${chosen.version}`;
    return;
  }
  const options = models.map((model) =>
    html("option", { selected: model === chosen }, `${model.name} ${model.version}${model.ready ? "" : " (not ready)"}`),
  );
  const select = html("select", { id: "model" }, ...options);
  select.addEventListener("change", async () => {
    select.selectedIndex = models.indexOf(await choose(models[select.selectedIndex]));
  });
  place.replaceChildren(html("label", { for: "model" }, "Model"), select);
}

function idOf({ name, version }) {
  return `${name}/${version}`;
}
