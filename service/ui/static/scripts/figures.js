// Numbers as people read them.

const LARGE = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];

/** A share as a percentage; below 10% with one decimal, so that small ones are told apart. */
export function percent(share) {
  const value = share * 100;
  return `${value > 0 && value < 9.95 ? value.toFixed(1) : Math.round(value)}%`;
}

/** A probability, in which 100% is kept for what is certain. */
export function probability(share) {
  if (share > 0.999 && share < 1) return ">99.9%";
  if (share > 0 && share < 0.001) return "<0.1%";
  return `${(share * 100).toFixed(1)}%`;
}

/** Milliseconds with about three digits, seconds from one second on. */
export function duration(milliseconds) {
  if (milliseconds >= 1000) return `${(milliseconds / 1000).toFixed(2)} s`;
  return `${milliseconds.toFixed(milliseconds < 10 ? 1 : 0)} ms`;
}

/** A count with thousands apart. */
export function count(value) {
  return Math.round(value).toLocaleString("en-GB");
}

/** A large number in its SI prefix: 4.7 M. */
export function large(value) {
  const [unit, prefix] = LARGE.find(([least]) => value >= least) ?? [1, ""];
  const scaled = value / unit;
  return `${Number(scaled.toFixed(prefix && scaled < 100 ? 1 : 0))}${prefix && ` ${prefix}`}`;
}

/** Images a second. */
export function rate(value) {
  return value >= 10 || value === 0 ? count(value) : value.toFixed(1);
}

/** A signed number with two decimals and a true minus. */
export function signed(value) {
  return `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;
}

/** Bytes in decimal units, as the service's limits are set. */
export function bytes(value) {
  return `${large(value)}B`;
}
