/** Something loaded from the server and shown: reloaded on request, never more often than it can bear. */
import { type Signal, signal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { explain } from "./api";
import { stream } from "./stream";

const MIN_INTERVAL_MS = 1000;
/** A slow answer must not be asked for again at once: wait this many times as long as it took. */
const COST_FACTOR = 4;

export interface ResourceOptions {
  /** Load again after this time, whether or not an event asks for it. */
  everyMs?: number;
  minIntervalMs?: number;
}

export class Resource<T> {
  readonly data: Signal<T | null> = signal(null);
  readonly error: Signal<string | null> = signal(null);
  readonly loading = signal(false);
  #abort: AbortController | null = null;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #again = false;
  #cost = 0;
  #closed = false;

  constructor(
    readonly load: (signal: AbortSignal) => Promise<T>,
    readonly options: ResourceOptions = {},
  ) {}

  /** Load now, whatever is under way. */
  async reload(): Promise<void> {
    if (this.#closed) return;
    this.#clear();
    this.#abort?.abort();
    const abort = new AbortController();
    this.#abort = abort;
    this.loading.value = true;
    const start = performance.now();
    try {
      const data = await this.load(abort.signal);
      if (abort.signal.aborted) return;
      this.data.value = data;
      this.error.value = null;
    } catch (error) {
      if (abort.signal.aborted) return;
      this.error.value = explain(error);
    }
    this.#cost = performance.now() - start;
    this.loading.value = false;
    if (this.#again) this.soon();
    else if (this.options.everyMs) this.#plan(this.options.everyMs);
  }

  /** Load as soon as the interval allows; any number of calls until then make one load. */
  soon(): void {
    if (this.#closed) return;
    this.#again = true;
    if (this.loading.value) return;
    this.#plan(Math.max(this.options.minIntervalMs ?? MIN_INTERVAL_MS, COST_FACTOR * this.#cost));
  }

  #planned = Number.POSITIVE_INFINITY;

  #plan(ms: number): void {
    const at = performance.now() + ms;
    if (this.#timer !== null && this.#planned <= at) return;
    this.#clear();
    this.#planned = at;
    this.#timer = setTimeout(() => {
      this.#again = false;
      void this.reload();
    }, ms);
  }

  #clear(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#again = false;
    this.#planned = Number.POSITIVE_INFINITY;
  }

  close(): void {
    this.#closed = true;
    this.#clear();
    this.#abort?.abort();
  }
}

/** A resource that lives as long as the component and reloads when events were missed. */
export function useResource<T>(load: (signal: AbortSignal) => Promise<T>, inputs: readonly unknown[], options: ResourceOptions = {}): Resource<T> {
  const resource = useMemo(() => new Resource(load, options), inputs);
  useEffect(() => {
    void resource.reload();
    const leave = stream.listen((batch) => {
      if (batch.missed > 0) resource.soon();
    });
    return () => {
      leave();
      resource.close();
    };
  }, [resource]);
  return resource;
}
