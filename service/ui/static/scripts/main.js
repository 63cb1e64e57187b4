// The page: images come in and become answers, two of which are compared; below, the service tells how it is doing.

import { describeModel, Sender } from "./api.js";
import { Comparison } from "./comparison.js";
import { Gallery } from "./gallery.js";
import { showLimits, watchIntake } from "./intake.js";
import { Live } from "./live.js";
import { Problem } from "./problems.js";

const AGAIN_MS = 3000;

const [notice, announcement] = [find("notice"), find("announcement")];
const live = new Live(find("live"));
const prepared = prepare();

watchIntake(async (files) => {
  const { gallery, most } = await prepared;
  tell(files.length > most ? `The first ${most} of ${files.length} pictures were taken; so many are sent at a time.` : "");
  gallery.add(files.slice(0, most));
});

/** Everything that needs the model. The page waits for the service where that is not there yet. */
async function prepare() {
  const model = await modelOnceThere();
  find("model-name").textContent = `${model.name} ${model.version}`;
  showLimits(model.limits);
  live.describe(model);
  live.watch();
  const comparison = new Comparison(find("comparison"), model);
  const announce = (text) => (announcement.textContent = text);
  const gallery = new Gallery(find("answers"), model, { sender: new Sender(), comparison, announce });
  return { gallery, most: model.limits.max_images };
}

async function modelOnceThere() {
  for (;;) {
    try {
      const model = await describeModel();
      tell("");
      return model;
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      tell(`${problem.explanation.title}; asking again until it answers.`);
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
  }
}

function tell(text) {
  notice.textContent = text;
  notice.hidden = !text;
}

function find(id) {
  return document.getElementById(id);
}
