// Prometheus's text format, as far as the page reads it, and what histograms tell.

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;
const ESCAPES = { "\\n": "\n", '\\"': '"', "\\\\": "\\" };

/** The samples of one reading of /metrics. */
export class Exposition {
  #samples;

  /**
   * @param {string} text
   * @param {Object<string, string>} only labels; a sample that has one of them with another value is left out
   */
  constructor(text, only = {}) {
    const lines = text.split("\n").filter((line) => line && !line.startsWith("#"));
    const samples = lines.map((line) => LINE.exec(line)).filter(Boolean).map(([, name, labels = "", value]) => ({
      name,
      labels: labelsOf(labels),
      value: value === "+Inf" ? Infinity : Number(value),
    }));
    const meant = ({ labels }) => Object.entries(only).every(([label, value]) => (labels[label] ?? value) === value);
    this.#samples = Map.groupBy(samples.filter(meant), ({ name }) => name);
  }

  /** All samples of a name, of those whose labels are among the ones given. */
  samples(name, allowed = {}) {
    const wanted = Object.entries(allowed);
    return (this.#samples.get(name) ?? []).filter(({ labels }) =>
      wanted.every(([label, values]) => values.includes(labels[label])),
    );
  }

  /** The sum of those samples; 0 where there are none. */
  sum(name, allowed) {
    return this.samples(name, allowed).reduce((sum, { value }) => sum + value, 0);
  }

  /** A histogram's cumulative counts by upper bound, summed over the series allowed. */
  histogram(name, allowed) {
    const counts = new Map();
    for (const { labels, value } of this.samples(`${name}_bucket`, allowed)) {
      const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
      counts.set(bound, (counts.get(bound) ?? 0) + value);
    }
    return counts;
  }
}

/** What a histogram has counted since an earlier reading of it. */
export function since(now, before) {
  return new Map([...now].map(([bound, count]) => [bound, count - (before.get(bound) ?? 0)]));
}

/** The observations in a histogram. */
export function total(histogram) {
  return histogram.get(Infinity) ?? 0;
}

/**
 * A quantile of a histogram, linear within its bucket as Prometheus does it; the largest finite bound where it lies
 * beyond that, null where nothing was observed.
 */
export function quantile(histogram, share) {
  const bounds = [...histogram.keys()].sort((a, b) => a - b);
  const rank = share * total(histogram);
  if (!rank) return null;
  const at = bounds.findIndex((bound) => histogram.get(bound) >= rank);
  const [lower, below] = at ? [bounds[at - 1], histogram.get(bounds[at - 1])] : [0, 0];
  if (bounds[at] === Infinity) return lower;
  return lower + ((bounds[at] - lower) * (rank - below)) / (histogram.get(bounds[at]) - below);
}

function labelsOf(text) {
  const pairs = [...text.matchAll(LABEL)].map(([, name, value]) => [name, value.replace(/\\[n"\\]/g, (code) => ESCAPES[code])]);
  return Object.fromEntries(pairs);
}
