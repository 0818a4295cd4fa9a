/** Runs: what their states mean for a person, what may be done in each, and the live list. */
import { signal } from "@preact/signals";
import { BoundedMap, type Holder, itemOf, register } from "./bounded";
import type { Batch } from "./event";
import { age, duration, ordinal, plural } from "./format";
import type { BlockState, LedgerItem, Run, RunAction, State, Wait } from "./type";

export const STATES: readonly State[] = ["QUEUED", "RUNNING", "WAITING", "PAUSED", "NEEDS_OPERATOR", "SUCCEEDED", "FAILED", "CANCELED"];
export const ENDED: ReadonlySet<string> = new Set(["SUCCEEDED", "FAILED", "CANCELED"]);

export const STATE_TEXT: Record<BlockState, string> = {
  QUEUED: "queued",
  RUNNING: "running",
  WAITING: "waiting",
  PAUSED: "paused",
  SUCCEEDED: "succeeded",
  FAILED: "failed",
  CANCELED: "canceled",
  NEEDS_OPERATOR: "needs operator",
  SKIPPED: "skipped",
};

const ALLOWED: Record<RunAction, ReadonlySet<State>> = {
  cancel: new Set(["QUEUED", "RUNNING", "WAITING", "PAUSED", "NEEDS_OPERATOR"]),
  pause: new Set(["QUEUED", "RUNNING", "WAITING"]),
  resume: new Set(["PAUSED", "NEEDS_OPERATOR"]),
  retry: new Set(["FAILED", "CANCELED", "NEEDS_OPERATOR"]),
};

export const ACTIONS: readonly RunAction[] = ["pause", "resume", "retry", "cancel"];

export function allows(state: State, action: RunAction): boolean {
  return ALLOWED[action].has(state);
}

/** The state that an accepted request leads to, so that a button can say "canceling" until the server has said so. */
export const REQUESTED: Record<RunAction, { text: string; done: (state: State) => boolean }> = {
  cancel: { text: "canceling", done: (state) => ENDED.has(state) },
  pause: { text: "pausing", done: (state) => state === "PAUSED" || ENDED.has(state) },
  resume: { text: "resuming", done: (state) => state !== "PAUSED" && state !== "NEEDS_OPERATOR" },
  retry: { text: "retrying", done: (state) => !ALLOWED.retry.has(state) },
};

/** "waits for an empty site in BUF, 3rd in the queue, since 12 s" */
export function describeWait(wait: Wait, now: number): string {
  const parts = [reasonOf(wait)];
  if (wait.place != null && wait.place > 0) parts.push(wait.place === 1 ? "next in the queue" : `${ordinal(wait.place)} in the queue`);
  if (wait.since != null) parts.push(`since ${age(now - wait.since)}`);
  return parts.join(", ");
}

const KIND_TEXT: Record<string, string> = {
  site: "a site",
  timer: "its time",
  child: "a sub-task",
  event: "an event",
  robot: "a robot",
};

function reasonOf(wait: Wait): string {
  const reason = wait.reason?.trim() || KIND_TEXT[wait.kind] || wait.kind;
  return /^wait/i.test(reason) ? reason : `waits for ${reason}`;
}

/** One sentence that answers "what is this run doing?". `doing` names the blocks that run now. */
export function describeRun(run: Run, now: number, doing: readonly string[] = []): string {
  switch (run.state) {
    case "QUEUED":
      return run.due_at != null && run.due_at > now + 0.5
        ? `Starts in ${age(run.due_at - now)}.`
        : `Queued since ${age(now - Math.max(run.created_at, run.due_at ?? 0))}, waits for a free worker.`;
    case "RUNNING":
      if (doing.length > 0) return `Runs ${list(doing)}.`;
      return run.wait?.length ? waiting(run, now) : "Runs.";
    case "WAITING":
      return waiting(run, now);
    case "PAUSED":
      return "Paused. Resume goes on where it stopped.";
    case "SUCCEEDED":
      return `Succeeded after ${took(run)}.`;
    case "CANCELED":
      return `Canceled after ${took(run)}. Retry goes on where it was canceled.`;
    case "FAILED":
      return `Failed after ${took(run)}. Retry goes on from the failed block.`;
    case "NEEDS_OPERATOR":
      return "Needs an operator: nobody knows whether the block took effect. Resume if it did, retry to carry it out again, or cancel.";
  }
}

function waiting(run: Run, now: number): string {
  const [first, ...others] = run.wait ?? [];
  if (!first) return "Waits.";
  const text = describeWait(first, now);
  const more = others.length > 0 ? `, and ${plural(others.length, "more wait")}` : "";
  return `${text[0]?.toUpperCase()}${text.slice(1)}${more}.`;
}

function took(run: Run): string {
  return duration((run.ended_at ?? run.created_at) - (run.started_at ?? run.created_at));
}

function list(names: readonly string[]): string {
  const shown = names.slice(0, 3).join(", ");
  return names.length > 3 ? `${shown} and ${names.length - 3} more` : shown;
}

export interface ListFilter {
  states: readonly string[];
  definition: string;
  order: string;
}

export function matches(run: Run, filter: ListFilter): boolean {
  if (filter.states.length > 0 && !filter.states.includes(run.state)) return false;
  if (filter.definition !== "" && run.definition !== filter.definition) return false;
  return filter.order === "" || run.out_order_no === filter.order;
}

/**
 * The rows of the shown page, at most `bound`. Known rows change at once; new rows come in with `settle`, which the view
 * calls twice a second and not while the user points at the list, so that nothing moves under a finger.
 */
export class RunList implements Holder {
  readonly rows = signal<readonly Run[]>([]);
  /** Runs that have come since and are not in the list yet. */
  readonly fresh = signal(0);
  /** Set while the user points at the list. */
  held = false;
  #live = true;
  #filter: ListFilter = { states: [], definition: "", order: "" };
  readonly #new: BoundedMap<string, Run>;

  constructor(
    readonly bound: number,
    readonly name = "",
  ) {
    this.#new = new BoundedMap(bound);
    if (name) register(this);
  }

  /**
   * Newest first, as the server sends them. Only the first page takes new runs in. While the user points at the list,
   * a reload of the same list changes the rows in their places only.
   */
  show(rows: readonly Run[], filter: ListFilter, live: boolean): void {
    if (this.held && filter === this.#filter && live === this.#live) return this.#refresh(rows);
    this.rows.value = rows.slice(0, this.bound);
    this.#filter = filter;
    this.#live = live;
    this.#new.clear();
    this.fresh.value = 0;
  }

  #refresh(rows: readonly Run[]): void {
    const loaded = new Map(rows.map((run) => [run.id, run]));
    this.rows.value = this.rows.value.map((run) => loaded.get(run.id) ?? run);
  }

  item(): LedgerItem {
    return itemOf(this.name, "list", this.rows.peek().length + this.#new.size, 2 * this.bound, this.#new.evictions);
  }

  /** True when shown rows changed: what they wait for comes only with the next load. */
  apply(batch: Batch): boolean {
    const changed = new Map<string, RunChange>();
    for (const event of batch.events) if (event.type === "run") changed.set(event.id, event);
    if (changed.size === 0) return false;
    const known = new Set(this.rows.value.map((run) => run.id));
    const touched = [...changed.keys()].some((id) => known.has(id));
    if (touched) this.rows.value = this.rows.value.map((run) => merge(run, changed.get(run.id)));
    if (!this.#live) return touched;
    for (const [id, change] of changed) if (!known.has(id)) this.#consider(id, change);
    this.fresh.value = this.#new.size;
    return touched;
  }

  #consider(id: string, change: RunChange): void {
    const run = merge(this.#new.get(id) ?? { ...EMPTY, id, created_at: bornAt(id) }, change);
    const oldest = this.rows.value[this.rows.value.length - 1];
    if (!matches(run, this.#filter)) this.#new.delete(id);
    else if (this.rows.value.length < this.bound || !oldest || id > oldest.id) this.#new.set(id, run);
  }

  /** Take new rows in and let rows that match no more go. True when the page must be loaded again to be whole. */
  settle(): boolean {
    if (this.held) return false;
    const staying = this.rows.value.filter((run) => matches(run, this.#filter));
    const gone = this.rows.value.length - staying.length;
    if (this.#new.size === 0 && gone === 0) return false;
    const all = [...this.#new.values(), ...staying].sort((a, b) => (a.id < b.id ? 1 : -1));
    const wasFull = this.rows.value.length >= this.bound;
    const partial = this.#new.values().some((run) => run.version === 0);
    this.rows.value = all.slice(0, this.bound);
    this.#new.clear();
    this.fresh.value = 0;
    return partial || (wasFull && all.length < this.bound);
  }
}

const EMPTY: Omit<Run, "id"> = {
  definition: "",
  label: "",
  version: 0,
  state: "QUEUED",
  priority: 0,
  due_at: null,
  created_at: 0,
  started_at: null,
  ended_at: null,
  attempt: 1,
  error: null,
  error_path: null,
  parent_id: null,
  out_order_no: null,
  state_message: null,
  wait: null,
};

/** A change as the stream tells it: `at` is the moment of the new state. */
export type RunChange = Partial<Run> & { type?: string; at?: number };

/** Fields that are in the event replace ours. A run that goes on waits no more, also when the event does not say so. */
export function merge<R extends Run>(run: R, change: RunChange | undefined): R {
  if (!change) return run;
  const { type: _type, at, ...fields } = change;
  const merged = { ...run, ...fields };
  if (merged.state !== run.state && merged.state !== "WAITING" && fields.wait === undefined) merged.wait = null;
  if (at !== undefined && merged.state === "RUNNING") merged.started_at ??= at;
  if (at !== undefined && ENDED.has(merged.state)) merged.ended_at ??= at;
  if (!ENDED.has(merged.state)) merged.ended_at = null;
  return merged;
}

const CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/** A run's id is a ULID: its first ten characters are the milliseconds of its birth. */
export function bornAt(id: string): number {
  let ms = 0;
  for (const letter of id.slice(0, 10).toUpperCase()) ms = ms * 32 + Math.max(0, CROCKFORD.indexOf(letter));
  return ms / 1000;
}
