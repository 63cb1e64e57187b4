// What went wrong, in words for the person at the page: one entry for every error type of the API.

/** An error of the API, or of reaching it. */
export class Problem extends Error {
  /**
   * @param {string} type of the API, or "unreadable", "unreachable" or "unexpected"
   * @param {string} message as the service tells it
   * @param {{status?: number, retryAfterS?: number, reference?: string}} details `reference` is how the service's log
   *   names the request
   */
  constructor(type, message, { status, retryAfterS, reference } = {}) {
    super(message);
    this.type = type;
    this.status = status;
    this.retryAfterS = retryAfterS;
    this.reference = reference;
  }

  /** What to show: a title, what to do about it, and whether sending the same again may help. */
  get explanation() {
    const [title, advice, retriable = false] = EXPLANATIONS[this.type] ?? OTHER;
    const blame = this.status >= 500 && this.reference; // whoever runs the service can find out what happened
    return { title, advice: blame ? `${advice} To whoever runs the service it is known as ${blame}.` : advice, retriable };
  }
}

const KINDS = "What it reads, and how large, is written where pictures are chosen.";
const RELOAD = "Reload the page: the service may have been renewed since it was opened.";
const OTHER = ["The service gave an answer that this page does not understand", "Try again; reload the page if it stays so.", true];

const EXPLANATIONS = {
  empty_image: ["The file is empty", "Choose another one."],
  malformed_request: ["The picture arrived in a form that the service could not read", RELOAD],
  unauthorized: ["The service asks for an API key", "Enter it at the top of the page."],
  forbidden: ["Your API key is not allowed to do this", "Ask whoever gave it to you, or use another one."],
  unknown_model: ["The model is no longer there", RELOAD],
  model_loading: ["The model is just being loaded", "Try again in a moment.", true],
  model_not_allowed: ["Your API key is not for this model", "Choose another model, or use another key."],
  not_found: ["The service has nothing at the place that this page asks", RELOAD],
  method_not_allowed: ["The service no longer takes pictures this way", RELOAD],
  upload_timeout: ["The upload took too long", "The connection may be slow. Try again, or send a smaller picture.", true],
  image_too_large: ["The file is too large", `Send a smaller one; the network looks at few pixels anyway. ${KINDS}`],
  too_many_pixels: ["The picture has too many pixels", `Scale it down; the network looks at few of them anyway. ${KINDS}`],
  not_an_image: ["The service cannot read this as a picture", `Save it anew as a JPEG or PNG. ${KINDS}`],
  unsupported_encoding: ["The picture arrived compressed once more than it should be", RELOAD],
  unsupported_media_type: ["This is not a picture", `Choose another file. ${KINDS}`],
  unsupported_image: ["The service cannot read pictures of this kind", `Save it anew as a JPEG or PNG. ${KINDS}`],
  image_too_costly: ["The picture takes too much to read", "Send it smaller, or saved anew as a JPEG."],
  corrupt_image: ["The picture is damaged", "It begins as a picture but cannot be read to its end. Save or download it anew."],
  unknown_parameter: ["The service does not know what this page asks for", RELOAD],
  invalid_parameter: ["The service refuses what this page asks for", RELOAD],
  invalid_budget: ["The model cannot work with so small a budget", "Move the slider to the right, or reload the page."],
  unknown_field: ["The service does not know a part of what this page sent", RELOAD],
  missing_file: ["No file arrived", "Choose it again.", true],
  not_a_file: ["What arrived is not a file", "Choose it again.", true],
  too_many_images: ["Too many pictures at once", "Send fewer at a time."],
  overloaded: ["The service is busy", "It had no room for this picture however often it was asked. Try again in a while.", true],
  rate_limited: ["That was more pictures than your API key may send", "Wait a while, then try again.", true],
  too_many_requests_at_once: ["Your API key has too many pictures under way", "Wait for an answer, then try again.", true],
  quota_exceeded: ["Your API key has used up its compute for now", "Wait a while, then try again.", true],
  head_too_large: ["What this page sent was too long for the service", RELOAD],
  inference_failed: ["The network failed on this picture", "Try again.", true],
  internal_error: ["Something went wrong inside the service", "Try again.", true],
  stopping: ["The service is stopping", "Try again when it is back.", true],
  too_many_connections: ["The service has too many visitors", "Try again in a while.", true],
  no_worker: ["The service has nothing to look at pictures with", "It is trying to start that again. Try again in a while.", true],
  worker_lost: ["The process that looked at this picture was lost", "It is being replaced. Try again, once.", true],
  deadline_exceeded: ["The service took too long", "It gave up on this picture in time to say so. Try again.", true],
  unreadable: ["The file cannot be read", "It may be a folder, or have been moved or changed. Choose it again."],
  unreachable: ["The service cannot be reached", "Is it running? Is there a network?", true],
};
