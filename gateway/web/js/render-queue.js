// A queue of work on the page that is done in slices, so that the page answers the user in between.

/** The maximum time of a slice. One step of a job may exceed it. */
const SLICE_MS = 12;

const jobs = [];
let sliceStartMs = null;
const channel = new MessageChannel();
channel.port1.onmessage = () => {
  sliceStartMs = null;
  work();
};

/**
 * Calls `step` until it returns false: at once as far as the slice allows, and then in later slices. Jobs that were added last
 * come first, because the newest messages are the visible ones.
 */
export function enqueue(step) {
  jobs.push(step);
  work();
}

function work() {
  while (jobs.length && hasTime()) {
    const step = jobs.at(-1);
    if (!step()) jobs.splice(jobs.indexOf(step), 1);
  }
}

/** True while the current slice has time left. The end of the current task also ends the slice. */
function hasTime() {
  if (sliceStartMs === null) {
    sliceStartMs = performance.now();
    channel.port2.postMessage(null);
  }
  return performance.now() - sliceStartMs < SLICE_MS;
}
