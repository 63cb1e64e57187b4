// The page: a model is chosen, images come in and become its answers; below, the service tells how it is doing.

import { describeModel, listModels, Sender } from "./api.js";
import { Comparison } from "./comparison.js";
import { Gallery } from "./gallery.js";
import { showLimits, watchIntake } from "./intake.js";
import { showKnowledge } from "./knowledge.js";
import { showReading } from "./legend.js";
import { Live } from "./live.js";
import { chosenModel, keepChoice, showModels } from "./models.js";
import { showOverview } from "./overview.js";
import { Problem } from "./problems.js";
import { showSamples } from "./samples.js";

const AGAIN_MS = 3000;

const [notice, announcement] = [find("notice"), find("announcement")];
const live = new Live(find("live"));
const gallery = new Gallery(find("answers"), {
  sender: new Sender(),
  comparison: new Comparison(find("comparison")),
  announce: (text) => (announcement.textContent = text),
  onCount: (images) => {
    find("overview").hidden = images > 0;
    find("reading").hidden = images === 0;
  },
});
let most; // images at a time
let wanted; // the model that was chosen last, of those listed

const prepared = prepare();
watchIntake(take);

async function take(files) {
  await prepared;
  tell(files.length > most ? `The first ${most} of ${files.length} pictures were taken; so many are sent at a time.` : "");
  gallery.add(files.slice(0, most));
}

/** Everything that needs the model. The page waits for the service where that is not there yet. */
async function prepare() {
  const models = await onceThere(listModels);
  const { model, missing } = chosenModel(models);
  wanted = model;
  const described = await onceThere(() => describeModel(model));
  showModels(find("model-name"), models, model, choose);
  show(described);
  if (missing) tell(`There is no model ${missing} here. The pictures go to ${model.name} ${model.version}.`);
  live.watch();
}

/** Let another model answer, for the images that are there too; tells which one does. */
async function choose(model) {
  const before = wanted;
  wanted = model;
  try {
    const described = await describeModel(model);
    if (wanted !== model) return wanted;
    keepChoice(model);
    tell("");
    show(described);
    announcement.textContent = `The pictures go to ${model.name} ${model.version}.`;
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    tell(`${model.name} ${model.version} cannot be asked. ${problem.explanation.title}. ${problem.explanation.advice}`);
    if (wanted === model) wanted = before;
  }
  return wanted;
}

function show(model) {
  most = model.limits.max_images;
  gallery.ask(model);
  showLimits(model.limits);
  showSamples(find("samples"), model, take);
  showKnowledge(find("knowledge"), model);
  showOverview(find("overview"), model);
  showReading(find("reading"), model);
  live.describe(model);
}

async function onceThere(ask) {
  for (;;) {
    try {
      const answer = await ask();
      tell("");
      return answer;
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
