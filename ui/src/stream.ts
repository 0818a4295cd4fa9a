/**
 * One connection to /api/stream. It is read with fetch rather than EventSource because only so can we send the token and
 * `Last-Event-ID` ourselves, come back after a refusal, and notice a connection that has gone silent.
 */
import { batch, signal } from "@preact/signals";
import { address, authorization } from "./api";
import { type Batch, Coalescer, MessageParser, type StreamEvent } from "./event";
import { ask, token } from "./token";

export type Link = "connecting" | "live" | "retrying";
type Listener = (batch: Batch) => void;

/** The server sends a status every two seconds: silence means a dead connection. */
const SILENCE_MS = 20_000;
/** A response that lasts for weeks is reopened now and then, so that nothing inside the browser grows with it. */
const RENEW_MS = 3_600_000;
/** Things that changed since the last frame. */
const MAX_PENDING = 2000;
const FIRST_RETRY_MS = 300;
const MAX_RETRY_MS = 10_000;

export class Stream {
  readonly link = signal<Link>("connecting");
  readonly #coalescer: Coalescer;
  readonly #listeners = new Set<Listener>();
  #types = "status";
  #run = "";
  #lastId = "";
  #frame = 0;
  #stopped = true;
  #connection: AbortController | null = null;

  constructor(
    readonly schedule: (draw: () => void) => number = (draw) => requestAnimationFrame(draw),
    name = "",
  ) {
    this.#coalescer = new Coalescer(MAX_PENDING, name);
  }

  /** Events that wait for the next frame. */
  get pending(): number {
    return this.#coalescer.size;
  }

  listen(listener: Listener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  start(): void {
    if (!this.#stopped) return;
    this.#stopped = false;
    void this.#loop();
  }

  stop(): void {
    this.#stopped = true;
    this.#connection?.abort();
  }

  /** Ask for just what the current view shows: block events only of the run that is open. */
  watch(types: readonly string[], run = ""): void {
    const wanted = [...new Set([...types, "status"])].join(",");
    if (wanted === this.#types && run === this.#run) return;
    this.#types = wanted;
    this.#run = run;
    this.#connection?.abort();
  }

  /** Take one event in; it reaches the listeners with the next frame. */
  put(event: StreamEvent): void {
    if (event.type === "block" && event.run_id !== this.#run) return;
    this.#coalescer.put(event);
    this.#request();
  }

  async #loop(): Promise<void> {
    let failures = 0;
    while (!this.#stopped) {
      const connection = new AbortController();
      this.#connection = connection;
      try {
        await this.#connect(connection, failures > 0, () => (failures = 0));
      } catch {
        if (connection.signal.aborted && connection.signal.reason !== "silence") continue;
        this.link.value = "retrying";
        await pause(Math.min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** failures) * (0.75 + Math.random() / 2));
        failures += 1;
      }
    }
  }

  async #connect(connection: AbortController, again: boolean, opened: () => void): Promise<void> {
    const sent = token();
    const headers = { Accept: "text/event-stream", ...authorization(), ...(this.#lastId ? { "Last-Event-ID": this.#lastId } : {}) };
    const url = address("api/stream", { types: this.#types, run: this.#run });
    const response = await fetch(url, { headers, signal: connection.signal, cache: "no-store" });
    if (response.status === 401) {
      await ask(sent);
      return;
    }
    if (!response.ok || !response.body) throw new Error(`the stream answered ${response.status}`);
    opened();
    this.link.value = "live";
    // The server may be another process now, with other numbers: after a break what is shown is loaded again.
    if (again) this.#miss();
    await this.#read(response.body, connection);
  }

  async #read(body: ReadableStream<Uint8Array>, connection: AbortController): Promise<void> {
    const parser = new MessageParser();
    const reader = body.pipeThrough(new TextDecoderStream() as TransformStream<Uint8Array, string>).getReader();
    const end = Date.now() + RENEW_MS;
    for (;;) {
      const silence = setTimeout(() => connection.abort("silence"), SILENCE_MS);
      const { done, value } = await reader.read().finally(() => clearTimeout(silence));
      if (done) throw new Error("the stream ended");
      for (const message of parser.push(value)) this.#take(message.id, message.event, message.data);
      if (Date.now() > end) return connection.abort("renew");
    }
  }

  #take(id: string, event: string, data: string): void {
    if (id) this.#lastId = id;
    const parsed = parse(event, data);
    if (parsed) this.put(parsed);
  }

  #miss(): void {
    this.#coalescer.miss();
    this.#request();
  }

  /** A hidden tab gets no frames; until it is shown again the coalescer's bound holds. */
  #request(): void {
    if (this.#frame !== 0) return;
    this.#frame = this.schedule(() => this.#flush());
  }

  #flush(): void {
    this.#frame = 0;
    const drained = this.#coalescer.drain();
    batch(() => {
      for (const listener of this.#listeners) listener(drained);
    });
  }
}

function parse(event: string, data: string): StreamEvent | null {
  try {
    const body = JSON.parse(data) as object;
    return { ...body, type: event } as StreamEvent;
  } catch {
    return null;
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

export const stream = new Stream(undefined, "events until the next frame");
