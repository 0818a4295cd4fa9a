/** Requests of the user to a run: told at once as "canceling", and never as done before the server has said so. */
import { signal } from "@preact/signals";
import { api, explain } from "./api";
import { confirm, notify, type Question } from "./notice";
import { allows, REQUESTED } from "./run";
import type { Run, RunAction, State } from "./type";

const MAX_OPEN = 200;
/** Bulk requests go out a few at a time: the server's queue is for everyone. */
const MAX_PARALLEL = 4;

export const requests = signal<ReadonlyMap<string, RunAction>>(new Map());

function note(run: string, action: RunAction | null): void {
  const open = new Map(requests.value);
  open.delete(run);
  if (action) open.set(run, action);
  for (const oldest of open.keys()) {
    if (open.size <= MAX_OPEN) break;
    open.delete(oldest);
  }
  requests.value = open;
}

/** The request that this run has not fulfilled yet. */
export function openRequest(run: { id: string; state: State }): RunAction | null {
  const action = requests.value.get(run.id);
  return action && !REQUESTED[action].done(run.state) ? action : null;
}

/** Forget requests that are fulfilled; called with every fresh state of a run. */
export function fulfil(run: { id: string; state: State }): void {
  const action = requests.peek().get(run.id);
  if (action && REQUESTED[action].done(run.state)) note(run.id, null);
}

function questionOf(run: Run, action: RunAction): Question | null {
  const name = run.label || run.definition;
  if (action === "cancel") {
    const text = "Its blocks stop where they are and its locks on sites are released.";
    return { title: `Cancel ${name}?`, text, action: "Cancel the run", danger: true };
  }
  if (action === "resume" && run.state === "NEEDS_OPERATOR") {
    const text = "You say that the block in question did take effect. The run goes on after it; the block is not carried out again.";
    return { title: `Go on with ${name}?`, text, action: "It took effect, go on" };
  }
  if (action === "retry" && run.state === "NEEDS_OPERATOR") {
    const text = "The server does not know whether the block took effect. It will be carried out again: make sure that this is safe.";
    return { title: `Carry the block of ${name} out again?`, text, action: "Retry", danger: true };
  }
  return null;
}

/** Ask if need be, send, and answer the run's state as the server sees it; null when nothing was done. */
export async function perform(run: Run, action: RunAction): Promise<Run | null> {
  const question = questionOf(run, action);
  if (question && !(await confirm(question))) return null;
  return send(run, action, (error) => notify("error", `The run could not be changed (${action}): ${error}`));
}

async function send(run: Run, action: RunAction, failed: (error: string) => void): Promise<Run | null> {
  note(run.id, action);
  try {
    const answer = await api.act(run.id, action);
    fulfil(answer);
    return answer;
  } catch (error) {
    note(run.id, null);
    failed(explain(error));
    return null;
  }
}

const BULK_TEXT: Record<RunAction, string> = {
  cancel: "They stop where they are and their locks on sites are released.",
  pause: "They stop after their current block and keep their places.",
  resume: "They go on where they stopped. For those that need an operator: their blocks did take effect and are not carried out again.",
  retry: "They go on from their failed blocks; a block that needs an operator is carried out again.",
};

/** One question for all of them, then one request each; what failed is told in one message. */
export async function performAll(runs: readonly Run[], action: RunAction): Promise<void> {
  const fit = runs.filter((run) => allows(run.state, action));
  if (fit.length === 0) return;
  const runsText = fit.length === 1 ? "1 run" : `${fit.length} runs`;
  const title = `${action[0]?.toUpperCase()}${action.slice(1)} ${runsText}?`;
  if (!(await confirm({ title, text: BULK_TEXT[action], action: title.replace("?", ""), danger: action === "cancel" }))) return;
  const queue = [...fit];
  const failures: string[] = [];
  const work = async () => {
    for (let run = queue.pop(); run; run = queue.pop()) await send(run, action, (error) => failures.push(error));
  };
  await Promise.all(Array.from({ length: MAX_PARALLEL }, work));
  if (failures.length > 0) notify("error", `${failures.length} of ${runsText} could not be changed. The first: ${failures[0]}`);
  else notify("ok", `The server took ${action} for ${runsText}.`);
}
