// What the network answers to one image with each of the model's budgets. No budget is asked for twice.

import { Problem } from "./problems.js";

const AT_ONCE = 2;

/** The budgets that a request can name: of those that spend the same, the service takes the last. */
export function budgetsOf({ budgets }) {
  return budgets.filter(
    (row, at) => row.gate_offset === 0 || budgets.slice(at + 1).every((later) => shareOf(later) > shareOf(row)),
  );
}

/** The answers to one image, by the row of its budget. */
export class BudgetAnswers {
  known = new Map();
  #rows;
  #classify;
  #asked = new Map(); // by row, the promise of an answer to keep; of undefined where there is none

  /**
   * @param {object[]} rows of `budgetsOf`
   * @param {(options: object) => Promise<object>} classify `Sender.classify` of the image
   */
  constructor(rows, classify) {
    this.#rows = rows;
    this.#classify = classify;
  }

  /** Keep an answer that was asked for without a budget. */
  keep(answer) {
    const row = this.#rows.find(({ gate_offset: offset }) => offset === answer.compute.gate_offset);
    if (row && this.#kept(row, answer)) this.#asked.set(row, Promise.resolve(answer));
  }

  /** The answer with a budget; the options are those of `Sender.classify`. */
  async of(row, options) {
    return (await this.#asked.get(row)) ?? this.#ask(row, options);
  }

  /** Ask for all budgets that were not asked for yet, until the service has anything better to do; tell of each. */
  async askAll(onKnown) {
    // The full path goes first, because the others are compared with it.
    const rest = this.#rows.filter((row) => !this.known.has(row)).reverse();
    const askRest = async () => {
      for (let row; (row = rest.shift()); ) {
        if (this.#asked.has(row)) continue;
        const { compute } = await this.#ask(row, { attempts: 1 });
        if (compute.degraded) return;
        onKnown();
      }
    };
    try {
      await Promise.all(Array.from({ length: AT_ONCE }, askRest));
    } catch (error) {
      // Whoever chooses one of these budgets is told what is wrong.
      if (!(error instanceof Problem) && error.name !== "AbortError") throw error;
    } finally {
      rest.length = 0;
    }
  }

  #ask(row, options) {
    const asking = this.#classify({ budget: shareOf(row), ...options });
    this.#asked.set(row, asking.then((answer) => this.#kept(row, answer), () => undefined));
    return asking;
  }

  #kept(row, answer) {
    if (answer.compute.degraded) return undefined; // it has less than this budget
    this.known.set(row, answer);
    return answer;
  }
}

/** What to ask for to get a row: not less than it spends, in a number that is short to read. */
function shareOf({ mac_share: share }) {
  return Math.min(1, Math.ceil(share * 1e4) / 1e4);
}
