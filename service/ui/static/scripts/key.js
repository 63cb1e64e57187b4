// The API key, where the service asks for one: kept for this tab only, sent as a header, never part of an address.

const NAME = "api-key";
const UNKNOWN = "The service does not know this key. Check that it is all there, or ask whoever gave it to you.";

class Key {
  #value = kept();
  #form = document.querySelector("#key");
  #field = document.querySelector("#key-field");
  #message = document.querySelector("#key-message");
  #change = document.querySelector("#key-change");
  #waiting = null;

  constructor() {
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#use(this.#field.value.trim());
    });
    this.#change.addEventListener("click", () => {
      this.#show(this.#form.hidden);
      if (!this.#form.hidden) this.#field.focus();
    });
  }

  /** The key to send; null while none was asked for. */
  get value() {
    return this.#value;
  }

  /** Ask for another key than the one that was refused, and wait until there is one. */
  async otherThan(refused) {
    if (this.#value !== refused) return; // it was given while the request was under way
    this.#complain(refused === null ? "" : UNKNOWN);
    this.#show(true);
    if (document.activeElement === document.body) this.#field.focus();
    this.#waiting ??= Promise.withResolvers();
    await this.#waiting.promise;
  }

  /** A request with this key, or without one, was answered. */
  accept(value) {
    if (value === null || value !== this.#value || !this.#change.hidden) return;
    this.#change.hidden = false;
    if (this.#form.contains(document.activeElement)) document.querySelector("#choose").focus();
    this.#complain("");
    this.#field.value = "";
    this.#show(false);
  }

  #use(value) {
    this.#value = value;
    this.#change.hidden = true; // until it is known to be right
    keep(value);
    this.#waiting?.resolve();
    this.#waiting = null;
  }

  #complain(text) {
    this.#message.textContent = text;
    this.#field.setAttribute("aria-invalid", String(text !== ""));
  }

  #show(shown) {
    this.#form.hidden = !shown;
    this.#change.setAttribute("aria-expanded", String(shown));
  }
}

function kept() {
  try {
    return sessionStorage.getItem(NAME);
  } catch {
    return null; // storage is switched off: the key lasts as long as the page
  }
}

function keep(value) {
  try {
    sessionStorage.setItem(NAME, value);
  } catch {
    // as above
  }
}

/** The one key of the page. */
export const key = new Key();
