/** Server-sent events: the text format, and the merging of a flood of events into what one frame has to draw. */
import { itemOf, register } from "./bounded";
import type { BlockState, LedgerItem, Pulse, Robot, Run, Site } from "./type";

export interface Message {
  id: string;
  event: string;
  data: string;
}

export type StreamEvent =
  | ({ type: "run"; id: string } & Partial<Run>)
  | { type: "block"; run_id: string; path: string; name: string; state: BlockState }
  | ({ type: "site" } & Site)
  | ({ type: "robot" } & Robot)
  | ({ type: "status" } & Pulse)
  | { type: "log"; run_id: string }
  | { type: "gap"; missed: number | null };

export interface Batch {
  events: StreamEvent[];
  /** Events that were lost, here or at the server: what is shown has to be loaded again. */
  missed: number;
}

const MAX_MESSAGE_CHARS = 1_000_000;
const TOO_LONG = "an event of the stream is longer than 1 MB";

/** Cuts the text of an event stream into messages (https://html.spec.whatwg.org/multipage/server-sent-events.html). */
export class MessageParser {
  #rest = "";
  #id = "";
  #event = "";
  #data: string[] = [];
  #size = 0;

  /** Raises an Error when a single line or message exceeds the bound. */
  push(chunk: string): Message[] {
    const lines = (this.#rest + chunk).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() ?? "";
    if (this.#rest.length > MAX_MESSAGE_CHARS) throw new Error(TOO_LONG);
    const messages: Message[] = [];
    for (const line of lines) {
      if (line === "") this.#end(messages);
      else this.#field(line);
      if (this.#size > MAX_MESSAGE_CHARS) throw new Error(TOO_LONG);
    }
    return messages;
  }

  #field(line: string): void {
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
    if (name === "id") this.#id = value;
    else if (name === "event") this.#event = value;
    else if (name === "data") {
      this.#data.push(value);
      this.#size += value.length;
    }
  }

  #end(messages: Message[]): void {
    if (this.#data.length > 0) messages.push({ id: this.#id, event: this.#event || "message", data: this.#data.join("\n") });
    this.#event = "";
    this.#data = [];
    this.#size = 0;
  }
}

/** One entry per thing that changed: a run that changed a hundred times since the last frame is drawn once. */
export class Coalescer {
  #pending = new Map<string, StreamEvent>();
  #missed = 0;
  #lost = 0;

  constructor(
    readonly bound = 2000,
    readonly name = "",
  ) {
    if (name) register(this);
  }

  get size(): number {
    return this.#pending.size;
  }

  put(event: StreamEvent): void {
    if (event.type === "gap") {
      this.#missed += Math.max(1, event.missed ?? 1);
      return;
    }
    const key = keyOf(event);
    const before = this.#pending.get(key);
    if (before) this.#pending.set(key, { ...before, ...event } as StreamEvent);
    else if (this.#pending.size < this.bound) this.#pending.set(key, event);
    else {
      this.#missed += 1;
      this.#lost += 1;
    }
  }

  miss(): void {
    this.#missed += 1;
  }

  item(): LedgerItem {
    return itemOf(this.name, "map", this.size, this.bound, this.#lost);
  }

  drain(): Batch {
    const batch = { events: [...this.#pending.values()], missed: this.#missed };
    this.#pending.clear();
    this.#missed = 0;
    return batch;
  }
}

function keyOf(event: Exclude<StreamEvent, { type: "gap" }>): string {
  switch (event.type) {
    case "block":
      return `block ${event.run_id} ${event.path}`;
    case "status":
      return "status";
    case "log":
      return `log ${event.run_id}`;
    default:
      return `${event.type} ${event.id}`;
  }
}
