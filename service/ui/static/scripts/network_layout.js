// Where everything of a network goes: one row where it fits, else a row for each stage, long stages in equal parts.

const WIDEST_PITCH = 60;
const NARROWEST_PITCH = 27;
const STAGE_GAP = 0.35; // in pitches
const TURN = 7; // room beside the rows for the line from one to the next, in pixels
const LABEL = 18;
const ROW_GAP = 12;
const BRIM = 2; // under the last row, for the line of a frame

/** Less wide than this no network can be drawn: stem, a block and the classifier. */
export const NARROWEST = 3 * NARROWEST_PITCH + 2 * TURN;

/**
 * Positions in pixels of the parts of a network drawn `width` wide.
 *
 * The stem has the first column and the classifier the last, so that blocks of all rows stand in the same columns.
 *
 * @param {{name: string, stage: number}[]} blocks in order
 * @param {number} width
 * @param {(size: number) => {above: number, below: number}} room over and under the middle of a block of that size
 */
export function layOut(blocks, width, room) {
  const stages = [...Map.groupBy(blocks, (block) => block.stage).values()];
  const columns = blocks.length + 2 + STAGE_GAP * (stages.length - 1);
  const single = width / columns >= NARROWEST_PITCH;
  const margin = single ? 0 : TURN;
  const rows = single ? [stages] : inRows(stages, Math.floor((width - 2 * margin) / NARROWEST_PITCH) - 2);
  const longest = single ? columns : Math.max(...rows.map(([part]) => part.length)) + 2;
  const pitch = Math.min(WIDEST_PITCH, (width - 2 * margin) / longest);
  return place(rows, pitch, margin, room);
}

function inRows(stages, most) {
  return stages.flatMap((stage) => {
    const parts = Math.ceil(stage.length / Math.max(1, most));
    const starts = Array.from({ length: parts + 1 }, (_, part) => Math.round((part * stage.length) / parts));
    return starts.slice(1).map((end, part) => [stage.slice(starts[part], end)]);
  });
}

function place(rows, pitch, margin, room) {
  const size = Math.round(Math.min(22, pitch * 0.5));
  const { above, below } = room(size);
  const placed = { pitch, size, above, below, margin, blocks: [], stages: [], rows: [] };
  let top = 0;
  let stage = null;
  for (const row of rows) {
    const opens = row[0][0].stage !== stage;
    const y = top + (opens ? LABEL : 2) + above;
    let x = margin + pitch;
    for (const part of row) {
      if (x > margin + pitch) x += pitch * STAGE_GAP;
      if (part[0].stage !== stage) placed.stages.push({ number: part[0].stage, x: x + (pitch - size) / 2, y: top + 11 });
      stage = part[0].stage;
      for (const block of part) {
        placed.blocks.push({ block, x: x + pitch / 2, y, row: placed.rows.length });
        x += pitch;
      }
    }
    placed.rows.push({ y, right: x, turn: top - ROW_GAP / 2 });
    top = y + below + ROW_GAP;
  }
  const last = placed.rows.at(-1);
  placed.stem = { x: margin + pitch / 2, y: placed.rows[0].y };
  placed.classifier = { x: last.right + pitch / 2, y: last.y };
  placed.width = Math.max(...placed.rows.map(({ right }) => right), last.right + pitch) + margin;
  placed.height = top - ROW_GAP + BRIM;
  return placed;
}
