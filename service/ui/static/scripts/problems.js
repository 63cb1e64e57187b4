// What went wrong, in words for the person at the page: one entry for every error type of the API.

/** An error of the API, or of reaching it. */
export class Problem extends Error {
  /**
   * @param {string} type of the API, or "unreadable", "unreachable" or "unexpected"
   * @param {string} message as the service tells it
   * @param {{status?: number, retryAfterS?: number}} details
   */
  constructor(type, message, { status, retryAfterS } = {}) {
    super(message);
    this.type = type;
    this.status = status;
    this.retryAfterS = retryAfterS;
  }

  /** What to show: a title, what to do about it, and whether sending the same again may help. */
  get explanation() {
    const [title, advice, retriable = false] = EXPLANATIONS[this.type] ?? OTHER;
    return { title, advice, retriable };
  }
}

const FORMATS = "The formats it reads are named where images are chosen.";
const AGE = "The page and the service may be of different versions; reload the page.";
const OTHER = ["The service answered in a way this page does not know", "Try again; reload the page if it stays so.", true];

const EXPLANATIONS = {
  empty_image: ["The file is empty", "Choose another one."],
  malformed_request: ["The service could not make sense of the request", AGE],
  unauthorized: ["The service asks for an API key", "This page has none; use a client that sends one."],
  forbidden: ["This API key does not open that", "Ask whoever gave it to you."],
  not_found: ["The service has nothing there", AGE],
  method_not_allowed: ["The service does not take this request", AGE],
  upload_timeout: ["The upload took too long", "The connection may be slow. Try again, or send a smaller picture.", true],
  image_too_large: ["The file is too large", "Send a smaller one; the network looks at few pixels anyway."],
  too_many_pixels: ["The picture has too many pixels", "Scale it down; the network looks at few pixels anyway."],
  not_an_image: ["The service cannot read this as a picture", FORMATS],
  unsupported_encoding: ["The service does not take compressed requests", AGE],
  unsupported_media_type: ["This is not a picture", FORMATS],
  unsupported_image: ["The service cannot read pictures of this kind", FORMATS],
  image_too_costly: ["The picture takes too much to read", "Send it smaller, or saved anew as a JPEG."],
  corrupt_image: ["The picture is damaged", "It begins as a picture but cannot be read to its end."],
  unknown_parameter: ["The service does not know what this page asks for", AGE],
  invalid_parameter: ["The service refuses what this page asks for", AGE],
  invalid_budget: ["The model has no budget as small as that", AGE],
  unknown_field: ["The service does not know a field of the form", AGE],
  missing_file: ["No file arrived", "Choose it again.", true],
  not_a_file: ["What arrived is not a file", "Choose it again.", true],
  too_many_images: ["Too many pictures at once", "Send fewer at a time."],
  overloaded: ["The service is busy", "It had no room for this picture however often it was asked. Try again in a while.", true],
  rate_limited: ["That was more pictures than this API key may send", "Wait a while, then try again.", true],
  too_many_requests_at_once: ["This API key has too many requests under way", "Wait for an answer, then try again.", true],
  quota_exceeded: ["This API key has used up its compute for now", "Wait a while, then try again.", true],
  head_too_large: ["The request was too long for the service", AGE],
  inference_failed: ["The network failed on this picture", "Try again; the service's log has the details.", true],
  internal_error: ["Something went wrong inside the service", "Its log has the details.", true],
  stopping: ["The service is stopping", "Try again when it is back.", true],
  too_many_connections: ["The service has too many visitors", "Try again in a while.", true],
  no_worker: ["The service has nothing to look at pictures with", "It is trying to start that again. Try again in a while.", true],
  worker_lost: ["The process that looked at this picture was lost", "It is being replaced. Try again, once.", true],
  deadline_exceeded: ["The service took too long", "It gave up on this picture in time to say so. Try again.", true],
  unreadable: ["The file cannot be read", "It may be a folder, or have been moved or changed."],
  unreachable: ["The service cannot be reached", "Is it running? Is there a network?", true],
};
